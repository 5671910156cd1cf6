// The charts of a report, drawn from the JSON in the page. Without this script the tables remain.

import { latencies, pareto } from "./charts.js";
import { fileName, save } from "./download.js";
import { el } from "./dom.js";

const MOST = 6; // models with a distribution each, and distributions in one chart

const { board, metrics } = JSON.parse(document.getElementById("board").textContent);
const section = document.getElementById("charts");
const dark = matchMedia("(prefers-color-scheme: dark)");
const costs = [["latency_ms", "latency"], ["model_size_mb", "model size"], ["energy_j", "energy"]];
const models = Map.groupBy?.(board.entries, (entry) => entry.model) ?? new Map();
const drawn = [
  ...costs.map(([metric, cost]) => figure(`accuracy against ${cost}`, (node, options) =>
    pareto(node, board, { ...options, metric }))),
  // runs of one model lie close enough together to be laid over each other
  ...[...models].slice(0, MOST).map(([model, entries]) =>
    figure(`latency of ${model}`, (node, options) =>
      latencies(node, entries.slice(-MOST), { ...options, all: entries }))),
].filter(Boolean);

section.hidden = drawn.length === 0;
redraw();
dark.addEventListener("change", redraw);
new ResizeObserver(fit).observe(section);
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((details) => { details.open = true; });
  drawn.forEach((chart) => chart.update(undefined, { theme: "light" }));
  fit();
});
addEventListener("afterprint", redraw);

function redraw() {
  const theme = dark.matches ? "dark" : "light";
  for (const chart of drawn) {
    chart.update(undefined, { theme });
  }
  fit();
}

/** To the width of the page; and on paper, whose width no script learns, by scaling. */
function fit() {
  drawn.forEach((chart) => chart.resize());
  for (const picture of section.querySelectorAll("svg[width]")) {
    const [width, height] = ["width", "height"].map((side) => picture.getAttribute(side));
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
  }
}

/** A chart with its downloads; null where there is nothing to draw. */
function figure(label, make) {
  const node = el("div", { class: "chart", "aria-label": `Chart: ${label}` });
  const outer = el("figure", {}, node);
  section.querySelector(".charts").append(outer);
  section.hidden = false; // a node without a size cannot be drawn into
  const chart = make(node, { metrics, theme: "light" });
  if (!chart.update()) {
    chart.dispose();
    outer.remove();
    return null;
  }
  const offer = (name, suffix, take) => el("button", {
    type: "button", "aria-label": `Download ${label} as ${name}`,
    onclick: () => save(fileName(label, suffix), ...take()),
  }, name);
  outer.append(el("figcaption", {},
    offer("PNG", "png", () => [picture(chart.png()), "image/png"]),
    offer("SVG", "svg", () => [chart.svg(), "image/svg+xml"]),
    offer("CSV", "csv", () => [chart.csv(), "text/csv"])));
  return chart;
}

function picture(address) {
  const bytes = Uint8Array.from(atob(address.split(",")[1]), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: "image/png" });
}
