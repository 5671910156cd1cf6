// Two charts of a few entries each: what a system takes before it breaks a bound, and how far its
// operators are from the machine's roof. What is drawn is what python gave.
//
//   capacity(node, entries, {theme})    rate against p50 and p99, utilization, joules a request
//   roofline(node, entries, {theme})    operations a byte against operations a second

import { FONT, THEMES, axis, chart, common, legend, tipBox, title, tooltip } from "./drawing.js";
import { labelOf, number, quantity, scaleFor } from "./format.js";

const MOST = 3; // entries in one of these charts: more hide each other
const NAMED = 3; // operators of an entry that are named
const SHORT = 26; // letters of a name that is drawn
const STAR = "path://M0,-10L2.4,-3.3L9.5,-3.1L3.8,1.2L5.9,8.1L0,4L-5.9,8.1L-3.8,1.2L-9.5,-3.1L-2.4,-3.3Z";

function having(entries, what) {
  return entries.filter((entry) => entry[what]).slice(0, MOST);
}

// -- capacity -------------------------------------------------------------------------------------

// top and height of the panels in pixels: latency, utilization, and energy where it was measured
const PANELS = { 2: [[92, 236], [368, 84]], 3: [[92, 190], [318, 58], [412, 48]] };
const SHAPES = { pass: "circle", undecided: "diamond", fail: "triangle" };

/** Lines are predicted, marks are measured; the answer is upright, with its interval as a band. */
export function capacity(node, entries, options) {
  return chart(node, capacityOption, capacityTable, entries, options);
}

function capacityOption(entries, { theme }) {
  const colors = THEMES[theme];
  const known = having(entries, "capacity");
  if (!known.length) return null;
  const points = known.flatMap(({ capacity: found }) => [...found.measured, ...found.predicted]);
  const ms = scaleFor("ms", points.map((point) => point.p99_ms).filter((value) => value !== null));
  const joules = points.map((point) => point.joules).filter((value) => value !== null);
  const energy = scaleFor("J", joules);
  const panels = joules.length ? 3 : 2;
  const x = { ...axis(colors, ""), type: "value", scale: true };
  const y = (name, more = {}) => ({ ...axis(colors, name), type: "value", nameGap: 46, ...more });
  return {
    ...common(colors),
    title: title(`Latency over the rate${known.length > 1 ? "" : `, ${labelOf(known[0])}`}`, colors),
    legend: { ...legend(known.map((entry) => labelOf(entry)), colors), show: known.length > 1 },
    grid: PANELS[panels].map(([top, height]) => ({ left: 76, right: 32, top, height })),
    tooltip: tooltip(colors, ({ data }) => data?.point && capacityTip(data)),
    xAxis: PANELS[panels].map((_, at) => ({
      ...x, gridIndex: at, name: at === panels - 1 ? "requests a second" : "",
      axisLabel: { ...x.axisLabel, show: at === panels - 1 },
    })),
    yAxis: [
      y(`latency from due [${ms.unit}]`, { type: "log", axisLabel: { color: colors.dim, hideOverlap: true,
        formatter: (value) => number(value, 2) } }),
      y("busy", { gridIndex: 1, min: 0, max: 1, interval: 0.5, axisLabel: { color: colors.dim, formatter: (v) => `${100 * v} %` } }),
      y(`energy [${energy.unit}]`, { gridIndex: 2, min: 0, splitNumber: 2 }),
    ].slice(0, panels),
    series: known.flatMap((entry, at) => capacitySeries(known, at, colors, ms.factor, energy.factor, panels)),
  };
}

function capacitySeries(known, at, colors, msFactor, jouleFactor, panels) {
  const color = colors.series[at];
  const entry = known[at];
  const found = entry.capacity;
  const told = new Set(known.slice(0, at).flatMap((before) => before.capacity.bounds.map((bound) => bound.text)));
  const data = (points, name, factor) => points.filter((point) => point[name] !== null).map((point) => ({
    value: [point.rate_per_s, point[name] / factor], point, entry, symbol: SHAPES[point.verdict.split(",")[0]],
  }));
  const line = (name, factor, panel, type, more = {}) => ({
    name: `p${at}`, type: "line", color, symbol: "circle", symbolSize: 3, xAxisIndex: panel, yAxisIndex: panel,
    lineStyle: { width: 1.6, type }, data: data(found.predicted, name, factor), ...more,
  });
  const marks = (name, factor, panel, hollow = false) => ({
    name: `p${at}`, type: "scatter", symbolSize: 9, color, xAxisIndex: panel, yAxisIndex: panel, z: 4,
    itemStyle: hollow ? { color: colors.ground, borderColor: color, borderWidth: 1.6 } : {},
    data: data(found.measured, name, factor),
  });
  return [
    line("p99_ms", msFactor, 0, "solid", answerMarks(found, at, told, colors, msFactor)),
    line("p50_ms", msFactor, 0, [5, 4]), marks("p99_ms", msFactor, 0), marks("p50_ms", msFactor, 0, true),
    line("utilization", 1, 1, "solid"), marks("utilization", 1, 1),
    ...(panels > 2 ? [marks("joules", jouleFactor, 2)] : []),
  ];
}

