// One card per model: each precision beside its reference, and what changed, in words and signs.

import { el, name } from "./dom.js";
import {
  SIGNS, auroraText, change, conditionsOf, figureText, number, overlap,
} from "./format.js";

// what a card compares: the metric, and the ratio that says how it changed
const ROWS = [
  ["accuracy", "accuracy_drop"],
  ["latency_ms", "speedup"],
  ["model_size_mb", "size_ratio"],
  ["memory_mb", "memory_reduction_mb"],
  ["energy_j", "energy_ratio"],
];

/** The cards for the models among `entries`, at most `most`; all of the board gives references. */
export function cards(entries, board, metrics, most) {
  const compared = entries.filter((e) => e.reference || Object.keys(e.ratios).length);
  const references = new Map(board.entries.map((e) => [id(e.run, e.model, e.precision), e]));
  return {
    total: compared.length,
    nodes: compared.slice(0, most).map((entry) => {
      const key = id(entry.reference_run, entry.model, entry.reference);
      return card(entry, references.get(key), metrics, board.entries);
    }),
  };
}

function id(run, model, precision) {
  return JSON.stringify([run, model, precision]);
}

function card(entry, reference, metrics, all) {
  const rows = ROWS.map(([metric, ratio]) => row(metric, ratio, entry, reference, metrics));
  const before = reference?.precision ?? entry.reference ?? "before";
  const head = el("tr", {}, el("th", { scope: "col" }, ""),
    el("th", { scope: "col" }, el("bdi", {}, before)),
    el("th", { scope: "col" }, el("bdi", {}, entry.precision)), el("th", { scope: "col" }, "change"));
  return el("article", { class: "card" },
    el("h3", {}, name(entry.model), " ", el("small", {}, where(entry, all))),
    el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows.filter(Boolean))),
    aurora(entry), caveats(entry, reference));
}

function where(entry, all) {
  const { backend, device, library } = entry.info;
  const place = backend ? `${backend}${device ? ` on ${device}` : ""}` : (library ?? "");
  const others = conditionsOf(entry, all).split(", ").filter((one) => one !== backend && one !== device);
  return [place, ...others].filter(Boolean).join(", ");
}

function row(metric, ratio, entry, reference, metrics) {
  const [before, after] = [reference?.figures[metric], entry.figures[metric]];
  if (!before && !after && entry.ratios[ratio] === undefined && !entry.missing[metric]) return null;
  const text = (of, figure) => (figure
    ? el("td", {}, short(figure, metrics[metric].unit))
    : el("td", { class: "missing", tabindex: 0, "data-tip": of?.missing[metric] ?? "not measured" }, "n/a"));
  return el("tr", {}, el("th", { scope: "row" }, metrics[metric].title.replace(" per inference", "")),
    text(reference, before), text(entry, after),
    el("td", {}, verdict(ratio, entry.ratios[ratio], before, after)));
}

function short(figure, unit) {
  const [value] = figureText(figure, unit).split(" (");
  return el("span", { "data-tip": figureText(figure, unit) }, value);
}

function verdict(ratio, value, before, after) {
  if (value === undefined) return el("span", { class: "dim" }, "–");
  const found = change(ratio, value);
  const tip = doubt(ratio, before, after);
  const said = tip && found.verdict !== "same" ? "uncertain" : found.verdict;
  return el("span", {
    class: `change ${said}`, tabindex: said === "uncertain" ? 0 : null, "data-tip": said === "uncertain" ? tip : null,
  }, el("span", { "aria-hidden": "true" }, `${SIGNS[said]} `), found.text,
  el("span", { class: "spoken" }, ` (${said})`));
}

/** Why a change may be none; nothing where no reason is known. */
function doubt(ratio, before, after) {
  if (!before || !after) return null;
  if (overlap(before, after)) return "the 95 % intervals overlap: harness compare says whether there is a change";
  const near = Math.abs(after.value - before.value) < 0.01 * before.value;
  return ratio === "memory_reduction_mb" && near ? "less than 1 %: within what a process varies by" : null;
}

function aurora(entry) {
  if (!entry.aurora) {
    const why = entry.missing.aurora;
    return why ? el("p", { class: "dim" }, `No AURORA score: ${why}`) : null;
  }
  return el("p", { class: "aurora" }, el("strong", {}, `AURORA ${number(entry.aurora.score)}`),
    el("small", {}, auroraText(entry.aurora).split("\n").join(" · ")));
}

function caveats(entry, reference) {
  const texts = [];
  for (const e of [reference, entry]) {
    if (!e) continue;
    if (e.random_weights) texts.push(`${e.precision}: random weights, so accuracy means nothing`);
    if (e.status !== "complete" && e.status !== "imported") {
      texts.push(`${e.precision}: ${e.status}${e.info.warnings ? `, ${e.info.warnings}` : ""}`);
    }
  }
  return texts.length ? el("ul", { class: "caveats" }, ...texts.map((t) => el("li", { tabindex: 0, "data-tip": t }, el("bdi", {}, t)))) : null;
}
