// From an entry to its runs in TensorBoard's other tabs.

import { el } from "./dom.js";

const TABS = [["scalars", "timeseries"], ["histograms", "histograms"], ["text", "text"]];

/** Links to the newest run's scalars, histograms and texts; none where the page stands alone. */
export function linksTo(entry) {
  const place = outerPlace();
  if (!place || !entry.run) return null;
  const pattern = entry.run.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const links = TABS.map(([label, tab]) => {
    const address = tab === "timeseries"
      ? `${place}?runFilter=${encodeURIComponent(pattern)}#timeseries`
      : `${place}#${tab}&regexInput=${encodeURIComponent(pattern)}`;
    return el("a", { href: address, target: "_blank", rel: "noopener" }, label);
  });
  const report = `harness report ${/^[\w.:/@-]+$/.test(entry.run) ? entry.run : "RUN"} -o report.html`;
  return el("section", {}, el("h4", {}, "In the other tabs"),
    el("p", { class: "links" }, ...links.flatMap((link) => [link, " "])), el("code", {}, report));
}

function outerPlace() {
  try {
    return parent !== window ? parent.location.origin + parent.location.pathname : null;
  } catch {
    return null; // another origin
  }
}
