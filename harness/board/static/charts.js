// The charts of the board: functions of a board and a DOM node. They fetch nothing, and take
// Apache ECharts from the page (globalThis.echarts), so that a report can draw with them too.
//
//   pareto(node, board, {metric, theme})    accuracy against latency_ms, model_size_mb or energy_j
//   latencies(node, entries, {theme, whole})   distributions laid over each other, tail and all
//   aurora(node, entries, {theme})             each score's components, as factors
//   ratios(node, entries, {theme})             latency against the reference, with intervals
//   capacity, roofline                         in curves.js
//
// Each returns {update(data, options), dispose(), png(), svg(), csv(), rows(), resize()}. `MORE` lists
// those that the page shows below its table: another chart is another function and another line there.

import { capacity, capacityStory, roofline, rooflineStory } from "./curves.js";
import {
  CANVAS_FROM, FONT, THEMES, axis, chart, common, isWide, legend, rowLabel, rowsAxis, rowsHeight, tipBox,
  title, tooltip,
} from "./drawing.js";
import { conditionsOf, figureText, hasInterval, labelOf, number, scaleFor } from "./format.js";

const SYMBOLS = ["circle", "diamond", "triangle", "rect", "pin", "roundRect", "arrow"];
const MANY = 40; // points, beyond which only those on the frontier are named
const BULK = 0.95; // of the inferences: a tail of a few would squeeze them into a line
const MOST_ARROWS = 60; // beyond which they would hide the points: then a few stand for all
const FEW_ARROWS = 12;
const MOST_BARS = 12; // entries in a chart of bars

/** Precisions in order of first sight, the reference's first: the order of colours and symbols. */
export function precisionsOf(entries) {
  const found = [...new Set(entries.map((entry) => entry.precision))].sort();
  return [...found.filter((p) => p === "fp32"), ...found.filter((p) => p !== "fp32")];
}

// -- accuracy against a cost ----------------------------------------------------------------------

/** The entries that no other beats in both: accuracy at least as high at no higher cost. */
export function frontier(points) {
  const sorted = [...points].sort((a, b) => a.x - b.x || b.y - a.y);
  const best = [];
  for (const point of sorted) {
    if (!best.length || point.y > best[best.length - 1].y) best.push(point);
  }
  return best;
}

export function pareto(node, board, options) {
  return chart(node, (data, opts) => paretoOption(data, opts), paretoTable, board, options);
}

function paretoPoints(board, metric) {
  const points = [];
  for (const entry of board.entries) {
    const x = entry.figures[metric];
    const y = entry.figures.accuracy;
    if (x && y) points.push({ entry, x: x.value, y: y.value, figure: x });
  }
  return points;
}

function paretoOption(board, { metric, metrics, theme, facet = "" }) {
  const colors = THEMES[theme];
  const points = paretoPoints(board, metric);
  if (!points.length) return null;
  const { factor, unit } = scaleFor(metrics[metric].unit, points.map((point) => point.x));
  const best = frontier(points);
  const named = new Set(points.length > MANY ? spread(best) : points);
  const precisions = precisionsOf(points.map((point) => point.entry));
  const log = isWide(points.map((point) => point.x));
  // left of the frontier there is room for a name: whatever lay there would be on it
  const side = (p) => (points.length <= MANY ? "top" : p === best[0] ? "bottom" : "left");
  const series = precisions.flatMap((precision, index) => {
    const own = points.filter((point) => point.entry.precision === precision);
    const look = {
      name: `p${index}`, type: "scatter", symbol: SYMBOLS[index % SYMBOLS.length],
      symbolSize: points.length > MANY ? 8 : 12,
      itemStyle: { color: colors.series[index % colors.series.length], opacity: 0.9 },
    };
    return [
      { ...look, ...names(colors, board.entries), z: 4, data: dots(own.filter((p) => named.has(p)), factor, side) },
      { ...look, large: true, largeThreshold: CANVAS_FROM, z: 3,
        data: dots(own.filter((p) => !named.has(p)), factor) },
    ];
  });
  return {
    ...common(colors),
    ...zoom(),
    title: title(`Accuracy against ${metrics[metric].title.toLowerCase()}${facet ? `, ${facet}` : ""}`, colors),
    legend: legend(precisions, colors),
    tooltip: tooltip(colors, ({ data }) => data?.point && paretoTip(data.point, metrics, metric, board.entries)),
    xAxis: {
      ...axis(colors, `${metrics[metric].title} [${unit}]`), type: log ? "log" : "value",
      scale: true, boundaryGap: ["6%", "6%"],
    },
    yAxis: {
      ...axis(colors, "Accuracy"), nameGap: 48, type: "value", scale: true, ...room(points),
      axisLabel: { color: colors.dim, formatter: (value) => number(value, 5).replace(/\.?0+$/, "") },
    },
    series: [...series, frontierLine(best, points, factor, colors), arrows(points, factor, colors),
      intervals(points, factor, colors, precisions)],
  };
}

