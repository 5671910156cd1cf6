// Filters, runs, theme and reload.

import { el, name, toggle } from "./dom.js";
import { keyOf } from "./format.js";
import { datasetOf, valuesOf } from "./state.js";

const MOST_RUNS = 200; // in the list of runs; a filter narrows it down

export function makeToolbar(state, set, reload, setTheme) {
  const search = el("input", {
    type: "search", placeholder: "Filter models, runs, status", "aria-label": "Filter by text",
    oninput: () => set({ text: search.value, page: 0 }),
  });
  const precisions = el("span", { class: "chips", role: "group", "aria-label": "Precisions" });
  const backend = el("select", {
    "aria-label": "Backend", onchange: () => set({ backend: backend.value, page: 0 }),
  });
  const dataset = el("select", {
    "aria-label": "Dataset of the accuracy", onchange: () => set({ dataset: dataset.value, page: 0 }),
  });
  search.value = state.text;
  const runs = makeRuns(state, set);
  const auto = el("input", { type: "checkbox", id: "auto", onchange: () => set({ auto: auto.checked }) });
  auto.checked = state.auto;
  const theme = el("button", {
    type: "button", "aria-label": "Switch between light and dark",
    onclick: () => setTheme(state.theme === "dark" ? "light" : "dark"),
  }, "◐");
  const clear = el("button", { type: "button", onclick: () => {
    state.selected.clear();
    set({});
  } });
  const count = el("span", { class: "count", "aria-live": "polite" });
  const news = el("span", { class: "dim news" });
  const node = el("div", { class: "toolbar" }, search, precisions, backend, dataset, runs.node, clear, count,
    el("span", { class: "right" }, news, el("label", { for: "auto" }, auto, " follow"),
      el("button", { type: "button", "aria-label": "Reload now", onclick: reload }, "⟳"), theme));

  function redraw(current, entries) {
    const all = current.board.entries;
    redrawChips(precisions, valuesOf(all, (entry) => entry.precision), current, set);
    redrawSelect(backend, valuesOf(all, (entry) => entry.info.backend), current.backend, "All backends");
    const measured = all.filter((entry) => entry.figures.accuracy);
    redrawSelect(dataset, valuesOf(measured, datasetOf), current.dataset, "All datasets");
    runs.redraw(current);
    const here = new Set(all.map(keyOf));
    const selected = [...current.selected].filter((key) => here.has(key)).length;
    clear.hidden = selected === 0;
    clear.textContent = `Clear selection (${selected})`;
    const models = new Set(entries.map((entry) => entry.model)).size;
    count.textContent = `${entries.length} of ${all.length} entries, ${models} model${models === 1 ? "" : "s"}`;
    const live = all.filter((entry) => entry.status === "running").length;
    node.classList.toggle("live", live > 0);
  }

  return {
    node,
    redraw,
    say: (text, bad = false) => {
      news.textContent = text;
      news.classList.toggle("bad", bad);
    },
  };
}

function redrawChips(group, found, state, set) {
  const focused = [...group.children].indexOf(document.activeElement);
  group.replaceChildren(...found.map((precision) =>
    toggle(precision, !state.precisions.has(precision), () => {
      if (!state.precisions.delete(precision)) state.precisions.add(precision);
      set({ page: 0 });
    }, { class: "chip", dir: "auto" })));
  if (focused >= 0) group.children[focused]?.focus();
}

function redrawSelect(select, found, chosen, every) {
  const options = [["", every], ...found.map((text) => [text, text])];
  const same = options.length === select.options.length
    && options.every(([value], index) => select.options[index].value === value);
  if (!same) select.replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
  select.value = chosen;
  select.hidden = found.length < 2;
}

/** Which runs are shown: a list that opens on demand, built only then. */
function makeRuns(state, set) {
  const summary = el("summary", {});
  const search = el("input", {
    type: "search", placeholder: "Filter runs", "aria-label": "Filter the list of runs", oninput: () => fill(),
  });
  const list = el("div", { class: "runs" });
  const show = (on) => {
    for (const run of matching()) {
      if (on) state.hiddenRuns.delete(run);
      else state.hiddenRuns.add(run);
    }
    set({ page: 0 });
  };
  const all = el("button", { type: "button", class: "small", onclick: () => show(true) }, "All");
  const none = el("button", { type: "button", class: "small", onclick: () => show(false) }, "None");
  const node = el("details", { class: "dropdown", ontoggle: () => fill() }, summary,
    el("div", { class: "drop" }, el("div", { class: "row" }, search, all, none), list));
  node.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !node.open) return;
    node.open = false;
    summary.focus();
  });
  document.addEventListener("click", (event) => {
    if (!node.contains(event.target)) node.open = false;
  });

  function matching() {
    const text = search.value.trim().toLowerCase();
    return valuesOf(state.board.entries, (e) => e.run).filter((run) => run.toLowerCase().includes(text));
  }

  function fill() {
    if (!node.open) return;
    const found = matching();
    const focused = list.contains(document.activeElement) ? document.activeElement.dataset.at : null;
    const rows = found.slice(0, MOST_RUNS).map((run, index) => {
      const box = el("input", { type: "checkbox", "data-at": index, onchange: () => {
        if (box.checked) state.hiddenRuns.delete(run);
        else state.hiddenRuns.add(run);
        set({ page: 0 });
      } });
      box.checked = !state.hiddenRuns.has(run);
      return el("label", {}, box, " ", name(run, { "data-tip": null }));
    });
    const left = found.length - rows.length;
    list.replaceChildren(...rows, ...(left > 0 ? [el("p", { class: "dim" }, `and ${left} more: filter`)] : []));
    if (focused !== null) list.querySelector(`[data-at="${focused}"]`)?.focus();
  }

  function redraw(current) {
    const known = valuesOf(current.board.entries, (entry) => entry.run);
    const shown = known.filter((run) => !current.hiddenRuns.has(run)).length;
    summary.textContent = shown === known.length ? `Runs (${known.length})` : `Runs (${shown} of ${known.length})`;
    fill();
  }

  return { node, redraw };
}
