/** Side by side: two to four models, temperatures or seeds on one prompt, in step. */

import { events } from "./api.js";
import { make, surpriseColour } from "./dom.js";
import { models, state } from "./state.js";

const MAX_COLUMNS = 4;
let box;
let attempt;
let running = null;

export function setUp(element, attemptTo) {
  box = element;
  attempt = attemptTo;
}

export function refresh() {
  if (box.hidden || box.childElementCount || !models.size) return;
  const columns = make("div.two", {});
  const prompt = make("input", { ".value": "ROMEO:\n".trimEnd(), size: 30, spellcheck: "false" });
  const count = make("input", { type: "number", min: 1, max: 5000, ".value": 300 });
  const add = make("button", { type: "button", onclick: () => addColumn(columns, add) }, "Add a column");
  const start = make("button.primary", { type: "button", onclick: attempt(() => run(columns, prompt.value, Number(count.value), start)) }, "Go");
  box.replaceChildren(
    make("p", {}, "The same prompt for several models, temperatures or seeds. All columns write in step: a fast model waits for a slow one."),
    make("div.bar", {}, make("label.field", {}, "Prompt ", prompt), make("label.field", {}, "Characters ", count), start,
      make("button", { type: "button", onclick: () => running?.abort() }, "Stop"), add),
    columns,
  );
  const gated = models.has("shakespeare") ? "shakespeare" : state.model;
  addColumn(columns, add, models.has("elman-128") ? "elman-128" : state.model);
  addColumn(columns, add, gated);
}

function addColumn(columns, add, name = state.model) {
  const names = [...models].filter(([, model]) => !model.labels.length).map(([model]) => model);
  const card = make("section.card", { "aria-label": `Column ${columns.childElementCount + 1}` },
    make("div.bar", {},
      make("label.field", {}, "Model ", make("select", { class: "model" }, ...names.map((model) => make("option", { value: model, selected: model === name }, model)))),
      make("label.field", {}, "T ", make("input", { class: "temperature", type: "number", min: 0, max: 5, step: 0.05, ".value": state.temperature })),
      make("label.field", {}, "Seed ", make("input", { class: "seed", type: "number", min: 0, ".value": 7 })),
      make("button.icon", { type: "button", "aria-label": "Remove this column", onclick: () => { card.remove(); add.disabled = false; } }, "✕")),
    make("div.text", { tabindex: 0, role: "group", "aria-label": "Text of this column" }),
    make("p.quiet.mean", {}, ""),
  );
  columns.append(card);
  add.disabled = columns.childElementCount >= MAX_COLUMNS;
}

async function run(columns, prompt, maxChars, start) {
  if (running) return;
  running = new AbortController();
  start.disabled = true;
  try {
    const writers = [...columns.children].map((card) => ({ card, source: characters(card, prompt, maxChars, running.signal), nats: [] }));
    for (const { card } of writers) card.querySelector(".text").replaceChildren(make("b", {}, prompt));
    let left = writers;
    while (left.length) {
      const steps = await Promise.all(left.map((writer) => writer.source.next()));
      left = left.filter((writer, index) => !steps[index].done && show(writer, steps[index].value));
    }
  } finally {
    running.abort();
    running = null;
    start.disabled = false;
  }
}

function show({ card, nats }, { c, surprise }) {
  const span = make("i", {}, c);
  span.style.backgroundColor = surpriseColour(surprise);
  const box = card.querySelector(".text");
  box.append(span);
  box.scrollTop = box.scrollHeight;
  nats.push(surprise);
  card.querySelector(".mean").textContent = `${nats.length} characters, ${(nats.reduce((a, b) => a + b, 0) / nats.length).toFixed(2)} nats each`;
  return true;
}

async function* characters(card, prompt, maxChars, signal) {
  const value = (name) => card.querySelector(`.${name}`).value;
  const body = { model: value("model"), prompt, max_tokens: maxChars, temperature: Number(value("temperature")), seed: Number(value("seed")), stream: true, logprobs: 0 };
  for await (const { value: event } of events("POST", "/v1/completions", body, { signal })) {
    const choice = event.choices[0];
    const all = [...(choice?.text ?? "")];
    for (const [index, c] of all.entries()) yield { c, surprise: -(choice.logprobs?.token_logprobs[index] ?? 0) };
  }
}
