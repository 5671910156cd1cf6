// Figures as text. Nothing is computed here but the unit in which a figure reads well.

const SCALES = {
  ms: [[1e3, "s"], [1, "ms"], [1e-3, "µs"]],
  J: [[1, "J"], [1e-3, "mJ"], [1e-6, "µJ"]],
  MB: [[1e3, "GB"], [1, "MB"], [1e-3, "kB"]],
  mW: [[1e3, "W"], [1, "mW"]],
  "OP/s": [[1e12, "TOP/s"], [1e9, "GOP/s"], [1e6, "MOP/s"], [1e3, "kOP/s"], [1, "OP/s"]],
  "B/s": [[1e12, "TB/s"], [1e9, "GB/s"], [1e6, "MB/s"], [1e3, "kB/s"], [1, "B/s"]],
};

/** Four significant digits, without an exponent in everyday ranges. */
export function number(value, digits = 4) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e7) return value.toExponential(digits - 1);
  const rounded = Number(size.toPrecision(digits)); // 0.009999999 is 0.01 here, and has its digits
  const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(rounded)));
  return value.toFixed(Math.min(decimals, 8));
}

/** The unit for a column or an axis that holds `values`: the largest in which most are above 1. */
export function scaleFor(unit, values) {
  const scales = SCALES[unit];
  const sorted = values.filter((value) => value > 0).sort((a, b) => a - b);
  if (!scales || !sorted.length) return { factor: 1, unit };
  const middle = sorted[Math.floor(sorted.length / 2)];
  const [factor, name] = scales.find(([least]) => middle >= least) ?? scales[scales.length - 1];
  return { factor, unit: name };
}

/** `33.67 µs`, in the unit of its kind that reads best. */
export function quantity(value, unit) {
  const scale = scaleFor(unit, [Math.abs(value)]);
  return `${number(value / scale.factor)}${scale.unit ? ` ${scale.unit}` : ""}`;
}

/** `33.67 µs (95 %: 33.27 to 34.08)` of a Figure. */
export function figureText(figure, unit) {
  const scale = scaleFor(unit, [Math.abs(figure.value)]);
  const text = (value) => number(value / scale.factor);
  const range = hasInterval(figure) ? ` (95 %: ${text(figure.low)} to ${text(figure.high)})` : "";
  return `${text(figure.value)}${scale.unit ? ` ${scale.unit}` : ""}${range}`;
}

export function hasInterval(figure) {
  return figure.low !== null && figure.high !== null;
}

/** AURORA's components, one a line: the score is never shown without them. */
export function auroraText(aurora) {
  const lines = Object.entries(aurora.components).map(([part, value]) => {
    const weight = aurora.weights?.[part];
    const share = weight === undefined ? "" : `, weight ${number(weight, 2)}`;
    return `${words(part)} ${number(value)}${share}`;
  });
  if (aurora.penalty !== undefined && aurora.penalty < 1) {
    lines.push(`accuracy lost beyond the tolerance: times ${number(aurora.penalty, 3)}`);
  }
  if (aurora.missing.length) lines.push(`left out: ${aurora.missing.map(words).join(", ")}`);
  return lines.join("\n");
}

/** `27 Nov, 14:05` of an ISO 8601 stamp, in the reader's own time; empty for what is none. */
export function localTime(stamp) {
  const date = new Date(stamp ?? "");
  if (Number.isNaN(date.getTime())) return "";
  const sameYear = date.getFullYear() === new Date().getFullYear();
  return date.toLocaleString(undefined, {
    day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", ...(sameYear ? {} : { year: "numeric" }),
  });
}

export function words(identifier) {
  return identifier.replaceAll("_", " ");
}

/** What identifies an entry over reloads: its first run, for further ones join it. */
export function keyOf(entry) {
  return JSON.stringify([entry.runs?.[0]?.run ?? entry.run, entry.model, entry.precision]);
}

/** `batch 8`, `dynamic`: in what the entries of its model differ, as the board found. */
export function conditionsOf(entry) {
  return entry.setting ?? "";
}

/** Model, precision and setting. */
export function labelOf(entry) {
  return [`${entry.model} ${entry.precision}`, conditionsOf(entry)].filter(Boolean).join(", ");
}

/**
 * A change against the reference, said in words and with a sign, never by colour alone.
 * Returns {text, verdict}, verdict one of better, worse, same.
 */
export function change(ratio, value) {
  const verdict = (good, bad) => (good ? "better" : bad ? "worse" : "same");
  const times = (more, less) => {
    const text = value >= 1 ? `${number(value, 3)}× ${more}` : `${number(1 / value, 3)}× ${less}`;
    const same = number(value >= 1 ? value : 1 / value, 3) === "1.00";
    return { text: same ? "the same" : text, verdict: verdict(!same && value > 1, !same) };
  };
  switch (ratio) {
    case "speedup":
      return times("faster", "slower");
    case "size_ratio":
      return times("smaller", "larger");
    case "energy_ratio":
      return times("less energy", "more energy");
    case "memory_reduction_mb": {
      const text = `${quantity(Math.abs(value), "MB")} ${value >= 0 ? "less" : "more"}`;
      return { text: value === 0 ? "the same" : text, verdict: verdict(value > 0, value < 0) };
    }
    case "accuracy_drop": {
      const text = `${number(Math.abs(value), 3)} ${value > 0 ? "lost" : "gained"}`;
      return { text: value === 0 ? "nothing lost" : text, verdict: verdict(value < 0, value > 0) };
    }
    default:
      return { text: number(value), verdict: "same" };
  }
}

export const SIGNS = { better: "▲", worse: "▼", same: "=", uncertain: "≈" };
