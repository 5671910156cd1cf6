// The charts of a report, drawn from the JSON in the page, and tables that sort. Without this script
// the tables remain.

import { MORE, latencies, pareto } from "./charts.js";
import { el } from "./dom.js";
import { chartFigure } from "./figure.js";
import { byDataset } from "./state.js";

const MOST = 6; // models with a chart each, and distributions in one chart

const { board, metrics } = JSON.parse(document.getElementById("board").textContent);
const section = document.getElementById("charts");
const dark = matchMedia("(prefers-color-scheme: dark)");
const costs = [["latency_ms", "latency"], ["model_size_mb", "model size"], ["energy_j", "energy"]];
const drawn = [...accuracies(), ...others(), ...distributions(), ...curves()].filter(Boolean);

section.hidden = drawn.length === 0;
document.querySelectorAll("table.sortable").forEach(sortable);
redraw();
dark.addEventListener("change", redraw);
new ResizeObserver(fit).observe(section);
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((details) => { details.open = true; });
  drawn.forEach((chart) => chart.draw("light"));
  fit();
});
addEventListener("afterprint", redraw);

/** Accuracy against each cost; accuracies of other datasets have a chart of their own. */
function accuracies() {
  const sets = byDataset(board.entries);
  const first = sets.length ? { entries: sets[0][1] } : board;
  const told = sets.length > 1 ? { facet: sets[0][0] } : {};
  return [
    ...costs.map(([metric, cost]) => figure(`accuracy against ${cost}`, pareto, first, { metric, ...told })),
    ...sets.slice(1).map(([facet, entries], at) =>
      figure(`accuracy against latency, dataset ${at + 2}`, pareto, { entries }, { metric: "latency_ms", facet })),
  ];
}

function others() {
  return MORE.filter(({ of }) => !of).map((one) => figure(one.label, one.make, board.entries, one));
}

/** Runs of one model lie close enough together to be laid over each other. */
function distributions() {
  return byModel("latencies").map(([model, entries]) =>
    figure(`latency of ${model}`, latencies, entries.slice(-MOST), { all: entries }));
}

function curves() {
  return MORE.filter(({ of }) => of).flatMap((one) =>
    byModel(one.of).map(([model, entries]) => figure(`${one.label} of ${model}`, one.make, entries, one)));
}

function byModel(field) {
  const found = new Map();
  for (const entry of board.entries.filter((one) => one[field])) {
    found.set(entry.model, [...(found.get(entry.model) ?? []), entry]);
  }
  return [...found].slice(0, MOST);
}

function redraw() {
  drawn.forEach((chart) => chart.draw(dark.matches ? "dark" : "light"));
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
function figure(label, make, data, { says, tall, ...options }) {
  const found = chartFigure(label, { says, tall, metrics, ...options });
  section.querySelector(".charts").append(found.node);
  section.hidden = false; // a node without a size cannot be drawn into
  if (!found.draw(make, data, { theme: "light" })) {
    found.node.remove();
    return null;
  }
  return { resize: found.resize, draw: (theme) => found.draw(make, data, { theme }) };
}

// -- tables ---------------------------------------------------------------------------------------

/** Headings become buttons. By `data-value` where cells have it; what has no value comes last. */
function sortable(table) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const of = table.closest(".panel")?.getAttribute("aria-label") ?? "";
  heads.forEach((head, at) => {
    const arrow = el("span", { class: "arrow", "aria-hidden": "true" });
    const button = el("button", { type: "button", "aria-label": `Sort ${of} by ${head.textContent}` }, head.textContent, arrow);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) {
        other.setAttribute("aria-sort", "none");
        other.querySelector(".arrow").textContent = "";
      }
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      arrow.textContent = falling ? " ▼" : " ▲";
      body.append(...ordered([...body.rows], at, falling ? -1 : 1));
    });
    head.setAttribute("aria-sort", "none");
    head.replaceChildren(button);
  });
}

function ordered(rows, at, sign) {
  const collator = new Intl.Collator(undefined, { numeric: true });
  const keyed = rows.map((row) => {
    const { dataset, textContent } = row.cells[at];
    return { row, number: dataset.value === undefined ? null : Number(dataset.value), text: textContent.trim() };
  });
  const numeric = keyed.some(({ number }) => number !== null);
  const key = (one) => (numeric ? one.number : one.text || null);
  keyed.sort((a, b) => {
    if (key(a) === null || key(b) === null) return (key(a) === null) - (key(b) === null);
    return sign * (numeric ? a.number - b.number : collator.compare(a.text, b.text));
  });
  return keyed.map(({ row }) => row);
}
