/** How far it remembers: earlier characters shaded by how much the loss rises when they are forgotten. */

import { chart } from "../chart.js";
import { fill, make, signedColour, visible } from "../dom.js";
import { emit, models, on, set, state, text } from "../state.js";
import { paint } from "../text.js";
import { losses } from "./losses.js";

const MAX_CONTEXT = 64; // characters that are forgotten one after the other
const NUM_TARGETS = 60; // characters whose loss is measured
const EXAMPLE = "\nFirst Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n\nFirst Citizen:\nYou are all resolved rather to die than to famish?\n";

let box;
let attempt;
let chosen = null; // names of models; null until they are known
let measured = null; // { characters, first, rows: [{ model, loss }], at }
let running = null;
let result;
let button;

export function setUp(element, attemptTo) {
  box = element;
  attempt = attemptTo;
  on(["tab"], () => running?.abort());
}

const usable = () => [...models].filter(([, { labels, byte_level: isBytes, vocabulary }]) => !labels.length && !isBytes && [...EXAMPLE].every((c) => vocabulary.includes(c))).map(([name]) => name);

/** The passage: the end of the session's text up to the chosen character; an example while there is none. */
function passage() {
  const end = state.at === null ? text.end : state.at + 1;
  const own = text.chars.slice(Math.max(0, end - text.start - MAX_CONTEXT - NUM_TARGETS), end - text.start).map((char) => char.c);
  return own.length > 20 ? { characters: own, end, isOwn: true } : { characters: [...EXAMPLE], end: 0, isOwn: false };
}

/** Of the characters that are expected in the end, the one that gains most from what lies further back than eight characters. */
function remembering(characters, first, loss) {
  let best = { index: characters.length - 1, gain: 0 };
  for (let index = Math.max(first, 9); index < characters.length; index++) {
    const full = loss(index, Math.min(index, MAX_CONTEXT));
    const gain = full < 1 ? loss(index, 8) - full : 0;
    if (gain > best.gain) best = { index, gain };
  }
  return best.index;
}

export function refresh() {
  if (box.hidden || !models.size) return;
  const names = usable();
  chosen = (chosen ?? ["shakespeare", "elman-128"]).filter((name) => names.includes(name));
  if (!chosen.length) chosen = names.slice(0, 2);
  result ??= make("div.reach", {});
  button = make("button.primary", { type: "button", disabled: !names.length || Boolean(running), onclick: attempt(measure) }, "Measure");
  const { isOwn } = passage();
  fill(box,
    make("p", {}, "The networks read the same passage again and again, each time from a later beginning: what came before is forgotten. ", isOwn ? "The passage is the end of your text, up to the chosen character." : "The passage is an example: with a text above, its end is taken."),
    make("div.bar", {}, make("span.quiet", {}, "Networks"), ...names.map((name) => make("label.field", {}, make("input", { type: "checkbox", value: name, ".checked": chosen.includes(name), onchange: choose }), name)), button),
    result);
  if (measured) render();
}

function choose() {
  chosen = [...box.querySelectorAll("input:checked")].map((input) => input.value);
}

/** Measure the passage with the chosen models. */
export async function measure() {
  if (running || !chosen?.length) return;
  running = new AbortController();
  const { characters, end, isOwn } = passage();
  const first = Math.max(1, characters.length - NUM_TARGETS);
  const rows = [];
  button.disabled = true;
  try {
    for (const model of chosen) {
      const onPart = (part) => { button.textContent = `${model}: ${Math.round(100 * part)} %`; };
      rows.push({ model, loss: await losses(model, characters, first, MAX_CONTEXT, { signal: running.signal, onPart }) });
    }
    measured = { characters, first, rows, at: state.at === null || !isOwn ? remembering(characters, first, rows[0].loss) : characters.length - 1, start: isOwn ? end - characters.length : null };
  } finally {
    running = null;
    refresh();
  }
}

function render() {
  const { characters, first, rows, at } = measured;
  const target = make("input", { type: "range", min: first, max: characters.length - 1, ".value": at, oninput: ({ target: { value } }) => { measured.at = Number(value); shade(); } });
  const passages = make("div.passages", {});
  const says = make("p", { "aria-live": "polite" });
  const shade = () => {
    says.replaceChildren("Chosen: ", make("strong", {}, visible(characters[measured.at])), `. Orange characters would be missed: the loss of the chosen one rises without them. Blue ones mislead.`);
    fill(passages, ...rows.map((row) => passageOf(row, shade)));
    target.value = measured.at;
    paintText(rows[0].loss);
  };
  shade();
  const means = rows.map((row) => ({ name: row.model, points: meanLosses(row.loss) }));
  fill(result,
    make("div.bar", {}, make("label.field.grow", {}, "Character ", target)), says, passages,
    make("h3", {}, `The mean loss of the passage's last ${characters.length - first} characters, by how many characters before them are known`),
    chart(means, { x: "characters known", y: "nats", low: Math.floor(Math.min(...means.flatMap(({ points }) => points.map(([, y]) => y)))) }),
    make("p", {}, ...means.map(reachOf)),
    make("p.quiet", {}, "Where a curve is flat, what lies further back helps no more. One passage is a small sample: a longer memory shows as a longer fall, not as an exact number."));
}

function passageOf({ model, loss }, shade) {
  const { characters, first, at } = measured;
  const spans = characters.map((c, index) => {
    const rise = riseOf(loss, index);
    const span = make(`i${index === at ? ".chosen" : ""}${index < first ? ".far" : ""}`, { title: rise === null ? undefined : `forgetting ${visible(c)} changes the loss by ${rise.toFixed(2)} nats` }, c === "\n" ? "↵\n" : c);
    span.style.backgroundColor = signedColour(rise);
    if (index >= first) span.addEventListener("click", () => { measured.at = index; shade(); });
    return span;
  });
  const full = loss(at, Math.min(at, MAX_CONTEXT));
  return make("section.card", {}, make("h3", {}, model, make("span.quiet", {}, ` ${full.toFixed(2)} nats with all of it`)), make("div.text", {}, ...spans));
}

/** How much the loss of the chosen character rises when the networks read from after a character on instead of from it on. */
function riseOf(loss, index) {
  const context = measured.at - index;
  const [known, forgotten] = context > 1 ? [loss(measured.at, context), loss(measured.at, context - 1)] : [null, null];
  return known === null || forgotten === null ? null : forgotten - known;
}

/** Colour the session's text too, if the passage is its. */
function paintText(loss) {
  const { characters, start, at } = measured;
  if (start === null) return;
  paint.start = start;
  paint.values = characters.map((_, index) => riseOf(loss, index));
  paint.marks.clear();
  paint.marks.set(start + at, "near");
  set({ colour: "memory" });
  emit("paint");
}

function meanLosses(loss) {
  const { characters, first } = measured;
  const points = [];
  for (let context = 1; context <= MAX_CONTEXT; context++) {
    const values = [];
    for (let index = first; index < characters.length; index++) {
      const value = loss(index, Math.min(context, index));
      if (value !== null) values.push(value);
    }
    points.push([context, values.reduce((a, b) => a + b, 0) / values.length]);
  }
  return points;
}

/** How many characters give all but a twentieth of what 64 give. */
function reachOf({ name, points }) {
  const [most, least] = [points[0][1], points.at(-1)[1]];
  const enough = points.find(([, y]) => y - least <= 0.05 * (most - least))[0];
  return make("span.fact", {}, make("strong", {}, name), ` has 95 % of its gain from the last ${enough} characters. `);
}
