/** Networks small enough to work out by hand; docs/lesson.md has the same numbers. */

import { make, signedColour, visible } from "./dom.js";
import { softmax } from "./softmax.js";

const LN2 = Math.log(2);
const LN3 = Math.log(3);
const PRODUCTS = { // what the two-unit network begins with
  W_xh: [[LN2], [LN3]], W_hh: [[0.5, -0.25], [0.25, 0.5]], W_hy: [[0.75, 0.75], [0.5, -0.5], [-1, 0.5]],
};
const COLOUR = { W_xh: "c-wxh", W_hh: "c-whh", W_hy: "c-why" };

const times = (matrix, vector) => matrix.map((row) => row.reduce((sum, weight, index) => sum + weight * vector[index], 0));
const plus = (a, b) => a.map((value, index) => value + b[index]);

/** Numbers as coloured cells that can be read. */
export function numbers(values) {
  return make("div.cells.wide", {}, ...values.map((value) => {
    const cell = make("i", {}, value.toFixed(3));
    cell.style.backgroundColor = signedColour(value);
    return cell;
  }));
}

function row(colour, name, values) {
  return make("div", {}, make(`span.name.${colour}`, {}, name), numbers(values));
}

/** One number in, two units, three classes: the weights are sliders. */
export function handMade() {
  const weights = structuredClone(PRODUCTS);
  const inputs = [1, 0.5];
  const result = make("div.two", { "aria-live": "polite" });
  const controls = make("div.grid", {});
  const slider = (name, colour, get, put) => {
    const shown = make("output", {}, get().toFixed(2));
    const input = make("input", { type: "range", min: -2, max: 2, step: 0.01, ".value": get(), oninput: () => { put(Number(input.value)); shown.textContent = get().toFixed(2); show(); } });
    controls.append(make("label.slider", {}, make(`strong.${colour}`, {}, name), input, shown));
  };
  inputs.forEach((_, step) => slider(`x at step ${step + 1}`, "c-x", () => inputs[step], (value) => (inputs[step] = value)));
  for (const [name, matrix] of Object.entries(weights)) {
    matrix.forEach((line, i) => line.forEach((_, j) => slider(`${name}[${i},${j}]`, COLOUR[name], () => line[j], (value) => (line[j] = value))));
  }
  const show = () => {
    let h = [0, 0];
    const steps = inputs.map((x, index) => {
      const [fromX, fromH] = [times(weights.W_xh, [x]), times(weights.W_hh, h)];
      const sum = plus(fromX, fromH);
      h = sum.map(Math.tanh);
      return { x, fromX, fromH, sum, h, index };
    });
    result.replaceChildren(...steps.map((step) => {
      const y = times(weights.W_hy, step.h);
      const p = softmax(y);
      const best = p.indexOf(Math.max(...p));
      return make("section.card", {}, make("h3", {}, `Step ${step.index + 1}: x = ${step.x.toFixed(2)}`),
        make("div.vectors", {}, row("c-wxh", "W_xh x", step.fromX), row("c-whh", "W_hh h", step.fromH), row("c-y", "sum", step.sum), row("c-h", "h′ = tanh", step.h), row("c-why", "y = W_hy h′", y), row("c-y", "softmax", p)),
        make("p", {}, `Class ${best} wins with ${y[best].toFixed(2)}: ${p[best].toFixed(3)}.`));
    }));
  };
  show();
  return make("div", {}, make("p", {}, "No bias. tanh(ln 2) is 0.6 and tanh(ln 3) is 0.8, so the first step can be done by hand. Move a weight and watch everything after it move."), result,
    make("details", {}, make("summary", {}, "The numbers, as sliders"), controls));
}

const HELLO = {
  W_xh: [[1.0, -0.5, 0.25, 0.0], [0.0, 1.0, 0.5, -0.5], [-0.5, 0.0, 1.0, 1.0]],
  W_hh: [[0.5, 0.0, -0.25], [0.25, 0.5, 0.0], [0.0, 0.25, 0.5]],
  W_hy: [[-1, -1, -1], [2, -1, -2], [-0.5, 2, 0.5], [-1, 0, 2]],
};

/** Three units that read hello, forwards and backwards. */
export function hello() {
  const word = [..."hello"];
  const letters = [..."helo"];
  let index = 0;
  const buttons = make("div.steps", { role: "group", "aria-label": "Characters of hello" });
  const result = make("div");
  const show = (next) => {
    index = Math.max(0, Math.min(word.length - 1, next));
    buttons.replaceChildren(...word.map((c, here) => make("button", { type: "button", "aria-pressed": here === index, "aria-label": `Read up to ${c}, character ${here + 1}`, onclick: () => show(here) }, c)));
    let h = [0, 0, 0];
    let terms = null;
    for (const c of word.slice(0, index + 1)) {
      const x = letters.map((letter) => Number(letter === c));
      const [fromX, fromH] = [times(HELLO.W_xh, x), times(HELLO.W_hh, h)];
      const sum = plus(fromX, fromH);
      terms = { x, before: h, fromX, fromH, sum };
      h = sum.map(Math.tanh);
    }
    const y = times(HELLO.W_hy, h);
    const p = softmax(y);
    result.replaceChildren(make("div.vectors", {},
      row("c-x", `x, for ${letters.join(" ")}`, terms.x), row("c-h", "h before", terms.before), row("c-wxh", "W_xh x", terms.fromX), row("c-whh", "W_hh h", terms.fromH),
      row("c-y", "sum", terms.sum), row("c-h", "h′ = tanh", h), row("c-why", "y = W_hy h′", y), row("c-y", `softmax, for ${letters.join(" ")}`, p)),
      make("p", {}, `After ${visible(word[index])}, the likeliest next character is ${letters[p.indexOf(Math.max(...p))]}.`));
  };
  show(0);
  return make("div", {}, make("div.bar", {}, make("button", { type: "button", onclick: () => show(index - 1), "aria-label": "One character back" }, "◀"), make("button", { type: "button", onclick: () => show(index + 1), "aria-label": "One character on" }, "▶"), buttons), result,
    make("p.quiet", {}, "The second l meets another h than the first, so what is expected after it differs: that is memory."));
}
