/** Networks whose steps can be worked out: two by hand, which docs/lesson.md has too, and those of the server. */

import { get, post } from "../api.js";
import { models, state } from "../state.js";
import { softmax } from "../softmax.js";

const LN2 = Math.log(2);
const LN3 = Math.log(3);

const times = (matrix, vector) => matrix.map((row) => row.reduce((sum, weight, index) => sum + weight * vector[index], 0));
const zeros = (count) => Array(count).fill(0);

/** The two-unit network's weights, and the numbers that it reads. */
export const byHand = () => ({
  x: [1, 0.5], W_xh: [[LN2], [LN3]], W_hh: [[0.5, -0.25], [0.25, 0.5]], W_hy: [[0.75, 0.75], [0.5, -0.5], [-1, 0.5]],
});

/** One number in, two units, three classes out. */
export function two(weights) {
  return local(weights, weights.x.map((x) => [x]), { word: weights.x.map((x) => x.toFixed(2)), outputs: ["class 0", "class 1", "class 2"] });
}

/** Three units that read "hello". */
export function hello() {
  const letters = [..."helo"];
  const weights = {
    W_xh: [[1.0, -0.5, 0.25, 0.0], [0.0, 1.0, 0.5, -0.5], [-0.5, 0.0, 1.0, 1.0]],
    W_hh: [[0.5, 0.0, -0.25], [0.25, 0.5, 0.0], [0.0, 0.25, 0.5]],
    W_hy: [[-1, -1, -1], [2, -1, -2], [-0.5, 2, 0.5], [-1, 0, 2]],
  };
  const word = [..."hello"];
  return local(weights, word.map((c) => letters.map((letter) => Number(letter === c))), { word, inputs: letters, outputs: letters });
}

/** `inputs` names the entries of x, if they stand for characters; `outputs` those of y. */
function local(weights, xs, { word, inputs, outputs }) {
  const b = zeros(weights.W_hh.length);
  const step = async (index) => {
    let h = zeros(b.length);
    let found;
    for (const x of xs.slice(0, index + 1)) {
      const [fromX, fromH] = [times(weights.W_xh, x), times(weights.W_hh, h)];
      const sum = fromX.map((value, unit) => value + fromH[unit]);
      found = { x, before: h, fromX, fromH, sum, h: sum.map(Math.tanh) };
      h = found.h;
    }
    const y = times(weights.W_hy, h);
    return { ...found, y, p: softmax(y, state.temperature) };
  };
  return { word, inputs, outputs, weights: { ...weights, b, b_y: zeros(outputs.length) }, step };
}

const known = new Map(); // weights, by model

/** The matrices of a plain network of one layer; nothing for any other, whose terms can be shown all the same. */
async function weightsOf(model) {
  const { cell, num_layers: layers } = models.get(model);
  if (cell !== "ELMAN" || layers !== 1) return null;
  if (!known.has(model)) {
    const { layers: [[gate]], output_weight: output, output_bias: bias } = await get(`/v1/inspect/models/${model}/weights`);
    const flat = (matrix) => matrix && matrix.data.map((row) => row[0]);
    known.set(model, { W_xh: gate.input.data, W_hh: gate.recurrent.data, b: flat(gate.bias), W_hy: output.data, b_y: flat(bias) });
  }
  return known.get(model);
}

/** A network of the server that reads a word, or the characters of the session from a position on. */
export async function served({ model, word, session, start = 0 }) {
  const names = models.get(model);
  const inputs = [...names.vocabulary];
  const place = session ? { session } : { model, text: word.join("") };
  const step = async (index) => {
    const found = await post("/v1/inspect/explain", {
      ...place, position: start + index, num_candidates: 5, num_contributions: 6, temperature: state.temperature,
    });
    const [gate] = found.layers[0].gates;
    return {
      ...found,
      x: inputs.map((c) => Number(c === found.text)), before: found.layers[0].h_before, h: found.layers.at(-1).h,
      fromX: gate?.input, fromH: gate?.recurrent, sum: gate?.pre_activation, y: found.logits, p: found.probabilities,
    };
  };
  return { word, inputs, outputs: names.labels.length ? names.labels : inputs, weights: await weightsOf(model), step };
}
