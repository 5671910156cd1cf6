// The table of models x precisions. Only one page of rows is in the document at any time.

import { el, name } from "./dom.js";
import {
  auroraText, conditionsOf, figureText, hasInterval, keyOf, localTime, number, quantity, scaleFor, words,
} from "./format.js";
import { linksTo } from "./links.js";
import { verdict } from "./verdict.js";
import { sorted } from "./state.js";

const FIRST = ["latency_ms", "accuracy"]; // and the gain: in sight on every screen
const inTable = (metrics, when) =>
  Object.keys(metrics).filter((id) => metrics[id].in_table === when && !FIRST.includes(id));

/** The columns for these entries: metrics that nobody has are left out, but for the main ones. */
export function columnsFor(entries, metrics) {
  // a power from which joules were derived says no more than they do
  const has = (id) => entries.some((entry) => entry.figures[id] && !(id === "power_mw" && entry.figures.energy_j));
  return [
    { id: "model", title: "Model", value: (entry) => entry.model, cell: modelCell },
    { id: "precision", title: "Precision", value: (e) => e.precision, cell: (e) => name(e.precision) },
    ...FIRST.map((id) => metricColumn(id, metrics[id])),
    {
      id: "gain", title: "Gain", numeric: true, cell: gainCell, value: (entry) => entry.ratios.speedup ?? null,
      tip: "How much faster than its reference, and what harness compare says of it",
    },
    ...inTable(metrics, "always").map((id) => metricColumn(id, metrics[id])),
    {
      id: "aurora", title: "AURORA", numeric: true, cell: auroraCell,
      tip: "Weighted geometric mean of accuracy retention, speedup, size ratio and energy ratio against the reference, times 100. Above 100 is better.",
      value: (entry) => entry.aurora?.score ?? null,
    },
    ...inTable(metrics, "where known").filter(has).map((id) => metricColumn(id, metrics[id])),
    { id: "status", title: "Status", value: (entry) => entry.status, cell: statusCell },
    {
      id: "when", title: "Measured", value: (entry) => entry.info.started_at ?? null,
      cell: (entry) => el("span", { class: "dim", "data-tip": entry.run }, localTime(entry.info.started_at)),
    },
  ];
}

function metricColumn(id, metric) {
  const better = { lower: "lower is better", higher: "higher is better" }[metric.better] ?? "";
  return {
    id, numeric: true, title: metric.head || metric.title,
    tip: [metric.title, better].filter(Boolean).join(": "),
    value: (entry) => entry.figures[id]?.value ?? null,
    cell: (entry) => metricCell(entry, id, metric),
  };
}

const VARYING = new Set(["latency_ms", "throughput_per_s", "energy_j", "power_mw"]);

/** In the unit that fits the value, with its interval, or the word that there is none. */
function metricCell(entry, id, metric) {
  const figure = entry.figures[id];
  if (!figure) return missingCell(entry.missing[id] ?? (id === "power_mw" && entry.missing.energy_j), entry);
  const derived = entry.derived?.[id];
  const tip = [figureText(figure, metric.unit), derived && `derived: ${derived}`];
  const value = el("span", { "data-tip": tip.filter(Boolean).join("\n") }, quantity(figure.value, metric.unit));
  const { factor } = scaleFor(metric.unit, [Math.abs(figure.value)]);
  const note = hasInterval(figure) ? `${number(figure.low / factor)} – ${number(figure.high / factor)}`
    : VARYING.has(id) && entry.status !== "running" ? "no interval" : "";
  return note ? el("span", { class: "with-interval" }, value, el("small", {}, note)) : value;
}

function gainCell(entry) {
  if (entry.ratios.speedup === undefined) {
    return entry.precision.toLowerCase() === "fp32" || !entry.missing.aurora
      ? el("span", { class: "dim" }, "–") : missingCell(entry.missing.aurora, entry);
  }
  return el("span", { class: "with-interval" }, verdict("speedup", entry.ratios.speedup, entry.judged.latency_ms, false),
    el("small", {}, entry.judged.latency_ms?.verdict ?? ""));
}

function missingCell(reason, entry) {
  const fallback = entry.status === "running" ? "not yet measured" : "not measured";
  const tip = reason || fallback;
  return el("span", {
    class: "missing", tabindex: 0, "data-tip": tip, "aria-label": `not available: ${tip}`,
  }, entry.status === "running" && !reason ? "…" : "n/a");
}

function modelCell(entry) {
  const badge = entry.random_weights
    ? el("span", {
      class: "badge", tabindex: 0,
      "data-tip": "The weights were drawn at random: speed and size mean something, accuracy does not.",
    }, "random weights")
    : null;
  const launches = entry.runs?.length > 1 ? `${entry.launches} launches` : "";
  const conditions = conditionsOf(entry);
  return el("span", { class: "model" }, name(entry.model),
    el("small", { class: "narrow" }, entry.precision),
    conditions ? el("small", { class: "conditions" }, el("bdi", {}, conditions)) : null,
    launches ? el("small", { class: "dim launches" }, launches) : null, badge);
}

