// One card per model: each precision beside its reference, and what changed, in words and signs.

import { el, name } from "./dom.js";
import { auroraText, conditionsOf, figureText, number } from "./format.js";
import { verdict } from "./verdict.js";

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
    el("h3", {}, name(entry.model), " ", el("small", {}, where(entry))),
    el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows.filter(Boolean))),
    openQuestion(entry), aurora(entry), caveats(entry, reference));
}

function where(entry) {
  const { backend, device, library } = entry.info;
  const place = backend ? `${backend}${device ? ` on ${device}` : ""}` : (library ?? "");
  const others = conditionsOf(entry).split(", ").filter((one) => one !== backend && one !== device);
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
    el("td", {}, verdict(ratio, entry.ratios[ratio], entry.judged[metric])));
}

function short(figure, unit) {
  const [value] = figureText(figure, unit).split(" (");
  return el("span", { "data-tip": figureText(figure, unit) }, value);
}

/** What would decide, where the latencies are not told apart. */
function openQuestion(entry) {
  const latency = entry.judged.latency_ms;
  if (!latency || latency.verdict !== "inconclusive") return null;
  return el("p", { class: "dim open" }, `Latency is inconclusive: ${[latency.reason, entry.advice].filter(Boolean).join("; ")}`);
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
