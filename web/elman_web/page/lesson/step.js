/** One step, worked: every term of the equations as coloured cells, played forwards and backwards through a word. */

import { fill, make, visible } from "../dom.js";
import { models, on, set, state, text } from "../state.js";
import { block, column, number, sign, symbol, tile } from "./cells.js";
import * as networks from "./networks.js";

const LAST = 4; // phase of a step: 0 x; 1 W_hh h; 2 the sum and tanh; 3 y; 4 softmax
const PLAY_MS = 900;
const NUM_BEFORE = 12; // characters before the chosen one
const SLIDER = { x: "x", W_xh: "wxh", W_hh: "whh", W_hy: "why" };
const GATES = { H: "h′", RESET: "r", UPDATE: "z", CANDIDATE: "n", INPUT: "i", FORGET: "f", CELL: "g", OUTPUT: "o" };
const SQUASHED = new Set(["H", "CANDIDATE", "CELL"]); // by tanh; the others by a sigmoid

let box;
let attempt;
let kind = "hello"; // "two", "hello", "session" or the name of a model
let said = "hello";
let weights = networks.byHand();
let network = null;
let place = { index: 0, phase: LAST };
let timer = 0;
let shown = { index: -1 };
let stage;
let controls;

export function setUp(element, attemptTo) {
  box = element;
  attempt = attemptTo;
  on(["temperature"], () => refresh());
  on(["tab"], stop);
}

/** Show a network at a step; the tour does. */
export function open(which, { word = said, index = 0, phase = LAST } = {}) {
  kind = which;
  said = word;
  place = { index, phase };
  refresh();
}

let followed = null;

export const refresh = () => {
  if (box.hidden || !models.size) return;
  if (state.at !== null && followed !== state.at) {
    kind = "session";
    place = { index: Infinity, phase: LAST };
  }
  followed = state.at;
  if (kind === "session" && state.at === null) kind = "hello";
  if (!["two", "hello", "session"].includes(kind) && !models.has(kind)) kind = "hello";
  attempt(load)();
};

async function load() {
  stop();
  network = await build();
  place.index = Math.min(place.index, network.word.length - 1);
  shown = { index: -1 };
  lay();
  await show();
}

async function build() {
  if (kind === "two") return networks.two(weights);
  if (kind === "hello") return networks.hello();
  if (kind !== "session") return networks.served({ model: kind, word: [...said] });
  const start = Math.max(text.start, state.at - NUM_BEFORE);
  const word = text.chars.slice(start - text.start, state.at + 1 - text.start).map((char) => char.c);
  return networks.served({ model: state.model, session: state.session, word, start });
}

/** Choose another network; the word must be one that it can read. */
function change(next) {
  kind = next;
  place = { index: 0, phase: LAST };
  const vocabulary = [...(models.get(kind)?.vocabulary ?? said)];
  if (![...said].every((c) => vocabulary.includes(c))) said = vocabulary.filter((c) => c.trim()).slice(0, 5).join("");
  refresh();
}

/** The fixed parts: what to choose, the player, and where the step is shown. */
function lay() {
  const texts = [...models].filter(([, model]) => !model.byte_level);
  const choices = [["hello", "3 units reading hello"], ["two", "2 units by hand"], ...texts.map(([name]) => [name, `${name}, reading a word`]), ["session", "the chosen character of the text"]];
  const choice = make("select", { id: "step-network", onchange: ({ target }) => change(target.value) },
    ...choices.map(([value, name]) => make("option", { value, selected: value === kind, disabled: value === "session" && state.at === null }, name)));
  const word = models.has(kind) && make("label.field", {}, "Word ", make("input", { id: "step-word", ".value": said, size: 12, maxlength: 40, spellcheck: "false", onchange: ({ target }) => { said = target.value || "hello"; place = { index: Infinity, phase: LAST }; refresh(); } }));
  const range = make("input", { type: "range", min: 0, max: numFrames() - 1, "aria-label": "Where in the steps", oninput: ({ target }) => go(Number(target.value)) });
  const play = make("button.primary", { type: "button", onclick: () => (timer ? stop() : start()) }, "Play");
  const steps = make("div.steps", { role: "group", "aria-label": "What is read" }, ...network.word.map((c, index) => make("button", { type: "button", "aria-label": `Read up to ${visible(c)}, step ${index + 1}`, onclick: () => go((index + 1) * perStep() - 1) }, kind === "two" ? c : visible(c))));
  controls = { range, play, steps, says: make("p.says", { "aria-live": "polite" }) };
  stage = make("div.stage", {});
  fill(box,
    make("div.bar", {}, make("label.field", {}, "Network ", choice), word),
    make("p.equation", {}, make("span", {}, term("h", "h′"), " = tanh( ", term("wxh", "W_xh"), " ", term("x", "x"), " + ", term("whh", "W_hh"), " ", term("h", "h"), " + ", term("b", "b"), " )"), make("span", {}, term("y", "y"), " = ", term("why", "W_hy"), " ", term("h", "h′"), " + ", term("b", "b_y")), make("span", {}, "p = softmax( ", term("y", "y"), " / T )")),
    make("div.bar.player", {}, make("button", { type: "button", "aria-label": "Back", onclick: () => go(frame() - 1) }, "◀"), play, make("button", { type: "button", "aria-label": "Forward", onclick: () => go(frame() + 1) }, "▶"), steps, range),
    controls.says, stage, kind === "two" ? sliders() : null,
    make("p.quiet", {}, "A positive number has the colour of its quantity, a negative one is grey; the stronger, the larger. Point at a cell for its number."));
}

