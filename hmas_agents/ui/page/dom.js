// How are elements made? Text from the ledger only ever becomes text nodes or attributes.

const SVG = "http://www.w3.org/2000/svg";

// Characters that change how the text around them reads are shown by their code instead.
const INVISIBLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

export function visible(text) {
  return String(text).replace(
    INVISIBLE,
    (c) => `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`,
  );
}

function build(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    } else if (name === "value") {
      node.value = value;
    } else {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const el = (tag, props = {}, ...children) => build(document.createElement(tag), props, children);
export const svg = (tag, props = {}, ...children) =>
  build(document.createElementNS(SVG, tag), props, children);

// A name from outside in running text: its direction stays its own.
export const name = (text) => el("bdi", {}, visible(text));

// A long text from outside: keeps its lines, scrolls by itself, also by keyboard.
export const block = (text, label) =>
  el("pre", { dir: "auto", tabindex: "0", role: "region", "aria-label": label }, visible(text));

// Replace what is inside `host` and keep the keyboard where it was, found by data-key.
export function refill(host, ...children) {
  const key = host.contains(document.activeElement) && document.activeElement.dataset.key;
  host.replaceChildren(...children.flat(Infinity).filter(Boolean));
  if (key) host.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

export function option(value, text, selected) {
  const node = el("option", { value }, visible(text));
  node.selected = selected;
  return node;
}

// Arrow keys move among `items`, of which one at a time is in the tab order.
export function rove(event, items, keys) {
  const at = items.indexOf(document.activeElement);
  const to = { [keys[0]]: at - 1, [keys[1]]: at + 1, Home: 0, End: items.length - 1 }[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  const next = items[Math.max(0, Math.min(items.length - 1, to))];
  items[at].setAttribute("tabindex", "-1");
  next.setAttribute("tabindex", "0");
  next.focus();
}
