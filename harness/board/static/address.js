// The view in the address of TensorBoard's page, so that it can be shared: #compression&text=...

import { fromParameters, toParameters } from "./state.js";

export function readAddress(state) {
  const [, ...rest] = outer().location.hash.slice(1).split("&");
  fromParameters(state, new URLSearchParams(rest.join("&")));
}

export function writeAddress(state) {
  const place = outer();
  const tab = place === window ? "" : "compression";
  const said = toParameters(state).toString();
  const hash = said || tab ? [tab, said].filter(Boolean).join("&") : "";
  const wanted = place === window && said ? `&${said}` : hash;
  const mine = place === window || place.location.hash.startsWith("#compression");
  if (!mine || place.location.hash.slice(1) === wanted) return;
  const { pathname, search } = place.location; // whole: a base element would lead "#" elsewhere
  place.history.replaceState(place.history.state, "", `${pathname}${search}#${wanted}`);
}

/** TensorBoard's own window, where it can be reached from here. */
function outer() {
  try {
    return parent.location.hash === undefined ? window : parent;
  } catch {
    return window; // another origin: a notebook, for one
  }
}
