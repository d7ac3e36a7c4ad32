/** Programs: a network that counts. Its lines are n a's and n b's; its loss and its counter cell, character by character. */

import { DoorError, events, post } from "./api.js";
import { chart } from "./chart.js";
import { make, visible } from "./dom.js";
import { models } from "./state.js";
import { floats } from "./floats.js";

let box;
let attempt;

export function setUp(element, attemptTo) {
  box = element;
  attempt = attemptTo;
}

const counters = () => [...models].filter(([, model]) => !model.byte_level && [...model.vocabulary].sort().join("") === "\nab").map(([name]) => name);

export function refresh() {
  if (box.hidden || !models.size) return;
  const names = counters();
  const key = names.join();
  if (box.dataset.shown === key && box.childElementCount) return;
  box.dataset.shown = key;
  if (!names.length) {
    box.replaceChildren(make("div.empty", {}, make("p", {}, "No model here has learned aⁿbⁿ. One command trains a network of four units that counts, and starts a server that has it, beside the bundled models:"), make("pre", {}, "make lab")));
    return;
  }
  const model = make("select", { "aria-label": "Model" }, ...names.map((name) => make("option", {}, name)));
  const size = make("input", { type: "range", min: 1, max: 40, ".value": 8, "aria-label": "n, how many a's" });
  const shown = make("output", {}, "n = 8");
  const result = make("div", { "aria-live": "polite" });
  const show = attempt(() => run(model.value, Number(size.value), result));
  size.addEventListener("input", () => (shown.textContent = `n = ${size.value}`));
  size.addEventListener("change", show);
  model.addEventListener("change", show);
  box.replaceChildren(
    make("p", {}, "It was trained on lines of up to ten a's and as many b's. Nobody taught it to count; without counting it cannot know where a line ends. Move n past ten and see where it fails."),
    make("div.bar", {}, make("label.field", {}, "Model ", model), make("label.field.grow", {}, "n ", size, shown)), result);
  show();
}

async function run(model, n, result) {
  const text = `\n${"a".repeat(n)}${"b".repeat(n)}\n`;
  const { logprobs } = await post("/v1/score", { model, text, logprobs: 3 });
  const marks = [...text].map((c, index) => [index, visible(c)]).filter((_, index) => n < 26 || index % 2 === 0);
  const end = logprobs.top_logprobs.map((top, index) => [index, Math.exp(top?.["\n"] ?? -99)]).slice(1);
  const isRight = end.slice(0, -1).every(([index, p]) => index <= n || p < 0.5) && end.at(-1)[1] > 0.5;
  result.replaceChildren(
    make("h3", {}, isRight ? `It ends the line where it should, after ${n} b's.` : `It fails at n = ${n}.`),
    chart([{ name: "probability that the line ends here", points: end }], { x: "", y: "probability", low: 0, high: 1, marks }),
  );
  try {
    const lines = await cells(model, text);
    result.append(make("h3", {}, "Its memory: a counter rises with every a and falls with every b"), chart(lines, { x: "", y: "value", low: Math.min(...lines.flatMap((line) => line.points.map((point) => point[1]))), marks }));
  } catch (error) {
    if (!(error instanceof DoorError)) throw error;
    result.append(make("p.quiet", {}, `Its memory cannot be shown: ${error.message}`));
  }
}

async function cells(model, text) {
  const { cell, hidden_size: size } = models.get(model);
  const signal = cell === "LSTM" ? "C" : "H";
  const lines = Array.from({ length: size }, (_, unit) => ({ name: `${signal.toLowerCase()}[${unit}]`, points: [] }));
  for await (const { value } of events("POST", "/v1/inspect/watch", { model, text, units: [{ signal, layer: 0 }] })) {
    const values = floats(value.values[0].data);
    [...value.text].forEach((_, row) => lines.forEach((line, unit) => line.points.push([value.start + row, values[row * size + unit]])));
  }
  return lines;
}
