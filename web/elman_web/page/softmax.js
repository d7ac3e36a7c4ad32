/** From logits to what is sampled from: the same order of filters as the server's. No element is touched here. */

/** Softmax of logits divided by a temperature; 0 gives all to the first of the likeliest. */
export function softmax(logits, temperature = 1) {
  const highest = Math.max(...logits);
  if (temperature === 0) {
    const winner = logits.indexOf(highest);
    return logits.map((_, index) => (index === winner ? 1 : 0));
  }
  const weights = logits.map((logit) => Math.exp((logit - highest) / temperature));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / sum);
}

/**
 * What is left after temperature, top k, top p and min p, in this order, renormalized; cut characters have 0.
 * `order` are the indices, the likeliest first; `isSorted`: the server lays the characters side by side in that order.
 */
export function filtered(logits, { temperature, topK, topP, minP }) {
  const tempered = softmax(logits, temperature);
  const order = logits.map((_, index) => index).sort((a, b) => logits[b] - logits[a] || a - b);
  let numKept = topK ? Math.min(topK, order.length) : order.length;
  if (topP !== null && topP < 1) {
    const all = order.slice(0, numKept).reduce((sum, index) => sum + tempered[index], 0); // a share of what top k left
    let sum = 0;
    const last = order.slice(0, numKept).findIndex((index) => (sum += tempered[index]) >= topP * all);
    if (last >= 0) numKept = last + 1;
  }
  const kept = order.slice(0, numKept).filter((index) => tempered[index] > 0 && tempered[index] >= (minP ?? 0) * tempered[order[0]]);
  const sum = kept.reduce((total, index) => total + tempered[index], 0);
  const probabilities = logits.map(() => 0);
  for (const index of kept) probabilities[index] = tempered[index] / sum;
  return { probabilities, order, isSorted: Boolean(temperature === 0 || topK || (topP ?? 1) < 1 || minP) };
}
