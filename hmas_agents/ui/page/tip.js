// What is under the pointer or the keyboard? One box for every chart and mark.

import { el } from "./dom.js";

const box = document.getElementById("tip");

export function showTip(x, y, lines) {
  box.replaceChildren(...lines.map((line) => el("div", {}, line)));
  box.hidden = false;
  const { width, height } = box.getBoundingClientRect();
  const left = x + 14 + width > innerWidth ? x - 14 - width : x + 14;
  box.style.left = `${Math.max(4, left)}px`;
  box.style.top = `${Math.max(4, Math.min(y + 14, innerHeight - height - 4))}px`;
}

export function hideTip() {
  box.hidden = true;
}

// Show `lines` while the pointer or the keyboard is on `node`.
export function explain(node, lines) {
  const show = () => {
    const { left, bottom } = node.getBoundingClientRect();
    showTip(left, bottom - 8, lines());
  };
  for (const event of ["pointerenter", "focus"]) node.addEventListener(event, show);
  for (const event of ["pointerleave", "blur"]) node.addEventListener(event, hideTip);
  return node;
}
