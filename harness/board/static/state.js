// What the reader has chosen, and which entries that leaves. It survives every reload of the data.

import { keyOf } from "./format.js";

export function newState(theme) {
  return {
    board: { entries: [], notes: [] },
    metrics: {},
    loaded: false,
    text: "",
    precisions: new Set(), // those switched off
    backend: "",
    dataset: "",
    hiddenRuns: new Set(),
    sort: { column: "model", descending: false },
    page: 0,
    pageSize: 15,
    cards: 12,
    expanded: new Set(),
    selected: new Set(),
    whole: false, // the latency charts: every outlier, or the bulk alone
    theme,
    auto: true,
  };
}

/** The entries that pass every filter, in the board's own order. */
export function filtered(state) {
  const wanted = state.text.trim().toLowerCase().split(/\s+/).filter(Boolean);
  return state.board.entries.filter((entry) => {
    if (state.hiddenRuns.has(entry.run) || state.precisions.has(entry.precision)) return false;
    if (state.backend && entry.info.backend !== state.backend) return false;
    if (state.dataset && datasetOf(entry) !== state.dataset) return false;
    const text = `${entry.model} ${entry.precision} ${entry.setting ?? ""} ${entry.run} ${entry.status}`.toLowerCase();
    return wanted.every((word) => text.includes(word));
  });
}

/** The rows in the order asked for. Entries without a value come last either way. */
export function sorted(entries, { column, descending }, columns) {
  const value = columns.find((c) => c.id === column)?.value ?? ((entry) => entry.model);
  const sign = descending ? -1 : 1;
  const keyed = entries.map((entry, index) => ({ entry, index, key: value(entry) }));
  keyed.sort((a, b) => {
    if (a.key === null || b.key === null) {
      return (a.key === null) - (b.key === null) || a.index - b.index;
    }
    return sign * compare(a.key, b.key) || a.index - b.index;
  });
  return keyed.map(({ entry }) => entry);
}

const collator = new Intl.Collator(undefined, { numeric: true });

function compare(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : collator.compare(a, b);
}

/** Whose latencies are laid over each other: the selected, or else the first pair that has any. */
export function overlaid(state, entries) {
  const chosen = state.board.entries.filter((entry) => state.selected.has(keyOf(entry)));
  return (chosen.length ? chosen : firstPair(entries, state.board.entries)).slice(0, 24);
}

/** Those of the selected that have the field `of`; or else the first pair, or model, that has it. */
export function chosenWith(state, entries, of) {
  const chosen = state.board.entries.filter((entry) => entry[of] && state.selected.has(keyOf(entry)));
  return chosen.length ? chosen : firstPair(entries, state.board.entries, of);
}

/** An entry with its reference; without any pair, what there is of the first model. */
function firstPair(entries, all, of = "latencies") {
  const known = entries.filter((entry) => entry[of]);
  for (const entry of known) {
    const reference = entry.reference_run && referenceOf(entry, all);
    if (reference?.[of]) return [reference, entry];
  }
  return known.filter((entry) => entry.model === known[0].model).slice(0, 6);
}

export function referenceOf(entry, all) {
  return all.find((e) => e.run === entry.reference_run && e.model === entry.model && e.precision === entry.reference);
}

/** On what the accuracy of an entry was measured: only such entries stand on one frontier. */
export function datasetOf(entry) {
  return entry.info.accuracy_on || entry.info.dataset || (entry.info.source ? `as in ${entry.info.source}` : "not said");
}

/** Entries with an accuracy, by the dataset that it was measured on: the largest group first. */
export function byDataset(entries) {
  const found = new Map();
  for (const entry of entries.filter((e) => e.figures.accuracy)) {
    const dataset = datasetOf(entry);
    found.set(dataset, [...(found.get(dataset) ?? []), entry]);
  }
  return [...found].sort((a, b) => b[1].length - a[1].length).slice(0, FACETS);
}

export const FACETS = 4; // datasets with a chart each

// -- the view as an address ------------------------------------------------------------------------

/** What the reader chose, as parameters; nothing of what is as it was at first. */
export function toParameters(state) {
  const found = new URLSearchParams();
  if (state.text.trim()) found.set("text", state.text.trim());
  for (const name of ["backend", "dataset"]) if (state[name]) found.set(name, state[name]);
  if (state.precisions.size) found.set("without", JSON.stringify([...state.precisions].sort()));
  const { column, descending } = state.sort;
  if (column !== "model" || descending) found.set("sort", `${descending ? "-" : ""}${column}`);
  if (state.page) found.set("page", String(state.page + 1));
  if (state.selected.size) found.set("selected", JSON.stringify([...state.selected].map((key) => JSON.parse(key))));
  if (state.whole) found.set("tail", "whole");
  return found;
}

/** The other way. Whatever makes no sense is as at first. */
export function fromParameters(state, found) {
  state.text = found.get("text") ?? "";
  state.backend = found.get("backend") ?? "";
  state.dataset = found.get("dataset") ?? "";
  state.precisions = new Set(list(found.get("without")).map(String));
  const sort = found.get("sort") ?? "model";
  state.sort = { column: sort.replace(/^-/, ""), descending: sort.startsWith("-") };
  state.page = Math.max(0, (parseInt(found.get("page") ?? "1", 10) || 1) - 1);
  state.selected = new Set(list(found.get("selected")).map((key) => JSON.stringify(key)));
  state.whole = found.get("tail") === "whole";
}

function list(text) {
  try {
    const found = JSON.parse(text ?? "[]");
    return Array.isArray(found) ? found : [];
  } catch {
    return [];
  }
}

export function valuesOf(entries, pick) {
  return [...new Set(entries.map(pick).filter(Boolean))].sort(collator.compare);
}