/** From each model's reference to what became of it: what compression gained and cost at sight. */
function arrows(points, factor, colors) {
  const known = new Map(points.map((p) => [JSON.stringify([p.entry.run, p.entry.model, p.entry.precision]), p]));
  const all = points
    .map((p) => [known.get(JSON.stringify([p.entry.reference_run, p.entry.model, p.entry.reference])), p])
    .filter(([from]) => from);
  const every = all.length > MOST_ARROWS ? Math.ceil(all.length / FEW_ARROWS) : 1;
  const pairs = all.filter((_, index) => index % every === 0);
  return {
    id: "arrows", type: "custom", silent: true, z: 2, clip: true,
    data: pairs.map(([from, to]) => [from.x / factor, from.y, to.x / factor, to.y]),
    encode: { x: [0, 2], y: [1, 3] },
    renderItem: (params, api) => {
      const [x1, y1] = api.coord([api.value(0), api.value(1)]);
      const [x2, y2] = api.coord([api.value(2), api.value(3)]);
      const length = Math.hypot(x2 - x1, y2 - y1);
      if (length < 18) return null;
      const [ux, uy] = [(x2 - x1) / length, (y2 - y1) / length];
      const [tx, ty] = [x2 - 8 * ux, y2 - 8 * uy]; // in front of the point
      const style = { stroke: colors.dim, fill: colors.dim, lineWidth: 1.2, opacity: 0.75 };
      const wing = (side) => [tx - 8 * ux + side * 3.5 * uy, ty - 8 * uy - side * 3.5 * ux];
      return {
        type: "group", children: [
          { type: "line", shape: { x1: x1 + 7 * ux, y1: y1 + 7 * uy, x2: tx, y2: ty }, style },
          { type: "polygon", shape: { points: [[tx, ty], wing(1), wing(-1)] }, style },
        ],
      };
    },
  };
}

/** By shift and wheel, or two fingers: a wheel alone scrolls the page. */
function zoom() {
  const inside = { type: "inside", filterMode: "none", zoomOnMouseWheel: "shift", moveOnMouseWheel: false, preventDefaultMouseMove: false };
  return { dataZoom: [{ ...inside, xAxisIndex: 0 }, { ...inside, yAxisIndex: 0 }] };
}

/** At most MANY of them, evenly: more names than that nobody can read. */
function spread(best) {
  const every = Math.ceil(best.length / MANY);
  return best.filter((_, index) => index % every === 0);
}

function dots(points, factor, side = null) {
  return points.map((point) => ({
    value: [point.x / factor, point.y], point,
    ...(side ? { label: { position: side(point) } } : {}),
  }));
}

function names(colors, all) {
  return {
    label: {
      show: true, distance: 7, color: colors.text, fontSize: 11, fontFamily: FONT,
      width: 130, overflow: "truncate", minMargin: 8,
      formatter: ({ data: { point: { entry } } }) =>
        [entry.model, conditionsOf(entry, all)].filter(Boolean).join(", "),
    },
    labelLayout: { hideOverlap: true },
    emphasis: { scale: 1.4 },
  };
}

/** Limits and ticks of the accuracy axis: some air, but none above 1 (or 100) where that is most. */
function room(points) {
  const values = points.map((point) => point.y);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const spread = most - least || Math.abs(most) * 0.02 || 0.01;
  const ten = 10 ** Math.floor(Math.log10(spread / 5));
  const interval = ten * ([1, 2, 5].find((times) => times * ten * 5 >= spread) ?? 10);
  const ceiling = most <= 1 ? 1 : most <= 100 ? 100 : Infinity;
  const top = Math.ceil((most + spread * 0.1) / interval) * interval;
  const bottom = Math.floor((least - spread * 0.1) / interval) * interval;
  return {
    min: tidy(least >= 0 ? Math.max(0, bottom) : bottom), max: tidy(Math.min(ceiling, top)),
    interval: tidy(interval),
  };
}

function tidy(value) {
  return Number(value.toPrecision(6));
}

