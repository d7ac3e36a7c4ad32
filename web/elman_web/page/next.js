/** The next character: logits, softmax, and what temperature and filters leave; the random number as a needle. */

import { latest, post } from "./api.js";
import { byId, make, token, visible } from "./dom.js";
import { charAt, models, on, set, state, text } from "./state.js";
import { isByteLevel, turn } from "./session.js";
import { filtered, softmax } from "./softmax.js";

const NUM_BARS = 20;
const known = new Map(); // distributions, by session, position and length of the text
const newest = latest();
let shown = null; // { entries: [{ c, logit }], isPartial, char }
let onPick = () => {};

/** `pick(position, character)` continues with another character. */
export function setUp(pick) {
  onPick = pick;
  on(["at", "text", "session", "busy"], refresh);
  on(["shown"], () => turn.running && showLast());
  on(["temperature", "topK", "topP", "minP"], render);
}

/** What a model says before any character of a text: all logits, or those of the 20 likeliest. */
async function distribution(position, signal) {
  const key = `${state.session} ${position} ${text.end}`;
  if (!known.has(key)) {
    const vocabulary = [...models.get(state.model).vocabulary];
    const step = await post("/v1/inspect/explain", {
      session: state.session, position: position - 1, num_candidates: 0, num_contributions: 0,
    }, { signal });
    if (known.size > 200) known.clear();
    known.set(key, step.logits.map((logit, id) => ({ c: vocabulary[id], logit })));
  }
  return known.get(key);
}

/** Show what is likely at the chosen position, or at the end. */
export async function refresh() {
  const signal = newest();
  const position = state.at ?? text.end;
  byId("next-where").textContent = state.at === null ? "at the end of the text" : `at position ${state.at}`;
  const char = charAt(position);
  if (turn.running) return;
  shown = partial(char); // at once, until the server has computed all of it
  render();
  if (state.session && position > 0 && !isByteLevel()) {
    try {
      const entries = await distribution(position, signal);
      if (signal.aborted || turn.running) return;
      shown = { entries, isPartial: false, char };
      render();
    } catch {
      // A server without inspection, or a busy one: what came with the text is shown.
    }
  }
}

function partial(char) {
  if (!char?.top) return null;
  return { entries: Object.entries(char.top).map(([c, logit]) => ({ c, logit })), isPartial: true, char };
}

function showLast() {
  if (state.at !== null) return;
  shown = partial(text.chars.at(-1));
  byId("next-where").textContent = "of the last character";
  render();
}

function render() {
  const box = byId("bars");
  if (!shown) {
    box.replaceChildren(make("p.empty", {}, text.end ? "No distribution here." : "Nothing has been read yet: write something first."));
    byId("needle").hidden = true;
    return;
  }
  const logits = shown.entries.map((entry) => entry.logit);
  const plain = softmax(logits).map((value, index) => (shown.isPartial ? Math.exp(logits[index]) : value));
  const { probabilities, order, isSorted } = filtered(logits, state);
  const best = order.slice(0, NUM_BARS);
  const lowest = Math.min(...best.map((index) => logits[index]));
  const widest = logits[order[0]] - lowest || 1;
  const rows = best.map((index) => {
    const { c } = shown.entries[index];
    const isCut = !probabilities[index];
    const isSampled = shown.char?.c === c && !shown.char.isRead;
    return make(
      `tr.${isCut ? "cut" : "kept"}${shown.char?.c === c ? ".sampled" : ""}`, {},
      make("td", {}, make("button", { type: "button", onclick: () => onPick(state.at ?? text.end, c), disabled: Boolean(turn.running) || isByteLevel(), "aria-label": `Continue with ${visible(c)}${isSampled ? ", which was sampled" : ""}` }, visible(c))),
      meter("logit", (0.04 + 0.96 * (logits[index] - lowest) / widest), logits[index].toFixed(2)),
      meter("soft", plain[index], percent(plain[index])),
      meter("after", probabilities[index], isCut ? "cut" : percent(probabilities[index])),
    );
  });
  const head = make("tr", {}, make("th", { scope: "col" }, make("span.hidden", {}, "character")), ...[shown.isPartial ? "log p" : "logit", "softmax", "after T, filters"].map((name) => make("th", { scope: "col" }, name)));
  box.replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
  renderNeedle(probabilities, isSorted ? order : logits.map((_, index) => index));
}

function meter(kind, part, label) {
  const bar = make("b");
  bar.style.width = `${(100 * Math.max(0, Math.min(1, part))).toFixed(1)}%`;
  return make(`td.${kind}`, {}, make("div.meter", {}, bar, make("span", {}, label)));
}

const percent = (value) => (value >= 0.0995 ? `${(100 * value).toFixed(0)} %` : value >= 0.00095 ? `${(100 * value).toFixed(1)} %` : "< 0.1 %");

/** The kept characters side by side, in the order in which the server lays them, and where the random number fell. */
function renderNeedle(probabilities, order) {
  const effective = shown.char && !shown.char.isRead ? shown.char.effective : null;
  const box = byId("needle");
  box.hidden = shown.isPartial;
  if (shown.isPartial) return;
  const canvas = byId("cumulative");
  const width = (canvas.width = Math.max(200, canvas.clientWidth * devicePixelRatio));
  const context = canvas.getContext("2d");
  canvas.height = 22 * devicePixelRatio;
  let left = 0;
  order.forEach((index, rank) => {
    const size = probabilities[index] * width;
    context.fillStyle = token(rank % 2 ? "--line" : "--sunk");
    if (shown.char?.c === shown.entries[index].c) context.fillStyle = token("--whh");
    context.fillRect(left, 0, size, canvas.height);
    if (size > 14 * devicePixelRatio) {
      context.fillStyle = token("--ink");
      context.font = `${12 * devicePixelRatio}px monospace`;
      context.fillText(visible(shown.entries[index].c), left + 4 * devicePixelRatio, 15 * devicePixelRatio);
    }
    left += size;
  });
  let said = "The kept characters side by side: a random number chooses one.";
  if (effective) {
    context.fillStyle = token("--x");
    context.fillRect(effective.uniform * width - devicePixelRatio, 0, 3 * devicePixelRatio, canvas.height);
    said = `The random number was ${effective.uniform.toFixed(4)}; ${visible(shown.char.c)} begins at ${effective.below.toFixed(4)}. ${effective.num_kept} characters were kept.`;
  }
  canvas.setAttribute("aria-label", said);
  byId("needle-text").textContent = said;
}

/** Tie the sliders and fields of sampling to the state. */
export function setUpControls() {
  const temperature = byId("temperature");
  const show = () => {
    temperature.value = state.temperature;
    byId("temperature-shown").textContent = state.temperature.toFixed(2);
    byId("top-k").value = state.topK ?? "";
    byId("top-p").value = state.topP ?? "";
    byId("min-p").value = state.minP ?? "";
    byId("seed").value = state.seed ?? "";
  };
  temperature.addEventListener("input", () => set({ temperature: Number(temperature.value) }));
  for (const [id, key] of [["top-k", "topK"], ["top-p", "topP"], ["min-p", "minP"], ["seed", "seed"]]) {
    byId(id).addEventListener("change", ({ target }) => {
      if (!target.checkValidity()) target.reportValidity();
      else set({ [key]: target.value === "" ? null : Number(target.value) });
    });
  }
  on(["temperature", "topK", "topP", "minP", "seed"], show);
  show();
}
