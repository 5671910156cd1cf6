// Elements from untrusted text. Nothing here, or anywhere in this folder, parses a string as HTML.

/** An element. `props`: attributes, or listeners as on…; children: nodes, or strings as text. */
export function el(name, props = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(props)) {
    if (value === false || value === null || value === undefined) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** A name from an event file: its own direction, and whole in the tip where it is cut. */
export function name(text, extra = {}) {
  return el("bdi", { class: "name", "data-tip": text.length > 24 ? text : null, ...extra }, text);
}

/** A button that shows whether it is pressed. */
export function toggle(label, pressed, onclick, props = {}) {
  return el("button", { type: "button", "aria-pressed": String(pressed), onclick, ...props }, label);
}

/**
 * One tip for everything with data-tip below `root`, on hover and on focus. Escape hides it.
 * Lines of the text stay lines.
 */
export function installTips(root) {
  const tip = el("div", { class: "tip", role: "tooltip", hidden: true });
  root.append(tip);
  const show = (event) => {
    const target = event.target.closest?.("[data-tip]");
    if (!target) {
      tip.hidden = true;
      return;
    }
    tip.textContent = target.getAttribute("data-tip");
    tip.hidden = false;
    const at = target.getBoundingClientRect();
    const size = tip.getBoundingClientRect();
    const below = at.bottom + 6 + size.height < innerHeight;
    tip.style.left = `${Math.max(8, Math.min(at.left, innerWidth - size.width - 8))}px`;
    tip.style.top = `${below ? at.bottom + 6 : Math.max(8, at.top - size.height - 6)}px`;
  };
  const hide = () => {
    tip.hidden = true;
  };
  root.addEventListener("mouseover", show);
  root.addEventListener("focusin", show);
  root.addEventListener("focusout", hide);
  root.addEventListener("mouseleave", hide);
  root.addEventListener("scroll", hide, true);
  root.addEventListener("keydown", (event) => event.key === "Escape" && hide());
}
