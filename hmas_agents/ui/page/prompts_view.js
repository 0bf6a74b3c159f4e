// What is the model told, and what if it were told something else? Versions, an editor, labels.

import { get, post } from "./api.js";
import { block, el, name, option, refill, visible } from "./dom.js";
import { count } from "./format.js";

const PAUSE_MS = 350;

// "policy/1" -> text, while it differs from the version; outlives a look at another view.
const drafts = new Map();
let last = []; // the prompt and version that were shown last: the way back to them
addEventListener("beforeunload", (event) => drafts.size && event.preventDefault());

export class PromptsView {
  constructor(main) {
    this.nav = el("nav", { class: "versions panel", "aria-label": "Prompt versions" });
    this.title = el("h2", {});
    this.text = el("textarea", { id: "prompt", spellcheck: "false", rows: "30", on: { input: () => this.changed() } });
    this.save = el("button", { type: "button", class: "primary", on: { click: () => this.publish() } }, "Save as a new version");
    this.undo = el("button", { type: "button", on: { click: () => this.revert() } }, "Undo edits");
    this.told = el("p", { class: "told", role: "status" });
    this.labels = el("div", { class: "bar labels" });
    this.check = el("section", { class: "panel check", "aria-label": "Check" });
    const editor = el(
      "section",
      { class: "panel editor", "aria-label": "Editor" },
      el("div", { class: "bar" }, this.title, el("span", { class: "end" }, this.undo, this.save)),
      el("label", { for: "prompt", class: "muted" }, "A version never changes: what you edit here becomes the next one."),
      this.text,
      this.told,
      this.labels,
    );
    main.replaceChildren(this.nav, editor, this.check);
  }

  async show(asked) {
    const [prompt, version] = asked[0] ? asked : last;
    await this.list();
    const wanted = this.prompts.find((p) => p.name === prompt) ?? this.prompts[0];
    if (!wanted) return void refill(this.nav, el("p", { class: "muted" }, "There are no prompts."));
    const current = wanted.versions.find((v) => v.labels.includes("current")) ?? wanted.versions.at(-1);
    const number = Number(version) || current.version;
    this.shown = await get(`/api/prompts/${encodeURIComponent(wanted.name)}/${number}`);
    last = [wanted.name, number];
    this.text.value = drafts.get(this.key()) ?? this.shown.text;
    this.told.textContent = this.notice ?? "";
    this.notice = null;
    document.title = "prompts · H-MAS";
    this.draw();
    await this.inspect();
  }

  key() {
    return `${this.shown.name}/${this.shown.version}`;
  }

  async list() {
    ({ prompts: this.prompts, labels: this.known } = await get("/api/prompts"));
  }

  draw() {
    const { name: prompt, version } = this.shown;
    const items = this.prompts.flatMap((p) =>
      p.versions.map((v) => {
        const here = p.name === prompt && v.version === version;
        const href = `#/prompts/${encodeURIComponent(p.name)}/${v.version}`;
        return el(
          "li",
          {},
          el("a", { href, "aria-current": here && "page", "data-key": href }, name(`${p.name} v${v.version}`), v.labels.map((label) => el("span", { class: "tag" }, name(label))), drafts.has(`${p.name}/${v.version}`) && " ✎"),
          v.problem ? el("small", { class: "bad" }, "✕ ", name(v.problem)) : el("small", { class: "muted" }, name(v.description)),
        );
      }),
    );
    refill(this.nav, el("h2", {}, "Versions"), el("ul", {}, items));
    refill(this.title, name(`${prompt} v${version}`));
    const select = el("select", { "data-key": "label", "aria-label": "label" }, this.known.map((label) => option(label, label, label === "candidate")));
    refill(
      this.labels,
      el("span", {}, "Label this version ", select),
      el("button", { type: "button", "data-key": "set", on: { click: () => this.setLabel(select.value) } }, "Set label"),
      el("small", { class: "muted" }, "A running controller asks with ", el("code", {}, "current"), " from its next decision on."),
    );
    this.state();
  }

  state() {
    const edited = this.text.value !== this.shown.text;
    this.undo.disabled = !edited;
    this.save.disabled = !edited || Boolean(this.problems?.length);
  }

  changed() {
    if (this.text.value === this.shown.text) drafts.delete(this.key());
    else drafts.set(this.key(), this.text.value);
    this.state();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.inspect(), PAUSE_MS);
  }

  async inspect() {
    const text = this.text.value;
    let found;
    try {
      found = await post(`/api/prompts/${encodeURIComponent(this.shown.name)}/check`, { text });
    } catch (error) {
      found = { problems: [error.message], messages: [], tokens: 0, diff: "", against: "" };
    }
    if (text !== this.text.value) return; // typed on meanwhile
    this.problems = found.problems;
    const sample = found.messages.map((m) => [el("h4", {}, name(m.role)), block(m.content, `Sample, ${m.role}`)]);
    refill(
      this.check,
      el("h2", {}, "Check"),
      found.problems.length
        ? el("ul", { class: "faults", role: "alert" }, found.problems.map((problem) => el("li", {}, "✕ ", name(problem))))
        : el("p", { class: "good" }, visible(`✓ holds together: ${size(found)}`)),
      found.against && el("h3", {}, `Against ${found.against} (current)`),
      found.against && (found.diff ? diffBlock(found.diff) : el("p", { class: "muted" }, "No difference.")),
      sample.length > 0 && el("details", { open: this.sampleOpen, on: { toggle: (e) => (this.sampleOpen = e.target.open) } }, el("summary", { "data-key": "sample" }, "As the model would get it"), sample),
    );
    this.state();
  }

  async publish() {
    await this.write(async () => {
      const prompt = this.shown.name;
      const { version } = await post(`/api/prompts/${encodeURIComponent(prompt)}/versions`, { text: this.text.value });
      drafts.delete(this.key());
      this.notice = `✓ Saved as ${prompt} v${version}. Label it to use it.`;
      location.hash = `#/prompts/${encodeURIComponent(prompt)}/${version}`;
    });
  }

  async setLabel(label) {
    await this.write(async () => {
      const { name: prompt, version } = this.shown;
      await post(`/api/prompts/${encodeURIComponent(prompt)}/labels`, { label, version });
      await this.list();
      this.draw();
      await this.inspect();
      this.told.textContent = `✓ ${label} now means v${version}.`;
    });
  }

  async write(work) {
    try {
      await work();
    } catch (error) {
      this.told.textContent = visible(`✕ ${error.message}`);
    }
  }

  revert() {
    this.text.value = this.shown.text;
    this.changed();
    this.text.focus();
  }

  keys() {
    return [];
  }

  async beat() {}

  escape() {}

  close() {
    clearTimeout(this.timer);
  }
}

const size = (found) => `${count(found.tokens, "token")} in a built-in situation (by ${found.counted_by})`;

// A unified diff; the sign at the head of a line says it, the colour repeats it.
function diffBlock(text) {
  const kind = { "+": "added", "-": "removed", "@": "place" };
  const lines = text.trimEnd().split("\n").map((line, i) => el("span", { class: i < 2 ? "place" : (kind[line[0]] ?? "") }, visible(line), "\n"));
  return el("pre", { class: "diff", tabindex: "0", role: "region", "aria-label": "Difference", dir: "auto" }, lines);
}