function statusCell(entry) {
  const reason = entry.info.warnings || entry.info.error || "";
  return el("span", {
    class: `status ${STATUSES.has(entry.status) ? entry.status : ""}`,
    tabindex: reason ? 0 : null, "data-tip": reason || null,
    "aria-label": reason ? `${entry.status}: ${reason}` : null,
  }, entry.status);
}

const STATUSES = new Set(["running", "complete", "degraded", "failed", "interrupted", "imported"]);

function auroraCell(entry) {
  if (!entry.aurora) {
    // the reference itself has none, and lacks none
    return entry.missing.aurora ? missingCell(entry.missing.aurora, entry) : el("span", { class: "dim" }, "–");
  }
  const { score, components } = entry.aurora;
  const short = { accuracy_retention: "acc", speedup: "speed", size_ratio: "size", energy_ratio: "energy" };
  const parts = Object.entries(components).map(([k, v]) => `${short[k] ?? k}\u00a0${number(v, 3)}`);
  return el("span", { class: "with-interval", tabindex: 0, "data-tip": auroraText(entry.aurora) },
    el("span", {}, number(score)), el("small", { class: "parts" }, parts.join(" · ")));
}

/** A table that redraws itself from (entries, state) and calls back what the reader does. */
export function makeTable(on) {
  const head = el("tr");
  const body = el("tbody");
  const caption = el("caption", { class: "spoken" },
    "Models by precision: latency, accuracy, gain against the reference, size, memory, energy and AURORA score");
  const table = el("table", { class: "board" }, caption, el("thead", {}, head), body);
  const pager = el("nav", { class: "pager", "aria-label": "Pages of the table" });
  const focusable = new Map(); // what has focus is found again after a redraw

  function redraw(entries, state) {
    const active = [...focusable].find(([, node]) => node === document.activeElement)?.[0];
    focusable.clear();
    const columns = columnsFor(state.board.entries, state.metrics);
    const rows = sorted(entries, state.sort, columns);
    const pages = Math.max(1, Math.ceil(rows.length / state.pageSize));
    state.page = Math.min(state.page, pages - 1);
    const shown = rows.slice(state.page * state.pageSize, (state.page + 1) * state.pageSize);
    head.replaceChildren(header(shown, state), ...columns.map((column) => heading(column, state)));
    body.replaceChildren(...shown.flatMap((entry) => bodyRows(entry, columns, state)));
    pager.replaceChildren(...pageControls(rows.length, pages, state));
    if (active !== undefined) focusable.get(active)?.focus({ preventScroll: true });
  }

  function remember(id, node) {
    focusable.set(id, node);
    return node;
  }

  function header(shown, state) {
    const all = shown.length > 0 && shown.every((entry) => state.selected.has(keyOf(entry)));
    const box = el("input", {
      type: "checkbox", "aria-label": "Select all on this page",
      onchange: () => on.select(shown.map(keyOf), !all),
    });
    box.checked = all;
    return el("th", { class: "tools", scope: "col" }, remember("all", box));
  }

  function heading(column, state) {
    const active = state.sort.column === column.id;
    const direction = active ? (state.sort.descending ? "descending" : "ascending") : "none";
    const arrow = { ascending: "▲", descending: "▼", none: "" }[direction];
    const button = el("button", { type: "button", "data-tip": column.tip, onclick: () => on.sort(column.id) },
      column.title,
      el("span", { class: "arrow", "aria-hidden": "true" }, arrow));
    return el("th", {
      scope: "col", class: column.numeric ? "numeric" : null, "aria-sort": direction, "data-column": column.id,
    }, remember(`sort:${column.id}`, button));
  }

  function bodyRows(entry, columns, state) {
    const key = keyOf(entry);
    const open = state.expanded.has(key);
    const box = el("input", {
      type: "checkbox", "aria-label": `Select ${entry.model} ${entry.precision}`,
      onchange: () => on.select([key], box.checked),
    });
    box.checked = state.selected.has(key);
    const opener = el("button", {
      type: "button", class: "opener", "aria-expanded": String(open),
      "aria-label": `Details of ${entry.model} ${entry.precision}`, onclick: () => on.expand(key),
    }, open ? "▾" : "▸");
    const cells = columns.map((column) =>
      el("td", { class: column.numeric ? "numeric" : null, "data-column": column.id }, column.cell(entry)));
    const row = el("tr", { class: box.checked ? "selected" : null },
      el("td", { class: "tools" }, remember(`box:${key}`, box), remember(`open:${key}`, opener)), ...cells);
    if (!open) return [row];
    const wide = el("td", { colspan: columns.length + 1 }, details(entry, state.metrics));
    return [row, el("tr", { class: "details" }, wide)];
  }

  function pageControls(count, pages, state) {
    const first = count ? state.page * state.pageSize + 1 : 0;
    const last = Math.min(count, (state.page + 1) * state.pageSize);
    const text = el("span", {}, `${first} to ${last} of ${count}`);
    if (pages === 1) return [text];
    const step = (id, label, sign, to, off) => remember(id, el("button", {
      type: "button", "aria-label": label, disabled: off, onclick: () => on.page(to),
    }, sign));
    return [
      step("first", "First page", "«", 0, state.page === 0),
      step("previous", "Previous page", "‹", state.page - 1, state.page === 0),
      text,
      step("next", "Next page", "›", state.page + 1, state.page === pages - 1),
      step("last", "Last page", "»", pages - 1, state.page === pages - 1),
    ];
  }

  return { node: el("div", { class: "scroll" }, table), pager, redraw };
}

