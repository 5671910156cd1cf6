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
    hiddenRuns: new Set(),
    sort: { column: "model", descending: false },
    page: 0,
    pageSize: 50,
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
    const text = `${entry.model} ${entry.precision} ${entry.run} ${entry.status}`.toLowerCase();
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

/** Whose latencies are laid over each other: the selected, or else the first few that have any. */
export function overlaid(state, entries) {
  const chosen = state.board.entries.filter((entry) => state.selected.has(keyOf(entry)));
  const from = chosen.length ? chosen : entries.filter((entry) => entry.latencies).slice(0, 6);
  return from.slice(0, 24);
}

export function valuesOf(entries, pick) {
  return [...new Set(entries.map(pick).filter(Boolean))].sort(collator.compare);
}
