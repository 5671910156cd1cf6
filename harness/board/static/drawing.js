// What all charts share: colours, the parts of an ECharts option, and an instance that follows data.
// Nothing is fetched, and Apache ECharts is the page's (globalThis.echarts).

import { csv } from "./download.js";
import { el } from "./dom.js";

export const THEMES = {
  light: {
    text: "#1f2933", dim: "#5f6b7a", line: "#d5dae1", ground: "#ffffff", frontier: "#8a94a3",
    series: ["#2f6fde", "#d9630b", "#148f63", "#a23bc2", "#b8860b", "#0e8a9e", "#c42f5f", "#5b6472"],
  },
  dark: {
    text: "#e6e9ee", dim: "#9aa5b4", line: "#3c4450", ground: "#22272e", frontier: "#7d8896",
    series: ["#6ea4ff", "#ff9a4d", "#3fcf98", "#d584f0", "#e3b341", "#45c3d6", "#ff7aa2", "#a5b0bf"],
  },
};
export const FONT = "Roboto, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif";
export const CANVAS_FROM = 400; // points, from which a canvas draws faster than SVG
const WIDE = 15; // a range of more than this, largest over smallest, is drawn on a log axis

export function isWide(values) {
  const positive = values.filter((value) => value > 0);
  return positive.length === values.length && Math.max(...positive) / Math.min(...positive) > WIDE;
}

export function common(colors) {
  return {
    animation: false, backgroundColor: "transparent", textStyle: { fontFamily: FONT },
    grid: { left: 76, right: 32, top: 80, bottom: 52 },
    color: colors.series,
  };
}

export function title(text, colors) {
  return { text, left: 12, top: 8, textStyle: { color: colors.text, fontSize: 14, fontWeight: 600, overflow: "truncate" } };
}

/** Series are called p0, p1, ... inside ECharts; what an event file calls them is only drawn. */
export function legend(labels, colors) {
  return {
    top: 32, left: 8, type: "scroll", itemWidth: 14, itemHeight: 10, data: labels.map((_, i) => `p${i}`),
    textStyle: { color: colors.text, width: 220, overflow: "truncate" },
    pageTextStyle: { color: colors.dim }, pageIconColor: colors.dim,
    formatter: (series) => labels[Number(series.slice(1))] ?? series,
  };
}

export function axis(colors, label) {
  return {
    name: label, nameLocation: "middle", nameGap: 28, nameTextStyle: { color: colors.dim },
    axisLine: { show: true, lineStyle: { color: colors.line } }, axisTick: { show: false },
    axisLabel: { color: colors.dim, hideOverlap: true },
    splitLine: { lineStyle: { color: colors.line, opacity: 0.6 } },
  };
}

export function tooltip(colors, formatter) {
  return {
    trigger: "item", confine: true, backgroundColor: colors.ground, borderColor: colors.line,
    textStyle: { color: colors.text, fontSize: 12, fontFamily: FONT }, formatter,
  };
}

export function tipBox(heading, facts) {
  return el("div", { class: "chart-tip" },
    el("strong", {}, el("bdi", {}, heading)),
    ...facts.map(([key, value]) => el("div", {}, `${key}: `, el("bdi", {}, value))));
}

function fitTitle(option, width) {
  option.title.textStyle.width = Math.max(160, (width || 720) - 24);
}

/** Labels of a category axis, one an entry: model and precision, and below them `more` in small. */
export function rowsAxis(entries, colors, more, width) {
  const line = (index) => entries[Number(index)];
  return {
    type: "category", data: entries.map((_, index) => String(index)), axisTick: { show: false },
    axisLine: { lineStyle: { color: colors.line } },
    axisLabel: {
      color: colors.text, width: rowLabel(width), overflow: "truncate", lineHeight: 14, interval: 0,
      rich: { more: { color: colors.dim, fontSize: 10.5 } },
      formatter: (index) => [`${line(index).model} ${line(index).precision}`.replace(/[{}|]/g, " "),
        cut(more(line(index)), width) && `{more|${cut(more(line(index)), width)}}`].filter(Boolean).join("\n"),
    },
  };
}

/** Pixels for the labels of `rowsAxis` in a chart of this width. */
export function rowLabel(width) {
  return width < 480 ? 104 : 158;
}

function cut(text, width) {
  const most = Math.floor(rowLabel(width) / 5.4); // letters
  return (text.length > most ? `${text.slice(0, most - 1)}…` : text).replace(/[{}|]/g, " ");
}

/** For a chart with `rows` lines of `rowsAxis`: room for each. */
export function rowsHeight(rows) {
  return Math.max(300, 130 + 34 * rows);
}

/**
 * One ECharts instance that follows data, options and the size of its node. `heightOf(data)`: in
 * pixels, where it depends on the data.
 */
export function chart(node, optionOf, tableOf, firstData, firstOptions, heightOf = null) {
  let instance = null;
  let data = firstData;
  let options = firstOptions;

  function update(newData = data, newOptions = options) {
    data = newData;
    options = { ...options, ...newOptions };
    const option = optionOf(data, { ...options, width: node.clientWidth });
    node.classList.toggle("empty", option === null);
    if (option === null) {
      instance?.dispose();
      instance = null;
      return false;
    }
    fitTitle(option, node.clientWidth);
    const scattered = option.series.filter((series) => series.type === "scatter");
    if (heightOf) node.style.height = `${heightOf(data)}px`;
    const points = scattered.reduce((sum, series) => sum + series.data.length, 0);
    const renderer = points > CANVAS_FROM ? "canvas" : "svg";
    if (instance && instance.renderer !== renderer) {
      instance.dispose();
      instance = null;
    }
    if (!instance) {
      instance = globalThis.echarts.init(node, null, { renderer });
      instance.renderer = renderer;
    }
    if (heightOf) instance.resize();
    instance.setOption(option, { notMerge: true });
    return true;
  }

  /** A picture of the same chart, drawn aside by the other renderer where need be. */
  function picture(renderer, take) {
    const option = optionOf(data, { ...options, width: node.clientWidth || 720 });
    if (option === null) return null;
    const size = { width: node.clientWidth || 720, height: node.clientHeight || 400 };
    const aside = globalThis.echarts.init(el("div"), null, { renderer, ...size });
    const ground = THEMES[options.theme].ground;
    fitTitle(option, size.width);
    aside.setOption({ ...option, backgroundColor: ground });
    const taken = take(aside, ground);
    aside.dispose();
    return taken;
  }

  update();
  return {
    update,
    resize: () => instance?.resize(),
    dispose: () => instance?.dispose(),
    svg: () => picture("svg", (aside) => aside.renderToSVGString()),
    png: () => picture("canvas", (aside, backgroundColor) =>
      aside.getDataURL({ type: "png", pixelRatio: 2, backgroundColor })),
    rows: () => tableOf(data, options),
    csv: () => csv(tableOf(data, options)),
  };
}