/** Everything that is known of one entry. */
export function details(entry, metrics) {
  const figures = Object.keys(metrics).filter((id) => entry.figures[id]).map((id) => {
    const figure = entry.figures[id];
    const how = entry.derived?.[id] ? `, derived: ${entry.derived[id]}` : "";
    return [metrics[id].title, figureText(figure, metrics[id].unit) + how];
  });
  const missing = Object.entries(entry.missing).map(([id, why]) =>
    [metrics[id]?.title ?? (id === "aurora" ? "AURORA" : id), why]);
  const ratios = Object.entries(entry.ratios).map(([id, value]) => [words(id), number(value)]);
  const against = entry.reference
    ? `Against ${entry.reference}${entry.reference_run !== entry.run ? ` of ${entry.reference_run}` : ""}`
    : "Ratios";
  const aurora = entry.aurora
    ? [["score", number(entry.aurora.score)], ...auroraText(entry.aurora).split("\n").map((t) => ["", t])]
    : [];
  return el("div", { class: "facts" },
    list("Figures", figures), list(against, ratios), list("AURORA", aurora),
    judgements(entry, metrics), launchList(entry), linksTo(entry),
    list("Missing, and why", missing), list("How it was measured", Object.entries(entry.info)
      .map(([key, value]) => [words(key), value])));
}

/** What harness compare says of each metric. */
function judgements(entry, metrics) {
  const pairs = Object.entries(entry.judged).map(([id, found]) => {
    const bounds = found.ratio !== null && found.low !== null && found.design !== "exact"
      ? `ratio ${number(found.ratio)} (${number(found.low)} to ${number(found.high)})` : "";
    return [metrics[id]?.title ?? words(id), [found.verdict, bounds, found.reason, found.doubt].filter(Boolean).join("; ")];
  });
  if (entry.advice) pairs.push(["to decide", entry.advice]);
  return list("Is the difference certain?", pairs);
}

/** The launches that an entry pools, each with its own figures. */
function launchList(entry) {
  const runs = entry.runs ?? [];
  if (!runs.length) return null;
  const rows = runs.map((run) => el("tr", {},
    el("td", {}, el("bdi", {}, run.run)), el("td", {}, localTime(run.started_at)), el("td", {}, run.status),
    el("td", { class: "numeric" }, run.figures.latency_ms === undefined ? "n/a" : quantity(run.figures.latency_ms, "ms")),
    el("td", {}, el("bdi", {}, run.error))));
  const head = ["run", "measured", "status", "latency", ""].map((text) => el("th", { scope: "col" }, text));
  return el("section", { class: "wide" }, el("h4", {}, `Runs (${runs.length}, ${entry.launches} launches in all)`),
    el("table", { class: "runs-table" }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows)));
}

function list(title, pairs) {
  if (!pairs.length) return null;
  return el("section", {}, el("h4", {}, el("bdi", {}, title)), el("dl", {}, ...pairs.flatMap(([key, value]) =>
    [el("dt", {}, el("bdi", {}, key)), el("dd", {}, el("bdi", {}, value))])));
}

/** The table as rows of a CSV file, in the units of the metrics. */
export function tableRows(entries, metrics) {
  const ids = Object.keys(metrics).filter((id) => entries.some((entry) => entry.figures[id]));
  const ratios = [...new Set(entries.flatMap((entry) => Object.keys(entry.ratios)))];
  const judged = [...new Set(entries.flatMap((entry) => Object.keys(entry.judged)))];
  const head = ["model", "precision", "setting", "run", "launches", "status", "random_weights",
    ...ids.flatMap((id) => [id, `${id}_low`, `${id}_high`]), ...ratios, ...judged.map((id) => `${id}_verdict`), "aurora", "aurora_missing"];
  const rows = entries.map((entry) => [
    entry.model, entry.precision, entry.setting ?? "", entry.run, entry.launches ?? 0, entry.status,
    entry.random_weights ? "yes" : "no",
    ...ids.flatMap((id) => {
      const figure = entry.figures[id];
      return figure ? [figure.value, figure.low, figure.high] : [null, null, null];
    }),
    ...ratios.map((ratio) => entry.ratios[ratio] ?? null),
    ...judged.map((id) => entry.judged[id]?.verdict ?? null),
    entry.aurora?.score ?? null, entry.aurora?.missing.join(" ") ?? null,
  ]);
  return [head, ...rows];
}

