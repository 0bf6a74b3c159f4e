// What matters now, in an operator's words? Understood, previewed, approved; and what is in force.

import { get, post } from "./api.js";
import { el, name, refill, visible } from "./dom.js";
import { count, number, percent } from "./format.js";

const BEATS = 15; // between two looks: attainment is counted over all requests of the ledger

let draft = ""; // outlives a look at another view

export class WordsView {
  constructor(main) {
    this.beats = 0;
    this.asked = el("section", { tabindex: "-1", "aria-label": "Understood" });
    this.notice = el("p", { class: "told", role: "status" });
    this.list = el("section", { class: "panel", "aria-label": "In force" });
    const words = this.box("words", "What is about to happen, who comes first, what can wait. Nothing changes before you apply it.", draft, "See what it means", (text) =>
      this.ask("/api/tell", { text }),
    );
    const dialogue = el("section", { class: "panel dialogue", "aria-label": "Say what matters" }, el("h2", {}, "Say what matters"), words, this.notice, this.asked);
    this.all = el("fieldset", {}, dialogue, this.list); // disabled while the server works
    main.replaceChildren(this.all);
    main.querySelector("#words").addEventListener("input", (event) => (draft = event.target.value));
  }

  async show() {
    document.title = "words · H-MAS";
    await this.look();
  }

  async look() {
    const { told, engine, problem } = await get("/api/told");
    refill(
      this.list,
      el("h2", {}, "In force or to come"),
      el("p", { class: "muted" }, problem ? name(problem) : ["For the engine at ", name(engine), ", by a controller beside it (", el("code", {}, "hmas run"), ")."]),
      told.length ? el("ul", {}, told.map((each) => this.row(each))) : !problem && el("p", {}, "Nothing is in force by words."),
    );
    this.all.disabled = Boolean(problem);
  }

  row(told) {
    const waits = told.state === "waiting";
    return el(
      "li",
      {},
      el("p", {}, el("b", {}, `${told.id} `), name(told.text)),
      el("p", { class: "muted" }, visible(`${told.at}, told by ${told.by}: ${waits ? "waits for an answer" : told.state}`)),
      told.lines.map((line) => el("p", {}, name(line))),
      el(
        "div",
        { class: "bar" },
        waits && this.button(`on-${told.id}`, "Go on", () => this.ask(`/api/tell/${told.id}`, {})),
        this.button(`back-${told.id}`, "Take back", () => this.takeBack(told.id)),
      ),
    );
  }

  button(key, text, click, cls = "") {
    return el("button", { type: "button", class: cls, "data-key": key, on: { click } }, text);
  }

  // A text and the button that sends it.
  box(id, label, text, title, send) {
    const area = el("textarea", { id, rows: "3", value: text });
    return [el("label", { for: id, class: "muted" }, label), area, el("div", { class: "bar" }, this.button(`send-${id}`, title, () => send(area.value), "primary"))];
  }

  // One step of the dialogue; while the server works at it, nothing else can be said.
  async ask(path, body) {
    await this.write(async () => {
      const said = await post(path, body);
      if (path === "/api/tell") this.forget();
      this.draw(said);
      this.asked.focus();
      return said.waits_for ? "" : ended(said);
    });
  }

  forget() {
    draft = "";
    this.all.querySelector("#words").value = "";
  }

  async takeBack(told) {
    await this.write(async () => {
      await post(`/api/told/${told}/untell`, {});
      if (this.told === told) refill(this.asked);
      return `✓ ${told} is taken back.`;
    });
  }

  async write(work) {
    this.notice.textContent = "Working on it…";
    this.all.disabled = true;
    let problem = "";
    try {
      this.notice.textContent = visible(await work());
    } catch (error) {
      problem = visible(`✕ ${error.message}`);
    }
    try {
      await this.look();
    } catch (error) {
      problem ||= visible(`✕ ${error.message}`);
      this.all.disabled = false;
    }
    if (problem) this.notice.textContent = problem;
  }

  draw(said) {
    this.told = said.told;
    const path = `/api/tell/${said.told}`;
    if (said.waits_for === "words") {
      refill(
        this.asked,
        el("h3", {}, "Asked back"),
        el("p", {}, name(said.question)),
        this.box("again", "Say it in other words", said.text, "See what it means", (text) => this.ask(path, { text })),
      );
      return;
    }
    const { changes } = said; // what is shown is what is approved
    const answers = el(
      "div",
      { class: "bar" },
      this.button("apply", "Apply", () => this.ask(path, { answer: "y", changes }), "primary"),
      this.button("decline", "Decline", () => this.ask(path, { answer: "n", changes })),
      this.button("edit", "Edit", () => {
        answers.replaceWith(el("div", {}, this.box("again", "Say it in other words", said.text, "See what it means", (text) => this.ask(path, { answer: "edit", text }))));
        this.asked.querySelector("#again").focus();
      }),
    );
    refill(
      this.asked,
      said.understood.length > 0 && [el("h3", {}, "Understood"), table(["what", "whose", "how much", "when"], said.understood)],
      said.forecast?.shares && preview(said.forecast),
      said.forecast?.why_not && el("p", {}, "No preview: ", name(said.forecast.why_not)),
      said.waits_for === "approval" && answers,
    );
  }

  keys() {
    return [];
  }

  async beat() {
    this.beats += 1;
    if (this.beats % BEATS === 0 && !this.all.disabled) await this.look();
  }

  escape() {}

  close() {}
}

// What came of it, in one line; the list beside says more.
function ended(said) {
  if (said.state !== "approved") return `Nothing was changed: ${said.state} ${said.note}`.trimEnd();
  const waits = (said.outcome ?? []).some((each) => !each.state);
  return `✓ Number ${said.told} is approved${waits ? ", but no controller has taken it up yet: start hmas run" : "."}`;
}

function preview(forecast) {
  const { futures, horizon_s: horizonS, policy, shares, notes } = forecast;
  const rows = shares.map((each) => [each.name, percent(each.now), percent(each.then), `±${(100 * each.chance).toFixed(1)}`]);
  return [
    el("h3", {}, "Preview"),
    el("p", { class: "muted" }, visible(`Attainment by the twin, over ${count(futures, "future")} of the next ${number(horizonS)} s as if all of it began now; ${policy} stays.`)),
    table(["of", "now", "then", "error"], rows),
    notes.map((note) => el("p", {}, name(note))),
  ];
}

function table(titles, rows) {
  return el(
    "table",
    { class: "plain" },
    el("thead", {}, el("tr", {}, titles.map((title) => el("th", { scope: "col" }, title)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell) => el("td", {}, name(cell)))))),
  );
}
