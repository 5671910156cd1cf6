// A chart with what belongs to it: what it says in words, the same as a table, downloads.

import { el, toggle } from "./dom.js";
import { fileName, save } from "./download.js";
import { number } from "./format.js";

const MOST_ROWS = 200;
const TYPES = { PNG: "image/png", SVG: "image/svg+xml", CSV: "text/csv" };

/**
 * `fixed`: options of the chart; of them `says(data)` is its caption, `lacks` (a text, or of the data)
 * the reason why nothing is drawn, `tall` a chart of several panels. `extra`: a further control.
 */
export function chartFigure(label, { says, lacks, tall = false, ...fixed } = {}, extra = null) {
  const caption = el("p", { class: "says dim", id: `says-${fileName(label, "x").slice(0, -2)}` });
  const node = el("div", {
    class: tall ? "chart tall" : "chart", role: "img", "aria-label": `Chart: ${label}`,
    "aria-describedby": says ? caption.id : null,
  });
  const why = el("p", { class: "dim nothing" });
  let chart = null;
  const offer = (kind, take) => el("button", {
    type: "button", class: "small", "aria-label": `Download ${label} as ${kind}`,
    onclick: async () => {
      const content = await take(chart);
      if (content !== null) save(fileName(label, kind.toLowerCase()), content, TYPES[kind]);
    },
  }, kind);
  const table = el("div", { class: "data", hidden: true, tabindex: 0, role: "region", "aria-label": `${label} as a table` });
  const asTable = toggle("Table", false, () => {
    table.hidden = !table.hidden;
    asTable.setAttribute("aria-pressed", String(!table.hidden));
    if (!table.hidden) table.replaceChildren(dataTable(label, chart.rows()));
  }, { class: "small", "aria-label": `Show ${label} as a table` });
  const buttons = el("div", { class: "offers" }, extra, asTable,
    offer("PNG", async (c) => asBlob(c.png())), offer("SVG", (c) => c.svg()), offer("CSV", (c) => c.csv()));
  const below = el("figcaption", {}, caption, buttons);
  const figure = el("figure", {}, node, why, below, table);
  return {
    node: figure,
    resize: () => chart?.resize(),
    /** Whether anything was drawn. */
    draw: (make, data, options) => {
      const all = { ...fixed, ...options };
      chart ??= make(node, data, all);
      const drawn = chart.update(data, all);
      below.hidden = !drawn;
      if (!drawn) table.hidden = true;
      if (!table.hidden) table.replaceChildren(dataTable(label, chart.rows()));
      caption.textContent = drawn && says ? says(data) : "";
      caption.hidden = !caption.textContent;
      why.hidden = drawn;
      figure.classList.toggle("bare", !drawn);
      why.textContent = drawn ? "" : typeof lacks === "function" ? lacks(data) : lacks ?? "";
      return drawn;
    },
  };
}

/** What a chart shows, for who cannot see it. */
function dataTable(label, [head, ...rows]) {
  const cell = (value) => (typeof value === "number" ? number(value) : String(value ?? ""));
  const shown = rows.slice(0, MOST_ROWS);
  const left = rows.length - shown.length;
  return el("table", {}, el("caption", {}, left ? `${label}, ${left} more rows in the CSV` : label),
    el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col" }, text.replaceAll("_", " "))))),
    el("tbody", {}, ...shown.map((row) => el("tr", {}, ...row.map((value) => el("td", {}, el("bdi", {}, cell(value))))))));
}

/** A data: URL as a Blob: without fetch, which TensorBoard's policy would refuse. */
function asBlob(address) {
  if (address === null) return null;
  const bytes = Uint8Array.from(atob(address.split(",")[1]), (c) => c.charCodeAt(0));
  return new Blob([bytes], { type: TYPES.PNG });
}
