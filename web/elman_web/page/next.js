/** The next character: logits, softmax, and what temperature and filters leave; the random number as a needle. */

import { latest, post } from "./api.js";
import { byId, make, say, token, visible } from "./dom.js";
import { charAt, models, on, set, state, text } from "./state.js";
import { isBeyondAscii, isByteLevel, turn } from "./session.js";
import { filtered, softmax } from "./softmax.js";

const NUM_BARS = 20;
const LIVE_MS = 40; // between two distributions while the network writes: nobody reads faster
const known = new Map(); // distributions, by session, position and length of the text
const newest = latest();
let shown = null; // { entries: [{ c, logit }], isPartial, char }
let shownAt = 0;
let onPick = () => {};
let bars = null; // the table, made once: what changes is written into it

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
  say(byId("next-where"), state.at === null ? "at the end of the text" : `at position ${state.at}`);
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
  if (state.at !== null || performance.now() - shownAt < LIVE_MS) return;
  shownAt = performance.now();
  shown = partial(text.chars.at(-1));
  say(byId("next-where"), "of the last character");
  render();
}

function render() {
  const box = byId("bars");
  if (!shown) {
    box.replaceChildren(make("p.empty", {}, emptySentence()));
    byId("needle").hidden = true;
    return;
  }
  bars ??= makeBars();
  if (!bars.table.isConnected) box.replaceChildren(bars.table);
  const logits = shown.entries.map((entry) => entry.logit);
  const plain = softmax(logits).map((value, index) => (shown.isPartial ? Math.exp(logits[index]) : value));
  const { probabilities, order, isSorted } = filtered(logits, state);
  const best = order.slice(0, NUM_BARS);
  const lowest = Math.min(...best.map((index) => logits[index]));
  const widest = logits[order[0]] - lowest || 1;
  say(bars.logit, shown.isPartial ? "log p" : "logit");
  bars.rows.forEach((row, rank) => {
    row.line.hidden = rank >= best.length;
    if (row.line.hidden) return;
    const index = best[rank];
    const isCut = !probabilities[index];
    showRow(row, shown.entries[index].c, isCut);
    showMeter(row.logit, 0.04 + 0.96 * (logits[index] - lowest) / widest, logits[index].toFixed(2));
    showMeter(row.soft, plain[index], percent(plain[index]));
    showMeter(row.after, probabilities[index], isCut ? "cut" : percent(probabilities[index]));
  });
  renderNeedle(probabilities, isSorted ? order : logits.map((_, index) => index));
}

function emptySentence() {
  if (isBeyondAscii()) return "This network reads bytes, and some of these characters are several bytes: what was likely is shown for texts of ASCII characters only.";
  return text.end ? "No distribution is known here: choose a later character." : "Nothing has been read yet: write something first.";
}

/** A byte that is no ASCII character is shown by its number. */
const label = (c) => (isByteLevel() && c > "\x7f" ? `x${c.codePointAt(0).toString(16)}` : visible(c));

function makeBars() {
  const logit = make("th", { scope: "col" });
  const rows = Array.from({ length: NUM_BARS }, makeRow);
  const head = make("tr", {}, make("th", { scope: "col" }, make("span.hidden", {}, "character")), logit, ...["softmax", "after T, filters"].map((name) => make("th", { scope: "col" }, name)));
  return { table: make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows.map((row) => row.line))), logit, rows };
}

function makeRow() {
  const row = { c: "", button: make("button", { type: "button", onclick: () => onPick(state.at ?? text.end, row.c) }) };
  const meters = ["logit", "soft", "after"].map((kind) => {
    row[kind] = make("div.meter");
    return make(`td.${kind}`, {}, row[kind]);
  });
  row.line = make("tr", {}, make("td", {}, row.button), ...meters);
  return row;
}

function showRow(row, c, isCut) {
  const isHere = shown.char?.c === c;
  row.c = c;
  row.line.className = `${isCut ? "cut" : "kept"}${isHere ? " sampled" : ""}`;
  row.button.disabled = Boolean(turn.running) || isByteLevel();
  row.button.setAttribute("aria-label", `Continue with ${label(c)}${isHere && !shown.char.isRead ? ", which was sampled" : ""}`);
  say(row.button, label(c));
}

/** A bar is a background: it costs no layout, and no layer. */
function showMeter(meter, part, said) {
  meter.style.backgroundSize = `${(100 * Math.max(0, Math.min(1, part))).toFixed(1)}% 100%`;
  say(meter, said);
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
      context.fillText(label(shown.entries[index].c), left + 4 * devicePixelRatio, 15 * devicePixelRatio);
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
