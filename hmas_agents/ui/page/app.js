// Which view is shown, is the ledger growing, and light or dark? The page starts here.

import { get } from "./api.js";
import { CompareView } from "./compare_view.js";
import { el, visible } from "./dom.js";
import { ago } from "./format.js";
import { isFresh } from "./live.js";
import { PromptsView } from "./prompts_view.js";
import { RunView } from "./run_view.js";
import { hideTip } from "./tip.js";
import { WordsView } from "./words_view.js";

const VIEWS = { run: RunView, compare: CompareView, words: WordsView, prompts: PromptsView };
const PULSE_MS = 2000;

const main = document.getElementById("main");
const state = document.getElementById("state");
const age = document.getElementById("age");
let shown = { name: "", view: null };
let pulse = null;

function problem(error) {
  main.replaceChildren(el("p", { class: "problem", role: "alert" }, visible(error.message)));
  shown = { name: "", view: null };
}

// #/run/KEY/decision/KEY and the like; a view gets the parts after its name.
async function route() {
  hideTip();
  const parts = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decodeURIComponent);
  const name = parts[0] in VIEWS ? parts[0] : "run";
  for (const link of document.querySelectorAll("header a[data-view]"))
    link.dataset.view === name ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  try {
    if (shown.name !== name) {
      shown.view?.close();
      main.replaceChildren();
      main.className = name;
      shown = { name, view: new VIEWS[name](main) };
    }
    await shown.view.show(parts.slice(1), pulse);
  } catch (error) {
    problem(error);
  }
}

// One address after the other: what still loads for an earlier one must not undo a later one.
let routed = Promise.resolve();
const follow = () => (routed = routed.then(route));

// The state is announced when it changes; the age beside it changes all the time, silently.
function tell() {
  const waiting = pulse.ledgers.filter((ledger) => ledger.state === "waiting");
  const broken = pulse.ledgers.filter((ledger) => ledger.state === "broken");
  const written = Math.max(...pulse.ledgers.map((ledger) => ledger.written_s ?? 0));
  const old = Date.now() / 1000 - written;
  const texts = broken.map((ledger) => ledger.problem);
  if (waiting.length) texts.push(`waiting for ${waiting.map((ledger) => ledger.path).join(", ")}`);
  if (written) texts.push(isFresh(written) ? "● live" : "○ no new rows");
  announce(texts.join(" · "), written ? `, last write ${ago(old)}` : "");
}

function announce(text, since = "") {
  if (state.textContent !== visible(text)) state.textContent = visible(text);
  age.textContent = since;
}

async function beat() {
  if (!document.hidden) {
    try {
      const keys = (shown.view?.keys() ?? []).map((key) => `run=${encodeURIComponent(key)}`);
      const before = pulse;
      pulse = await get(`/api/pulse?${keys.join("&")}`);
      tell();
      const back = before?.lost || (before && before.runs.length === 0 && pulse.runs.length > 0);
      if (back && !shown.view) await follow();
      else await shown.view?.beat(pulse);
    } catch (error) {
      announce(error.message);
      pulse = { ledgers: [], runs: [], stamps: {}, lost: true };
    }
  }
  setTimeout(beat, PULSE_MS);
}

function theme() {
  const button = document.getElementById("theme");
  const modes = ["auto", "light", "dark"];
  const set = (mode) => {
    document.documentElement.dataset.theme = mode;
    button.textContent = `◐ ${mode}`;
    button.setAttribute("aria-label", `Theme: ${mode}`);
  };
  let mode = localStorage.getItem("theme");
  if (!modes.includes(mode)) mode = "auto";
  set(mode);
  button.addEventListener("click", () => {
    mode = modes[(modes.indexOf(mode) + 1) % modes.length];
    localStorage.setItem("theme", mode);
    set(mode);
  });
}

theme();
addEventListener("hashchange", follow);
addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    hideTip();
    shown.view?.escape();
  }
});
await follow();
beat();
