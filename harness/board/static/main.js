// The page: toolbar, table, charts, cards; and the poll that keeps them up to date.

import { readAddress, writeAddress } from "./address.js";
import { MORE, latencies, pareto } from "./charts.js";
import { cards } from "./cards.js";
import { el, installTips, toggle } from "./dom.js";
import { csv, save } from "./download.js";
import { chartFigure } from "./figure.js";
import { FACETS, byDataset, chosenWith, filtered, newState, overlaid, sorted, valuesOf } from "./state.js";
import { columnsFor, makeTable, tableRows } from "./table.js";
import { makeToolbar } from "./toolbar.js";

const EVERY_MS = 5000; // TensorBoard's own server looks at the files so often
const COSTS = [["latency_ms", "latency"], ["model_size_mb", "model size"], ["energy_j", "energy"]];

/** Fill `root`. `first`: a Response that is already on its way from `address`. */
export function start(root, address, first) {
  const state = newState(themeOfPage());
  readAddress(state);
  document.title = "Compression Board";
  const page = build(root, state);
  const poll = poller(address, (payload) => {
    state.board = payload.board;
    state.metrics = payload.metrics;
    state.loaded = true;
    page.redraw();
  }, page.say, first);
  page.onReload = poll.now;
  setInterval(() => state.auto && document.visibilityState === "visible" && poll.now(), EVERY_MS);
  document.addEventListener("visibilitychange", () => state.auto && poll.now());
  poll.now();
}

/** Asks for the board, and hands it on where it has changed since the last time. */
function poller(address, deliver, say, first) {
  let token = null;
  let busy = false;
  async function now() {
    if (busy) return;
    busy = true;
    try {
      const known = token === null ? "" : `?token=${token}`;
      const response = await (first ?? fetch(`${address}${known}`));
      first = null;
      if (!response.ok) throw new Error(`TensorBoard answers ${response.status}`);
      const payload = await response.json();
      if (payload.board) deliver(payload);
      token = payload.token;
      say(`read at ${new Date().toLocaleTimeString()}`);
    } catch (error) {
      say(`cannot read the log folder: ${error.message}`, true);
    } finally {
      busy = false;
    }
  }
  return { now };
}

function build(root, state) {
  const page = { onReload: () => {} };
  const redraw = () => draw(page, state);
  const set = (change) => {
    Object.assign(state, change);
    writeAddress(state);
    redraw();
  };
  const toolbar = makeToolbar(state, set, () => page.onReload(), (theme) => applyTheme(root, state, theme, redraw));
  const table = makeTable(tableActions(state, set));
  const notes = el("div", { class: "notes", role: "status" });
  const charts = COSTS.map(([metric, what]) => chartFigure(`accuracy against ${what}`, { metric, lacks: nothing(metric, what.split(" ").pop()) }));
  const facets = Array.from({ length: FACETS - 1 }, (_, at) =>
    chartFigure(`accuracy against latency, dataset ${at + 2}`, { metric: "latency_ms" }));
  const others = MORE.map(({ label, lacks, says, tall }) => chartFigure(label, { lacks, says, tall }));
  const story = el("p", { class: "story dim" });
  const tail = toggle("Whole tail", false, () => set({ whole: !state.whole }), { class: "small" });
  const overlay = chartFigure("latency distribution", { lacks: "No entry shown has a latency distribution." }, tail);
  const grid = el("div", { class: "grid" });
  const more = el("button", { type: "button", class: "more", onclick: () => set({ cards: state.cards + 24 }) });
  const heading = (text, ...rest) => el("h2", {}, text, ...rest);
  const tableCsv = el("button", {
    type: "button", class: "small", "aria-label": "Download the table as CSV",
    onclick: () => save("compression.csv", csv(tableRows(filtered(state), state.metrics)), "text/csv"),
  }, "CSV");
  const main = el("main", {},
    el("section", { class: "panel", "aria-label": "Filters" }, toolbar.node, notes),
    story, el("div", { class: "charts" }, ...[...charts, ...facets].map((c) => c.node)),
    heading("Models by precision"),
    el("section", { class: "panel", "aria-label": "Models by precision" }, table.node,
      el("div", { class: "below" }, table.pager, tableCsv)),
    heading("Latency and scores ", el("small", {}, "distributions of the rows selected in the table; without a selection, of the first pair")),
    el("div", { class: "charts" }, overlay.node, ...others.map((c) => c.node)),
    heading("Model by model ", el("small", {}, "each precision beside the one it is compared with")), grid, more);
  root.classList.add("compression-board");
  root.replaceChildren(main);
  installTips(root);
  new ResizeObserver(() => [...charts, ...facets, overlay, ...others].forEach((c) => c.resize())).observe(main);
  followTheme((theme) => applyTheme(root, state, theme, redraw));
  applyTheme(root, state, state.theme, () => {});
  return Object.assign(page, { toolbar, table, notes, charts, facets, others, story, overlay, tail, grid, more, redraw, say: toolbar.say });
}