/** The answer upright with its interval as a band; the bounds level, each once. */
function answerMarks(found, at, told, colors, factor) {
  const color = colors.series[at];
  const level = found.bounds.filter((bound) => !told.has(bound.text)).map((bound) => ({
    yAxis: bound.limit_ms / factor, lineStyle: { color: colors.dim, type: [2, 3] },
    label: { formatter: bound.text, position: "insideStartTop", color: colors.dim },
  }));
  return {
    markLine: {
      silent: true, symbol: "none", data: [...level, {
        xAxis: found.per_s, lineStyle: { color, type: "solid", width: 1.6 },
        label: { formatter: `${number(found.per_s)} /s`, color, fontWeight: 600, position: "end", distance: 3 + 13 * at },
      }],
    },
    ...(found.low === null ? {} : { markArea: {
      silent: true, itemStyle: { color, opacity: 0.13 }, data: [[{ xAxis: found.low }, { xAxis: found.high }]],
    } }),
  };
}

function capacityTip({ point, entry }) {
  const value = (name, unit) => (point[name] === null ? "n/a" : quantity(point[name], unit));
  return tipBox(labelOf(entry), [
    [point.verdict ? "measured at" : "predicted at", `${number(point.rate_per_s)} requests a second`],
    ["p50, p99", `${value("p50_ms", "ms")}, ${value("p99_ms", "ms")}`],
    ["busy", point.utilization === null ? "n/a" : `${number(100 * point.utilization, 3)} %`],
    ...(point.joules === null ? [] : [["energy", `${quantity(point.joules, "J")} a request`]]),
    ...(point.verdict ? [["its bounds", point.verdict]] : []),
  ]);
}

function capacityTable(entries) {
  const head = ["model", "precision", "setting", "kind", "rate_per_s", "low", "high", "p50_ms", "p99_ms",
    "utilization", "joules_per_request", "verdict"];
  return [head, ...having(entries, "capacity").flatMap((entry) => {
    const found = entry.capacity;
    const who = [entry.model, entry.precision, entry.setting ?? ""];
    const row = (kind) => (p) => [...who, kind, p.rate_per_s, null, null, p.p50_ms, p.p99_ms, p.utilization, p.joules, p.verdict];
    const bounds = found.bounds.map((bound) => bound.text).join(" and ");
    return [
      [...who, "answer", found.per_s, found.low, found.high, null, null, null, null, bounds],
      ...found.measured.map(row("measured")), ...found.predicted.map(row("predicted")),
    ];
  })];
}

/** The answers in words, and how to read the chart. */
export function capacityStory(entries) {
  const answers = having(entries, "capacity").map((entry) => {
    const found = entry.capacity;
    const bounds = found.bounds.map((bound) => bound.text).join(" and ");
    const range = found.low === null ? `no interval: ${found.why_no_interval}`
      : `95 %: ${number(found.low)} to ${number(found.high)}`;
    return `${labelOf(entry)}: ${number(found.per_s)} requests a second hold ${bounds} (${range}); limited by ${found.limit}.`;
  });
  return [...answers, "Lines are predicted from service times, p99 solid and p50 dashed; marks are measured, p99 full and p50 hollow,",
    "a triangle where a bound was missed, a diamond where it is undecided. Upright: the answer and its interval."].join(" ");
}

// -- roofline -------------------------------------------------------------------------------------

/** Operators, sized by their share of the time, under the roofs that were measured. */
export function roofline(node, entries, options) {
  return chart(node, rooflineOption, rooflineTable, entries, options);
}

function rooflineOption(entries, { theme }) {
  const colors = THEMES[theme];
  const known = having(entries, "roofline");
  if (!known.length) return null;
  return {
    ...common(colors), grid: { left: 88, right: 32, top: 76, bottom: 52 },
    title: title(`Operators under the machine's roof${known.length > 1 ? "" : `, ${labelOf(known[0])}`}`, colors),
    legend: { ...legend(known.map((entry) => labelOf(entry)), colors), show: known.length > 1 },
    tooltip: tooltip(colors, ({ data }) => data?.point && rooflineTip(data)),
    xAxis: { ...axis(colors, "operations a byte"), type: "log", min: "dataMin", max: "dataMax",
      axisLabel: { color: colors.dim, hideOverlap: true, showMinLabel: false, showMaxLabel: false, formatter: (value) => number(value, 3) } },
    yAxis: { ...axis(colors, "achieved operations a second"), type: "log", nameGap: 68,
      axisLabel: { color: colors.dim, hideOverlap: true, formatter: (value) => quantity(value, "OP/s").replace(/\.0+ /, " ") } },
    series: known.flatMap((_, at) => rooflineSeries(known, at, colors)),
  };
}

