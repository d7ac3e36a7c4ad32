/** Programs: a network that counts. Its cells along a line of n a's and n b's, and how far it counts. */

import { events, post } from "../api.js";
import { chart } from "../chart.js";
import { fill, make } from "../dom.js";
import { floats } from "../floats.js";
import { models } from "../state.js";
import { strip } from "./strip.js";

const MOST = 48; // the largest n
const BATCH = 16;
const COLOURS = ["h", "wxh", "whh", "b", "why"];

let box;
let attempt;
let model = "";
let n = 8;
let line; // where the line of n is shown
let reach; // where the scan is shown
let counted = null; // { model, points: [[n, b's written]] }

export function setUp(element, attemptTo) {
  box = element;
  attempt = attemptTo;
}

/** Models of a's, b's and line breaks. */
const counters = () => [...models].filter(([, each]) => !each.byte_level && [...each.vocabulary].sort().join("") === "\nab").map(([name]) => name);

/** Show the line of n; the tour does. */
export function open(size) {
  n = size;
  refresh(true);
}

let key = "";

export function refresh(isForced) {
  if (box.hidden || !models.size) return;
  const names = counters();
  const now = `${names} ${document.documentElement.dataset.theme}`;
  if (now === key && isForced !== true) return;
  key = now;
  if (!names.length) {
    fill(box, make("div.empty", {}, make("p", {}, "No model of this server reads a's and b's. The one of the lesson comes with this page: ", make("code", {}, "python -m elman_web.lesson models"), " writes it, and ", make("code", {}, "elman-server --models models"), " serves it.")));
    return;
  }
  if (!names.includes(model)) model = names[0];
  line = make("div", {});
  reach = make("div", {});
  const shown = make("output", {}, `n = ${n}`);
  const size = make("input", { id: "program-n", type: "range", min: 1, max: MOST, ".value": n, "aria-label": "n, the number of a's", oninput: () => { n = Number(size.value); shown.textContent = `n = ${n}`; }, onchange: attempt(showLine) });
  fill(box,
    make("p", {}, "A program: read n a's, then write as many b's, then end the line. The network has four LSTM units and saw lines of up to ten a's. Nobody taught it to count; without counting it cannot know where a line ends."),
    make("div.bar", {}, names.length > 1 ? make("label.field", {}, "Network ", make("select", { onchange: ({ target }) => { model = target.value; counted = null; refresh(true); } }, ...names.map((name) => make("option", { selected: name === model }, name)))) : null,
      make("label.field.grow", {}, "n ", size, shown)),
    line,
    make("div.bar", {}, make("button.primary", { type: "button", onclick: attempt(count) }, `How far does it count? Try n = 1 to ${MOST}`)), reach);
  attempt(showLine)();
  if (counted?.model === model) showReach();
}

async function showLine() {
  const size = n;
  const text = `\n${"a".repeat(size)}${"b".repeat(size)}\n`;
  const [{ logprobs }, cells] = await Promise.all([post("/v1/score", { model, text, logprobs: 3 }), cellsOf(text)]);
  if (size !== n) return;
  const characters = [...text];
  const ends = characters.map((_, index) => (index ? Math.exp(logprobs.top_logprobs[index]?.["\n"] ?? -99) : null));
  const isEarly = ends.slice(size + 2, -1).some((p) => p > 0.5);
  const says = isEarly ? "too early: it miscounts here" : ends.at(-1) > 0.5 ? `after exactly ${size} b's` : "too late: it miscounts here";
  const counter = best(cells, characters);
  if (counter.isDown) cells[counter.unit] = cells[counter.unit].map((value) => -value);
  const flat = cells.flat();
  fill(line,
    make("h3", { role: "status" }, `n = ${size}: the line should end ${says}.`),
    strip(characters, cells.map((values, unit) => ({ name: unit === counter.unit ? `the counter, ${counter.isDown ? "−" : ""}c[${unit}]` : `c[${unit}]`, colour: unit === counter.unit ? "x" : COLOURS[unit % COLOURS.length], values, isThin: unit !== counter.unit })),
      { low: Math.floor(Math.min(...flat)), high: Math.ceil(Math.max(...flat)), name: "The cells of the network" }),
    size > 1 ? make("p.quiet", {}, steps(cells[counter.unit], size)) : null,
    strip(characters, [{ name: "probability that the line ends with this character", colour: "y", values: ends }], { low: 0, high: 1, name: "The end of the line" }));
}

/** What the counter gains with each a after the first, and loses with each b after the first. */
function steps(values, size) {
  const mean = (from, to) => ((values[to] - values[from]) / (to - from)).toFixed(3).replace("-", "−");
  return `Each a adds ${mean(1, size)} to the counter, each b adds ${mean(size + 1, 2 * size)}.`;
}

/** The cell state after each character, one list for each unit; of networks without cells, h. */
async function cellsOf(text) {
  const { cell, hidden_size: size } = models.get(model);
  const found = Array.from({ length: size }, () => []);
  for await (const { value } of events("POST", "/v1/inspect/watch", { model, text, units: [{ signal: cell === "LSTM" ? "C" : "H", layer: 0 }] })) {
    floats(value.values[0].data).forEach((number, index) => found[index % size].push(number));
  }
  return found;
}

/** The unit that follows the number of a's that are still to be answered best; `isDown`: its sign is the other one. */
function best(cells, characters) {
  let open = 0;
  const wanted = characters.map((c) => (open += { a: 1, b: -1 }[c] ?? 0));
  const found = cells.map((values) => correlation(values, wanted));
  const sizes = found.map(Math.abs);
  const unit = sizes.indexOf(Math.max(...sizes));
  return { unit, isDown: found[unit] < 0 };
}

function correlation(xs, ys) {
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  const [mx, my] = [mean(xs), mean(ys)];
  const products = (a, ma, b, mb) => a.reduce((sum, value, index) => sum + (value - ma) * (b[index] - mb), 0);
  return products(xs, mx, ys, my) / (Math.sqrt(products(xs, mx, xs, mx) * products(ys, my, ys, my)) || 1);
}

/** Let it answer every n: the likeliest character after n a's, again and again, with a's forbidden, until it ends the line. */
async function count() {
  const points = [];
  for (let from = 1; from <= MOST; from += BATCH) {
    const sizes = Array.from({ length: BATCH }, (_, index) => from + index);
    const { choices } = await post("/v1/completions", { model, prompt: sizes.map((size) => `\n${"a".repeat(size)}`), max_tokens: 2 * MOST, temperature: 0, logit_bias: { a: -100 }, stop: "\n" });
    points.push(...choices.map((choice) => [sizes[choice.index], choice.text.length]));
    counted = { model, points };
    showReach();
  }
}

function showReach() {
  const { points } = counted;
  const wrong = points.filter(([size, written]) => size !== written);
  const said = wrong.length ? `It counts right up to ${wrong[0][0] - 1}. After ${wrong[0][0]} a's it writes ${wrong[0][1]} b's.` : `It counts right up to ${points.length}.`;
  fill(reach, make("h3", { role: "status" }, said), make("div.scroll", { tabindex: 0, role: "region", "aria-label": "How far it counts" }, chart(
    [{ name: "b's that it writes", points }, { name: "as many as a's", points: points.map(([size]) => [size, size]) }], { x: "a's that it read", y: "b's" })),
    make("p.quiet", {}, "It was trained up to ten. What an a adds and what a b takes away differ a little: after many of them the counter is off by too much."));
}