/** The staircase of the best, led on to the dearest point: what lies below it is beaten. */
function frontierLine(best, points, factor, colors) {
  const dearest = Math.max(...points.map((point) => point.x));
  const stairs = [...best.map((point) => [point.x, point.y]), [dearest, best[best.length - 1].y]];
  return {
    id: "frontier", name: "frontier", type: "line", step: "end", showSymbol: false, silent: true,
    lineStyle: { color: colors.frontier, width: 1.5, type: [6, 4] }, z: 2,
    data: stairs.map(([x, y]) => [x / factor, y]),
  };
}

/** 95 % intervals along the cost, as whiskers in the colours of their points. */
function intervals(points, factor, colors, precisions) {
  const known = points.filter((point) => hasInterval(point.figure));
  return {
    id: "intervals", type: "custom", silent: true, z: 1, clip: true,
    data: known.map((p) => [p.figure.low / factor, p.figure.high / factor, p.y]),
    encode: { x: [0, 1], y: 2 },
    renderItem: (params, api) => {
      const index = precisions.indexOf(known[params.dataIndex].entry.precision);
      const stroke = colors.series[index % colors.series.length];
      const cap = index % 2 ? 6 : 4; // so that two on one line can be told apart
      const [left, y] = api.coord([api.value(0), api.value(2)]);
      const [right] = api.coord([api.value(1), api.value(2)]);
      const line = (x1, y1, x2, y2) => ({
        type: "line", shape: { x1, y1, x2, y2 }, style: { stroke, lineWidth: 1.6, opacity: 0.8 },
      });
      return {
        type: "group",
        children: [line(left, y, right, y), line(left, y - cap, left, y + cap),
          line(right, y - cap, right, y + cap)],
      };
    },
  };
}

function paretoTip({ entry, figure }, metrics, metric, all) {
  return tipBox(labelOf(entry, all), [
    ["accuracy", number(entry.figures.accuracy.value)],
    [metrics[metric].title.toLowerCase(), figureText(figure, metrics[metric].unit)],
    ["run", entry.run],
    ["status", entry.random_weights ? `${entry.status}, random weights` : entry.status],
  ]);
}

function paretoTable(board, { metric, metrics }) {
  const best = new Set(frontier(paretoPoints(board, metric)));
  const head = ["model", "precision", "run", `${metric}`, "low", "high", "accuracy", "on_frontier"];
  const rows = paretoPoints(board, metric);
  const on = new Set([...best].map((point) => point.entry));
  return [head, ...rows.map(({ entry, x, y, figure }) => [
    entry.model, entry.precision, entry.run, x, figure.low, figure.high, y,
    on.has(entry) ? "yes" : "no",
  ])];
}

// -- latency distributions ------------------------------------------------------------------------

export function latencies(node, entries, options) {
  return chart(node, latencyOption, latencyTable, entries, options);
}

function latencyOption(entries, { theme, all = entries, whole = false }) {
  const colors = THEMES[theme];
  const known = entries.filter((entry) => entry.latencies);
  if (!known.length) return null;
  const spans = known.map((entry) => span(entry.latencies, whole ? 1 : BULK));
  const [fastest, slowest] = [Math.min(...spans.map((s) => s[0])), Math.max(...spans.map((s) => s[1]))];
  const log = isWide([fastest, slowest]);
  const { factor, unit } = scaleFor("ms", [fastest]);
  const margin = log ? 0 : (slowest - fastest) * 0.04;
  const labels = known.map((entry) => labelOf(entry, all));
  const reach = whole ? "" : ", without the slowest twentieth";
  return {
    ...common(colors),
    grid: { left: 44, right: 32, top: 64, bottom: 52 },
    title: title("Latency distribution", colors),
    legend: legend(labels, colors),
    tooltip: tooltip(colors, (item) => latencyTip(item, known, labels)),
    xAxis: {
      ...axis(colors, `Latency [${unit}]${reach}`), type: log ? "log" : "value",
      min: (fastest - margin) / factor, max: (slowest + margin) / factor,
      axisLabel: {
        color: colors.dim, hideOverlap: true, showMinLabel: false, showMaxLabel: false,
        formatter: (value) => number(value, 3),
      },
    },
    yAxis: {
      ...axis(colors, "Share of inferences (density)"), nameGap: 14, type: "value",
      axisLabel: { show: false }, splitLine: { show: false },
    },
    series: known.map((entry, index) => ({
      id: `p${index}`, name: `p${index}`, type: "line", step: "start", showSymbol: false,
      triggerLineEvent: true, color: colors.series[index % colors.series.length],
      lineStyle: { width: 1.8, type: index % 2 ? [7, 3] : "solid" },
      areaStyle: { opacity: 0.14 }, data: outline(entry.latencies, factor, log),
    })),
  };
}

