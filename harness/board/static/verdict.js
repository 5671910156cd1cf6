// A change against the reference: its sign and colour are those of the verdict, never of the number.

import { el } from "./dom.js";
import { SIGNS, change, number } from "./format.js";

/** The change, in the words of `harness compare`: colour and arrow only where it is certain. */
export function verdict(ratio, value, judged, worded = true) {
  if (value === undefined) return el("span", { class: "dim" }, "–");
  const found = change(ratio, sideBySide(ratio, value, judged));
  const said = judged?.verdict ?? "inconclusive";
  const look = LOOKS[said] ?? "uncertain";
  const bounds = judged && judged.low !== null && judged.design !== "exact"
    ? `ratio ${number(judged.ratio)} (95 %: ${number(judged.low)} to ${number(judged.high)}), ${judged.design}` : "";
  const tip = [said, bounds, judged?.reason, judged?.doubt].filter(Boolean).join("\n");
  return el("span", { class: `change ${look}`, tabindex: 0, "data-tip": tip },
    el("span", { class: "what" }, el("span", { "aria-hidden": "true" }, `${SIGNS[look]} `), found.text),
    ...(worded ? [" ", el("small", { class: "said" }, said)] : []));
}

const LOOKS = { improved: "better", regressed: "worse", unchanged: "same" };

/** Where a duel let the two take turns, its ratio is the one to show. */
function sideBySide(ratio, value, judged) {
  return ratio === "speedup" && judged?.design === "paired rounds" && judged.ratio ? 1 / judged.ratio : value;
}
