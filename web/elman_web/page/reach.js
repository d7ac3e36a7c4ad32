/** How far it remembers: the loss of one character with more and more of the text before it. */

import { post } from "./api.js";
import { make, visible } from "./dom.js";
import { chart } from "./chart.js";
import { charAt, emit, models, set, state, text } from "./state.js";
import { paint } from "./text.js";

const MAX_CONTEXT = 96;
const BATCH = 16; // prompts of one request
let box;
let attempt;
let result;

export function setUp(element, attemptTo) {
  box = element;
  attempt = attemptTo;
}

export function refresh() {
  if (box.hidden) return;
  const position = state.at ?? text.end - 1;
  const char = charAt(position);
  const ready = char && position > text.start;
  const choices = [...models].filter(([, model]) => !model.labels.length && !model.byte_level).map(([name]) =>
    make("label.field", {}, make("input", { type: "checkbox", value: name, ".checked": name === state.model }), name));
  result ??= make("div", {});
  box.replaceChildren(
    make("p", {}, "Choose a character. The page measures how likely it is when the network has read only the last 1, 2, 3 … characters before it. Where the curve falls, a character that far back still helps."),
    make("div.bar", {}, ...choices,
      make("button.primary", { type: "button", disabled: !ready, onclick: attempt(measure) }, ready ? `Measure ${visible(char.c)} at position ${position}` : "Choose a character first")),
    result,
  );
}

async function measure() {
  const position = state.at ?? text.end - 1;
  const chosen = [...box.querySelectorAll("input:checked")].map((input) => input.value);
  const before = text.chars.slice(Math.max(0, position - text.start - MAX_CONTEXT), position - text.start).map((char) => char.c);
  const target = charAt(position).c;
  const lines = [];
  for (const model of chosen) lines.push({ name: model, values: await losses(model, before, target) });
  const own = lines.find((line) => line.name === state.model) ?? lines[0];
  if (!own) return;
  paintText(own.values, position);
  result.replaceChildren(
    make("h3", {}, `Loss of ${visible(target)} at position ${position}, in nats, by the number of characters read before it`),
    chart(lines.map(({ name, values }) => ({ name, points: values.map((value, index) => [index + 1, value]) })), { x: "characters read before it", y: "nats" }),
    make("p.quiet", {}, "The text is coloured too: orange characters would be missed (the loss rises without them), blue ones mislead. How far a model remembers is where its curve becomes flat: plain networks lose a character after some ten others, gated ones keep it for a line and more."),
  );
}

/** The loss of a character after the last 1, 2, 3 … of the characters before it. */
async function losses(model, before, target) {
  const prompts = before.map((_, index) => before.slice(before.length - 1 - index).join("") + target);
  const found = [];
  for (let from = 0; from < prompts.length; from += BATCH) {
    const answer = await post("/v1/completions", { model, prompt: prompts.slice(from, from + BATCH), echo: true, max_tokens: 0, logprobs: 0 });
    found.push(...answer.choices.map((choice) => -choice.logprobs.token_logprobs.at(-1)));
  }
  return found;
}

function paintText(values, position) {
  paint.start = position - values.length;
  paint.values = values.map((value, index) => (index ? (values[index - 1] - value) : 0)).reverse();
  paint.marks.clear();
  paint.marks.set(position, "near");
  set({ colour: "memory" });
  emit("paint");
}