/** From the fastest bin to the one by which the share `bulk` is counted. */
function span({ edges_ms: edges, counts }, bulk) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  let seen = 0;
  const last = counts.findIndex((count) => (seen += count) >= bulk * total * (1 - 1e-9));
  return [edges[0], edges[last + 1]];
}

/** A histogram's outline: bins of different widths get equal areas for equal counts. */
function outline({ edges_ms: edges, counts }, factor, log) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  const points = [[edges[0] / factor, 0]];
  counts.forEach((count, bin) => {
    const width = log ? Math.log(edges[bin + 1] / edges[bin]) : edges[bin + 1] - edges[bin];
    const height = width > 0 && Number.isFinite(width) ? count / total / width : 0;
    points.push([edges[bin + 1] / factor, height]); // step "start": the height counts leftwards
  });
  points.push([edges[edges.length - 1] / factor, 0]);
  return points.filter(([x]) => !log || x > 0);
}

function latencyTip(item, known, labels) {
  const entry = known[item.seriesIndex];
  if (!entry) return "";
  const { edges_ms: edges, counts } = entry.latencies;
  const total = counts.reduce((sum, count) => sum + count, 0);
  const figure = entry.figures.latency_ms;
  return tipBox(labels[item.seriesIndex], [
    ["latency", figure ? figureText(figure, "ms") : "n/a"],
    ["fastest, slowest", `${number(edges[0])} ms, ${number(edges[edges.length - 1])} ms`],
    ["inferences", String(Math.round(total))],
  ]);
}

function latencyTable(entries) {
  const rows = [["model", "precision", "run", "from_ms", "to_ms", "count"]];
  for (const { model, precision, run, latencies: found } of entries) {
    found?.counts.forEach((count, bin) => {
      rows.push([model, precision, run, found.edges_ms[bin], found.edges_ms[bin + 1], count]);
    });
  }
  return rows;
}

// -- AURORA -----------------------------------------------------------------------------------------

const PARTS = ["accuracy_retention", "speedup", "size_ratio", "energy_ratio"];

/** What a score is made of: each component as a factor, above 1 where it is better. */
export function aurora(node, entries, options) {
  return chart(node, auroraOption, auroraTable, entries, options,
    (data) => rowsHeight(Math.min(scored(data).length, MOST_BARS)));
}

function scored(entries) {
  return entries.filter((entry) => entry.aurora);
}

function auroraOption(entries, { theme, width }) {
  const colors = THEMES[theme];
  const all = scored(entries);
  const known = [...all].sort((a, b) => b.aurora.score - a.aurora.score).slice(0, MOST_BARS).reverse();
  if (!known.length) return null;
  const parts = PARTS.filter((part) => known.some((entry) => entry.aurora.components[part] !== undefined));
  const more = all.length > known.length ? `, the best ${known.length} of ${all.length}` : "";
  return {
    ...common(colors), grid: { left: rowLabel(width) + 20, right: 32, top: 72, bottom: 52 },
    title: title(`AURORA and its components${more}`, colors),
    legend: legend(parts.map((part) => part.replaceAll("_", " ")), colors),
    tooltip: tooltip(colors, ({ dataIndex }) => {
      const { model, precision, aurora: found } = known[dataIndex];
      return tipBox(`${model} ${precision}`, [["AURORA", number(found.score)],
        ...Object.entries(found.components).map(([part, value]) => [part.replaceAll("_", " "), number(value, 3)]),
        ...(found.penalty < 1 ? [["times, for lost accuracy", number(found.penalty, 2)]] : [])]);
    }),
    xAxis: { ...axis(colors, "factor, above 1 is better"), type: "log", logBase: 2, min: (r) => Math.min(0.5, r.min), },
    yAxis: rowsAxis(known, colors, (entry) => [number(entry.aurora.score, 3), conditionsOf(entry)].filter(Boolean).join(" · "), width),
    series: parts.map((part, at) => ({
      id: `p${at}`, name: `p${at}`, type: "bar", barGap: "10%", barCategoryGap: "28%",
      itemStyle: { color: colors.series[at % colors.series.length] },
      data: known.map((entry) => entry.aurora.components[part] ?? "-"),
      ...(at ? {} : { markLine: {
        silent: true, symbol: "none", label: { show: false }, data: [{ xAxis: 1 }],
        lineStyle: { color: colors.dim, type: "solid", width: 1 },
      } }),
    })),
  };
}

function auroraTable(entries) {
  return [["model", "precision", "setting", "aurora", ...PARTS, "penalty", "missing"], ...scored(entries).map((e) => [
    e.model, e.precision, e.setting ?? "", e.aurora.score, ...PARTS.map((part) => e.aurora.components[part] ?? null),
    e.aurora.penalty, e.aurora.missing.join(" "),
  ])];
}