/** The table at once; what takes longer once the browser has shown it. */
function draw(page, state) {
  if (!state.loaded) return;
  const entries = filtered(state);
  page.toolbar.redraw(state, entries);
  page.notes.replaceChildren(...noteLines(state, entries));
  page.table.redraw(entries, state);
  performance.mark("board: table");
  clearTimeout(page.later);
  page.later = setTimeout(() => drawCharts(page, state, entries), 0);
}

function drawCharts(page, state, entries) {
  const sets = byDataset(entries);
  const drawing = { metrics: state.metrics, theme: state.theme };
  for (const chart of page.charts) chart.draw(pareto, { entries: sets[0]?.[1] ?? entries }, drawing);
  page.facets.forEach((chart, at) => {
    const [dataset, found] = sets[at + 1] ?? ["", []];
    chart.node.hidden = !found.length;
    if (found.length) chart.draw(pareto, { entries: found }, { ...drawing, facet: dataset });
  });
  page.story.textContent = storyOf(sets, entries);
  page.others.forEach((chart, at) => {
    const { make, of } = MORE[at];
    chart.draw(make, of ? chosenWith(state, entries, of) : entries, drawing);
  });
  const all = state.board.entries;
  page.overlay.draw(latencies, overlaid(state, entries), {
    theme: state.theme, all, whole: state.whole,
  });
  page.tail.setAttribute("aria-pressed", String(state.whole));
  const ordered = sorted(entries, state.sort, columnsFor(all, state.metrics));
  const shown = cards(ordered, state.board, state.metrics, state.cards);
  page.grid.replaceChildren(...(shown.nodes.length ? shown.nodes : [emptyCards(entries, all)]));
  page.more.hidden = shown.total <= state.cards;
  page.more.textContent = `Show more (${shown.total - state.cards} left)`;
  performance.mark("board: all");
}

function storyOf(sets, entries) {
  const judged = entries.map((entry) => entry.judged?.latency_ms?.verdict).filter(Boolean);
  const count = (word) => judged.filter((one) => one === word).length;
  const told = ["improved", "regressed", "unchanged", "inconclusive", "not comparable"]
    .filter(count).map((word) => `${count(word)} ${word}`);
  const pairs = judged.length ? `Latency of ${judged.length} against their reference: ${told.join(", ")}. ` : "";
  const arrows = judged.length ? "Arrows lead from a reference to what became of it; shift and wheel zoom." : "";
  const several = sets.length > 1
    ? ` Accuracies of different datasets do not compare: first ${sets[0][0]}, then a chart each.` : "";
  return `${pairs}${arrows}${several}`;
}

function emptyCards(entries, all) {
  if (all.length && !entries.length) return el("p", { class: "dim" }, "No entry passes the filters.");
  return el("p", { class: "dim" },
    "Nothing to compare yet: measure the same model at fp32 and at another precision, on one backend and machine.");
}

function noteLines(state, entries) {
  const lines = state.board.notes.map((note) => el("p", {}, el("bdi", {}, note)));
  if (!state.board.entries.length) {
    lines.push(el("p", {}, "No run in this log folder holds compression data. ",
      el("code", {}, "harness run --precision int8"), " writes some, and so does ",
      el("code", {}, "harness.board.CompressionWriter"), "."));
  } else if (!entries.length) {
    lines.push(el("p", {}, "No entry passes the filters."));
  }
  return lines;
}

function tableActions(state, set) {
  return {
    sort: (column) => {
      const { sort } = state;
      const descending = sort.column === column ? !sort.descending : false;
      set({ sort: { column, descending }, page: 0 });
    },
    page: (page) => set({ page }),
    expand: (key) => {
      if (!state.expanded.delete(key)) state.expanded.add(key);
      set({});
    },
    select: (keys, on) => {
      for (const key of keys) {
        if (on) state.selected.add(key);
        else state.selected.delete(key);
      }
      set({});
    },
  };
}

/** Why a chart of accuracy against a cost is empty. */
const nothing = (metric, what) => ({ entries }) => {
  const [reason] = valuesOf(entries, (entry) => entry.missing[metric]);
  return `No entry shown has both accuracy and ${what}.${reason ? ` Why: ${reason}.` : ""}`;
};

// -- theme ----------------------------------------------------------------------------------------

function applyTheme(root, state, theme, redraw) {
  state.theme = theme;
  root.dataset.theme = theme;
  redraw();
}

/** TensorBoard's own, where its page can be seen from here; else the system's. */
function themeOfPage() {
  const outer = outerBody();
  if (outer) return outer.classList.contains("dark-mode") ? "dark" : "light";
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

function followTheme(apply) {
  const change = () => apply(themeOfPage());
  const outer = outerBody();
  if (outer) new MutationObserver(change).observe(outer, { attributes: true, attributeFilter: ["class"] });
  else matchMedia("(prefers-color-scheme: dark)").addEventListener("change", change);
}

function outerBody() {
  try {
    return parent !== window ? parent.document.body : null;
  } catch {
    return null; // another origin: a notebook, for one
  }
}
