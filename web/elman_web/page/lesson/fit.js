/** A read-out of states, fitted on this page: softmax regression with a penalty on the weights. No element is touched here. */

import { softmax } from "../softmax.js";

const NUM_STEPS = 250;
const PENALTY = 0.01;

/** Return what labels states: a function of a state that returns a probability for each label. */
export function fit(states, labels, numLabels) {
  const size = states[0].length;
  const weights = Array.from({ length: numLabels }, () => new Float64Array(size + 1));
  const fast = weights.map((row) => row.slice());
  const norm = states.reduce((sum, state) => sum + state.reduce((total, value) => total + value * value, 1), 0) / states.length;
  const rate = 1 / (0.5 * norm + PENALTY);
  for (let step = 1; step <= NUM_STEPS; step++) {
    const slopes = fast.map((row) => row.map((value, index) => (index === size ? 0 : PENALTY * value)));
    states.forEach((state, index) => {
      const p = softmax(scores(fast, state));
      p.forEach((value, label) => {
        const off = (value - (labels[index] === label ? 1 : 0)) / states.length;
        const slope = slopes[label];
        for (let unit = 0; unit < size; unit++) slope[unit] += off * state[unit];
        slope[size] += off;
      });
    });
    const push = step / (step + 3); // Nesterov's
    weights.forEach((row, label) => row.forEach((before, unit) => {
      const after = fast[label][unit] - rate * slopes[label][unit];
      row[unit] = after;
      fast[label][unit] = after + push * (after - before);
    }));
  }
  return (state) => softmax(scores(weights, state));
}

function scores(weights, state) {
  return weights.map((row) => {
    let sum = row[state.length];
    for (let unit = 0; unit < state.length; unit++) sum += row[unit] * state[unit];
    return sum;
  });
}

/**
 * Return which part of the examples is labelled right by read-outs that were fitted without them: each group is left out once,
 * in at most `numParts` parts. Nothing if a label would have no example left.
 */
export function heldOut(states, labels, groups, numLabels, numParts = 4) {
  const names = [...new Set(groups)];
  let numRight = 0;
  for (let part = 0; part < numParts; part++) {
    const isOut = (index) => names.indexOf(groups[index]) % numParts === part;
    const inside = states.map((_, index) => index).filter((index) => !isOut(index));
    if (new Set(inside.map((index) => labels[index])).size < numLabels) return null;
    const read = fit(inside.map((index) => states[index]), inside.map((index) => labels[index]), numLabels);
    states.forEach((state, index) => {
      if (!isOut(index)) return;
      const p = read(state);
      numRight += p.indexOf(Math.max(...p)) === labels[index];
    });
  }
  return numRight / states.length;
}