/** Networks whose matrices are shown are played phase by phase, others step by step. */
const perStep = () => (network.weights ? LAST + 1 : 1);
const numFrames = () => network.word.length * perStep();
const frame = () => place.index * perStep() + (network.weights ? place.phase : 0);

const term = (colour, name) => make(`strong.c-${colour}`, {}, name);

function start() {
  if (frame() === numFrames() - 1) go(0);
  controls.play.textContent = "Pause";
  timer = setInterval(() => (frame() < numFrames() - 1 ? attempt(move)(frame() + 1) : stop()), PLAY_MS);
}

function stop() {
  clearInterval(timer);
  timer = 0;
  if (controls) controls.play.textContent = "Play";
}

function go(next) {
  stop();
  attempt(move)(next);
}

async function move(next) {
  const bounded = Math.max(0, Math.min(numFrames() - 1, next));
  place = { index: Math.floor(bounded / perStep()), phase: network.weights ? bounded % perStep() : LAST };
  await show();
}

/** Show the frame: the terms of its character, dimmed where they come later. */
async function show() {
  const { index, phase } = place;
  const from = network;
  if (shown.index !== index) {
    const step = await from.step(index);
    if (from !== network || index !== place.index) return;
    shown = { index, step };
    fill(stage, ...(from.weights ? matrices(from, step, index) : gates(step)), step.candidates ? candidates(step) : null);
  }
  stage.querySelectorAll("[data-phase]").forEach((element) => element.classList.toggle("later", from.weights && Number(element.dataset.phase) > phase));
  controls.range.value = frame();
  [...controls.steps.children].forEach((button, at) => button.setAttribute("aria-pressed", at === index));
  controls.says.textContent = from.weights ? sentence(from, shown.step, index, phase) : `Step ${index + 1} reads ${visible(from.word[index])}. ${shown.step.gates_absent ?? ""}`;
}

function sentence({ word, inputs, outputs }, { x, h, y, p }, index, phase) {
  const best = p.indexOf(Math.max(...p));
  const reads = inputs ? `${visible(word[index])} enters as a 1 among ${x.length - 1} zeros: W_xh x is its column of W_xh` : `x is ${number(x[0])}: W_xh x is W_xh times that`;
  return `Step ${index + 1} of ${word.length}. ${[
    `${reads}.`,
    index ? "W_hh h is what the state before adds: all that was read so far comes in here." : "h is 0 before the first step, so W_hh h is 0.",
    `The terms are added, and tanh squeezes each sum into −1 to 1: h′ begins with ${number(h[0])}, ${number(h[1])}.`,
    `y = W_hy h′ + b_y has a row of W_hy for each output. ${symbol(outputs[best])} has the largest logit, ${number(y[best])}.`,
    `Softmax makes them probabilities at temperature ${state.temperature}: ${symbol(outputs[best])} has ${number(p[best])}.`,
  ][phase]}`;
}

function matrices({ weights: w, inputs, outputs }, step, index) {
  const one = inputs ? step.x.indexOf(1) : undefined;
  const isFolded = !w.b;
  const parts = [
    block("wxh", isFolded ? "W_xh + b" : "W_xh", w.W_xh, { marked: one, names: inputs }), sign("·"), column("x", "x", step.x), sign("→"), column("wxh", isFolded ? "W_xh x + b" : "W_xh x", step.fromX),
    sign("+", 1), block("whh", "W_hh", w.W_hh, { phase: 1 }), sign("·", 1), column("h", "h", step.before, { phase: 1, scale: 1 }), sign("→", 1), column("whh", "W_hh h", step.fromH, { phase: 1 }),
    ...(isFolded ? [] : [sign("+", 2), column("b", "b", w.b, { phase: 2 })]), sign("=", 2), column("gate", "sum", step.sum, { phase: 2 }), sign("tanh →", 2), column("h", "h′", step.h, { phase: 2, scale: 1 }),
  ];
  const out = [
    block("why", "W_hy", w.W_hy, { phase: 3 }), sign("·", 3), column("h", "h′", step.h, { phase: 3, scale: 1 }), sign("+", 3), column("b", "b_y", w.b_y, { phase: 3 }), sign("=", 3), column("y", "y", step.y, { phase: 3 }), sign("softmax →", 4), likeliest(outputs, step, index),
  ];
  return [make("div.sum", { role: "group", "aria-label": "The new state" }, ...parts), make("div.sum", { role: "group", "aria-label": "The output" }, ...out)];
}

