/** The loss of characters of a text when a network has read only the last 1, 2, 3 … characters before them. */

import { post } from "../api.js";

const BATCH = 16; // texts of one request

/**
 * Return a function of a character's index and of how many characters before it are known: its loss in nats, for the indices
 * from `first` to the end. Each beginning of the text is read once: what it says of all later characters is kept.
 */
export async function losses(model, characters, first, maxContext, { signal, onPart = () => {} } = {}) {
  const starts = [];
  for (let start = Math.max(0, first - maxContext); start < characters.length - 1; start++) starts.push(start);
  const found = new Map();
  for (let from = 0; from < starts.length; from += BATCH) {
    const part = starts.slice(from, from + BATCH);
    const prompt = part.map((start) => characters.slice(start, start + maxContext + 1).join(""));
    const { choices } = await post("/v1/completions", { model, prompt, echo: true, max_tokens: 0, logprobs: 0 }, { signal });
    part.forEach((start, index) => found.set(start, choices[index].logprobs.token_logprobs));
    onPart((from + part.length) / starts.length);
  }
  return (index, context) => {
    const value = found.get(index - context)?.[context];
    return value === null || value === undefined ? null : -value;
  };
}