// -- ratios with intervals --------------------------------------------------------------------------

/** Latency over the reference's, as harness compare and harness duel have it. */
export function ratios(node, entries, options) {
  return chart(node, ratiosOption, ratiosTable, entries, options,
    (data) => rowsHeight(Math.min(tested(data).length, 2 * MOST_BARS)));
}

function tested(entries) {
  return entries.filter((entry) => entry.judged?.latency_ms?.low != null);
}

function ratiosOption(entries, { theme, width }) {
  const colors = THEMES[theme];
  const all = tested(entries);
  const known = all.slice(0, 2 * MOST_BARS).reverse();
  if (!known.length) return null;
  const found = known.map((entry) => entry.judged.latency_ms);
  const paint = { improved: colors.series[2], regressed: colors.series[6] };
  return {
    ...common(colors), grid: { left: rowLabel(width) + 20, right: 96, top: 48, bottom: 52 },
    title: title("Latency against the reference", colors),
    tooltip: tooltip(colors, ({ dataIndex }) => tipBox(labelOf(known[dataIndex]), [
      ["ratio", `${number(found[dataIndex].ratio)} (${number(found[dataIndex].low)} to ${number(found[dataIndex].high)})`],
      ["verdict", found[dataIndex].verdict], ["by", found[dataIndex].design], ["because", found[dataIndex].reason]])),
    xAxis: {
      ...axis(colors, "time over the reference's, below 1 is faster"), type: "value", scale: true,
      min: (r) => Math.min(r.min, 0.95), max: (r) => Math.max(r.max, 1.05),
      axisLabel: { color: colors.dim, hideOverlap: true, showMinLabel: false, formatter: (value) => number(value, 3) },
    },
    yAxis: rowsAxis(known, colors, conditionsOf, width),
    series: [{
      id: "ranges", type: "custom", silent: true, encode: { x: [1, 2], y: 0 },
      data: found.map((one, index) => [index, one.low, one.high]),
      renderItem: (params, api) => {
        const [x1, y] = api.coord([api.value(1), api.value(0)]);
        const [x2] = api.coord([api.value(2), api.value(0)]);
        const { verdict } = found[params.dataIndex];
        const stroke = paint[verdict] ?? colors.dim;
        return { type: "group", children: [
          { type: "line", shape: { x1, y1: y, x2, y2: y }, style: { stroke, lineWidth: 2.5 } },
          { type: "text", x: x2 + 10, y, style: { text: verdict, fill: colors.text, fontSize: 11, fontFamily: FONT, verticalAlign: "middle" } },
        ] };
      },
    }, {
      id: "ratios", type: "scatter", symbolSize: 10,
      data: found.map((one, index) => ({
        value: [one.ratio, index], symbol: one.design === "paired rounds" ? "diamond" : "circle",
        itemStyle: { color: paint[one.verdict] ?? colors.dim },
      })),
      markLine: { silent: true, symbol: "none", label: { show: false }, data: [{ xAxis: 1 }],
        lineStyle: { color: colors.dim, type: [4, 4], width: 1 } },
    }],
  };
}

function ratiosTable(entries) {
  return [["model", "precision", "setting", "ratio", "low", "high", "verdict", "design"], ...tested(entries).map((e) => {
    const { ratio, low, high, verdict, design } = e.judged.latency_ms;
    return [e.model, e.precision, e.setting ?? "", ratio, low, high, verdict, design];
  })];
}

/**
 * The charts below the table: what each is called, how it is drawn, what it says of its data in
 * words, and what it lacks if it is not drawn. `of`: a field of entries, of which it shows a few alone.
 */
export const MORE = [
  { label: "AURORA", make: aurora, lacks: "No entry shown has an AURORA score.",
    says: () => "Each component is a factor against the reference, above 1 is better; the number below a name is the score." },
  { label: "latency ratios", make: ratios, lacks: "No entry shown has a ratio with an interval: that takes five launches of both, or a duel.",
    says: () => "Bars are 95 % intervals. A circle is from separate launches, a diamond from a duel, in which both took turns." },
  { label: "capacity", make: capacity, of: "capacity", tall: true, says: capacityStory,
    lacks: "No entry shown has a capacity: harness capacity --latency-bound p99=10ms finds one." },
  { label: "roofline", make: roofline, of: "roofline", tall: true, says: rooflineStory,
    lacks: "No entry shown has operators under a measured roof: harness profile measures them." },
];