function likeliest(outputs, { p }) {
  const order = p.map((_, index) => index).sort((a, b) => p[b] - p[a]).slice(0, 6);
  const list = p.length > 6 ? order : p.map((_, index) => index);
  return make("figure.block", { "data-phase": 4 }, make("figcaption.c-y", {}, "p"), make("div.p", {}, ...list.map((index) => {
    const bar = make("b");
    bar.style.width = `${100 * p[index]}%`;
    return make("div", {}, make("strong", {}, symbol(outputs[index])), make("span.meter", {}, bar, make("span", {}, p[index].toFixed(3))));
  })));
}

/** Networks with gates: a row of tiles for each gate of each layer. */
function gates(step) {
  return step.layers.map((layer) => make("details.card", { open: layer.layer === 0 },
    make("summary", {}, make("strong", {}, `Layer ${layer.layer}`), `, which reads ${layer.layer ? "h of the layer below" : visible(step.text)}`),
    ...layer.gates.map((gate) => make("div.sum", { role: "group", "aria-label": `Gate ${GATES[gate.signal]}` },
      tile("wxh", gate.bias.length ? "W_xh x" : "W_xh x + b", gate.input), sign("+"), tile("whh", gate.recurrent_bias.length ? "r (W_hh h + b)" : "W_hh h", gate.recurrent.map((value, unit) => gatedRecurrent(layer, gate, value, unit))),
      ...(gate.bias.length ? [sign("+"), tile("b", "b", gate.bias)] : []), sign("="), tile("gate", "sum", gate.pre_activation), sign(SQUASHED.has(gate.signal) ? "tanh →" : "σ →"), tile(gate.signal === "H" ? "h" : "gate", GATES[gate.signal], gate.activation, { scale: 1 }))),
    layer.gates.length > 1 || !layer.gates.length ? make("div.sum", { role: "group", "aria-label": "The state" }, ...states(layer)) : null));
}

/** Of a GRU's candidate the reset gate multiplies what comes from the state, its bias too. */
function gatedRecurrent(layer, gate, value, unit) {
  if (!gate.recurrent_bias.length) return value;
  const reset = layer.gates.find(({ signal }) => signal === "RESET");
  return reset.activation[unit] * (value + gate.recurrent_bias[unit]);
}

function states(layer) {
  const isLstm = layer.c.length;
  return [
    ...(isLstm ? [tile("h", "c before", layer.c_before), sign("f c + i g →"), tile("h", "c′", layer.c), sign("o tanh(c′) →")] : [tile("h", "h before", layer.h_before, { scale: 1 }), sign(layer.gates.length ? "(1 − z) n + z h →" : "→")]),
    tile("h", "h′", layer.h, { scale: 1 }),
  ];
}

function candidates(step) {
  const rows = step.candidates.map((each) => make("tr", {},
    make("th", { scope: "row" }, symbol(each.text)), make("td", {}, number(each.logit)), make("td", {}, each.probability.toFixed(3)),
    make("td", {}, each.contributions.length ? `${number(each.bias)} ${each.contributions.map((one) => `${one.contribution < 0 ? "−" : "+"} ${Math.abs(one.contribution).toFixed(3)} (h′[${one.unit}])`).join(" ")} + …` : "not known")));
  return make("details.card", { open: true }, make("summary", {}, "What made the likeliest ones likely"), make("div.scroll", { tabindex: 0, role: "region", "aria-label": "Candidates" }, make("table.plain", {},
    make("thead", {}, make("tr", {}, ...["next", "logit", "p", "b_y + the largest terms of W_hy h′"].map((name) => make("th", { scope: "col" }, name)))), make("tbody", {}, ...rows))));
}

function sliders() {
  const all = Object.entries(SLIDER).flatMap(([name, colour]) => weights[name].flatMap((row, i) => (Array.isArray(row) ? row.map((_, j) => slider(colour, `${name}[${i},${j}]`, row, j)) : [slider(colour, `x, step ${i + 1}`, weights[name], i)])));
  return make("details.card", { open: true }, make("summary", {}, "The numbers, as sliders"), make("div.grid", {}, ...all),
    make("div.bar", {}, make("button", { type: "button", onclick: () => { weights = networks.byHand(); refresh(); } }, "As it was")));
}

function slider(colour, name, row, index) {
  const shown = make("output", {}, number(row[index]));
  const input = make("input", { type: "range", min: -2, max: 2, step: 0.01, ".value": row[index], oninput: () => {
    row[index] = Number(input.value);
    shown.textContent = number(row[index]);
    attempt(again)();
  } });
  return make("label.slider", {}, make(`strong.c-${colour}`, {}, name), input, shown);
}

/** After a slider moved: the same frame, of the new numbers, without new sliders. */
async function again() {
  network = networks.two(weights);
  [...controls.steps.children].forEach((button, index) => { button.textContent = network.word[index]; });
  shown = { index: -1 };
  await show();
}