function rooflineSeries(known, at, colors) {
  const color = colors.series[at];
  const entry = known[at];
  const { points } = entry.roofline;
  const slow = new Set(points.filter((point) => !point.whole).slice(0, NAMED));
  return [roofSeries(known, at, colors), {
    name: `p${at}`, type: "scatter", color, z: 3, labelLayout: { hideOverlap: true },
    data: points.map((point) => ({
      value: [point.intensity, point.per_s], point, entry,
      symbol: point.whole ? STAR : point.bound === "compute" ? "circle" : "diamond",
      symbolSize: point.whole ? 17 : 6 + 20 * Math.sqrt(point.of_model),
      itemStyle: point.whole ? { color: colors.text, borderColor: color, borderWidth: 1.5 } : { opacity: 0.65 },
      label: { show: point.whole || slow.has(point), position: point.whole ? "left" : "top", color: colors.text, fontSize: 11,
        formatter: point.whole ? "the whole model" : short(point.name) },
    })),
  }];
}

/** Roofs with their names along them; of several runs once, for their roofs lie close together. */
function roofSeries(known, at, colors) {
  const color = colors.series[at];
  const { lines } = known[at].roofline;
  const kind = (roof) => `${roof.bound} ${roof.bound === "compute" ? roof.precision : ""}`;
  const told = new Set(known.slice(0, at).flatMap((entry) => entry.roofline.lines.map(kind)));
  const named = lines.map((roof) => (told.has(kind(roof)) ? ""
    : `${quantity(roof.per_s, roof.bound === "compute" ? "OP/s" : "B/s")} (${roof.name})`));
  return {
    id: `roofs${at}`, name: `p${at}`, type: "custom", color, silent: true, clip: true, z: 1,
    data: lines.map((roof) => [...roof.start, ...roof.end]), encode: { x: [0, 2], y: [1, 3] },
    renderItem: ({ dataIndex }, api) => {
      const [x1, y1] = api.coord([api.value(0), api.value(1)]);
      const [x2, y2] = api.coord([api.value(2), api.value(3)]);
      const level = lines[dataIndex].bound === "compute";
      const along = level ? 1 : 0.5;
      const name = named[dataIndex];
      const fits = Math.hypot(x2 - x1, y2 - y1) > 5.4 * name.length;
      const angle = level ? 0 : Math.atan2(y1 - y2, x2 - x1);
      return { type: "group", children: [
        { type: "line", shape: { x1, y1, x2, y2 },
          style: { stroke: color, lineWidth: 1.4, lineDash: level ? null : [6, 3], opacity: 0.8 } },
        { type: "text", rotation: angle,
          x: x1 + along * (x2 - x1) - 3 * Math.sin(angle), y: y1 + along * (y2 - y1) - 3 * Math.cos(angle),
          style: { text: fits ? name : name.split(" (")[0], fill: color, fontSize: 10, fontFamily: FONT,
            align: level ? "right" : "center", verticalAlign: "bottom" } },
      ] };
    },
  };
}

function short(text) {
  return text.length > SHORT ? `${text.slice(0, SHORT - 1)}…` : text;
}

function rooflineTip({ point, entry }) {
  return tipBox(point.whole ? labelOf(entry) : point.name, [
    ...(point.whole ? [["", "the whole model, as far as it is counted"]] : [["type, precision", `${point.type}, ${point.precision}`]]),
    ["reaches", `${number(100 * point.share, 3)} % of its roof, bound by ${point.bound}`],
    ["achieved", `${quantity(point.per_s, "OP/s")} at ${number(point.intensity, 3)} operations a byte`],
    ["time", `${quantity(point.ms, "ms")}, ${number(100 * point.of_model, 3)} % of the ${point.whole ? "operators' time" : "inference"}`],
  ]);
}

function rooflineTable(entries) {
  const head = ["model", "precision", "setting", "kind", "name", "type", "ran_in", "bound", "operations_a_byte",
    "operations_per_s", "share_of_roof", "ms", "share_of_time"];
  return [head, ...having(entries, "roofline").flatMap((entry) => {
    const who = [entry.model, entry.precision, entry.setting ?? ""];
    return [
      ...entry.roofline.points.map((p) => [...who, p.whole ? "model" : "operator", p.name, p.type, p.precision, p.bound,
        p.intensity, p.per_s, p.share, p.ms, p.of_model]),
      ...entry.roofline.lines.map((roof) => [...who, roof.bound === "compute" ? "roof" : "roof, bytes per s", roof.name, "",
        roof.precision, roof.bound, null, roof.per_s, null, null, null]),
    ];
  })];
}

/** What the whole model reaches, what is not drawn and why, and how to read the chart. */
export function rooflineStory(entries) {
  const found = having(entries, "roofline").map((entry) => {
    const whole = entry.roofline.points.find((point) => point.whole);
    const reached = whole ? `reaches ${number(100 * whole.share, 3)} % of its roof, mostly bound by ${whole.bound}` : "has no place as a whole";
    const left = entry.roofline.left_out.length ? `; not drawn: ${entry.roofline.left_out.join(", ")}` : "";
    return `${labelOf(entry)} ${reached}${left}.`;
  });
  return [...found, "A mark is an operator, the larger the more of the time it takes; a circle is bound by compute, a diamond by memory.",
    "Level lines are the fastest products measured, slanted ones the fastest and the largest copy."].join(" ");
}
