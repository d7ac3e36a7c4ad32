/** Meaning: what read-outs say of a text, character by character; and models that answer with labels. */

import { post } from "./api.js";
import { chart } from "./chart.js";
import { make, quietly, visible } from "./dom.js";
import { models } from "./state.js";

const EXAMPLES = { sentiment: "The movie was terrible, no, terribly good!", quotes: 'He said "no" and left.', tags: "The cat sat on the mat." };
let box;
let attempt;

export function setUp(element, attemptTo) {
  box = element;
  attempt = attemptTo;
}

/** Everything that labels text: read-outs of models, and models whose output is labels. */
function sources() {
  return [...models].flatMap(([name, model]) => [
    ...(model.labels.length ? [{ model: name, readOut: null, labels: model.labels, said: name }] : []),
    ...model.read_outs.map((readOut) => ({ model: name, readOut: readOut.name, labels: readOut.labels, said: `${name}: ${readOut.name}, right for ${(100 * readOut.accuracy).toFixed(0)} % of held-out characters` })),
  ]);
}

export function refresh() {
  if (box.hidden || !models.size) return;
  const found = sources();
  const key = JSON.stringify(found);
  if (box.dataset.shown === key) return;
  box.dataset.shown = key;
  if (!found.length) {
    box.replaceChildren(make("div.empty", {}, make("p", {}, "No model here has a read-out. One command trains one in half a minute and starts a server that has it, beside the bundled models:"), make("pre", {}, "make lab")));
    return;
  }
  const source = make("select", {}, ...found.map((each, index) => make("option", { value: index }, each.said)));
  const text = make("input", { class: "grow", size: 50, spellcheck: "false", "aria-label": "Text to read" });
  const result = make("div", { "aria-live": "polite" });
  const show = quietly(150, attempt(() => label(found[source.value], text.value, result)));
  const begin = () => {
    const { model, readOut } = found[source.value];
    text.value = EXAMPLES[readOut ?? model] ?? EXAMPLES[Object.keys(EXAMPLES).find((name) => (readOut ?? model).includes(name))] ?? "The movie was good.";
    show();
  };
  source.addEventListener("change", begin);
  text.addEventListener("input", show);
  box.replaceChildren(make("p", {}, "Type: after every character the state is read out. The line shows how the meaning moves as the text is read."), make("div.bar", {}, make("label.field", {}, "Read-out ", source), text), result);
  begin();
}

async function label(source, text, result) {
  if (!text) {
    result.replaceChildren();
    return;
  }
  const scored = await post("/v1/score", { model: source.model, text, ...(source.readOut ? { read_out: source.readOut } : {}) });
  const rows = scored.labels ?? scored.logprobs.top_logprobs;
  const characters = [...text];
  const lines = source.labels.map((name) => ({ name, points: rows.map((row, index) => [index, Math.exp(row[name] ?? -99)]) }));
  const last = rows.at(-1);
  const best = source.labels.reduce((a, b) => ((last[a] ?? -99) >= (last[b] ?? -99) ? a : b));
  const every = Math.ceil(characters.length / 60);
  result.replaceChildren(
    chart(lines, { x: "", y: "probability", low: 0, high: 1, marks: characters.flatMap((c, index) => (index % every ? [] : [[index, visible(c)]])) }),
    make("p", {}, "After the last character: ", make("strong", {}, best), ` with ${(100 * Math.exp(last[best])).toFixed(1)} %. A read-out means nothing where it was not trained, such as within a word.`),
  );
}
