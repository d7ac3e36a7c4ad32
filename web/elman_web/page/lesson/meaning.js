/** Meaning: what read-outs of the state say along the text that is typed; and read-outs that are fitted here. */

import { post } from "../api.js";
import { fill, make, quietly } from "../dom.js";
import { models } from "../state.js";
import * as marking from "./marking.js";
import { colourOf, isWithinWord, runs } from "./labels.js";
import { strip } from "./strip.js";

const EXAMPLES = { sentiment: "The movie was terrible, no, terribly good!", quotes: 'He said "no" and left.', tags: "The cat sat on the mat." };
const OWN = "own";

let box;
let attempt;
let chosen = 0; // which of the sources, or OWN
let isAll = false; // within words too
let text = null;
let result;

export function setUp(element, attemptTo) {
  box = element;
  attempt = attemptTo;
  marking.setUp(attemptTo, () => refresh(true));
}

/** Everything that labels text: read-outs of models, and models whose output is labels. */
function sources() {
  return [...models].flatMap(([name, model]) => [
    ...model.read_outs.map(({ name: readOut, labels, accuracy, num_held_out: count }) => ({
      model: name, readOut, labels, said: `${readOut} (${name})`,
      about: `Read from the state of ${name}, which learned only to predict the next character. It is right for ${(100 * accuracy).toFixed(0)} % of ${count} held-out characters.`,
    })),
    ...(model.labels.length ? [{ model: name, readOut: name, labels: model.labels, isTrained: true, said: `${name} (a network of labels)`, about: `${name} was trained to answer every character with a label instead of the next character.` }] : []),
  ]);
}

/** Show a read-out on a text; the tour does. Returns whether there is such a read-out. */
export function open(readOut, said) {
  const index = sources().findIndex((each) => each.readOut === readOut);
  if (index < 0) return false;
  [chosen, text] = [index, said];
  refresh(true);
  return true;
}

let key = "";

export function refresh(isForced) {
  if (box.hidden || !models.size) return;
  const found = sources();
  const now = `${JSON.stringify(found)} ${document.documentElement.dataset.theme}`;
  if (now === key && isForced !== true) return;
  key = now;
  if (chosen !== OWN && !found[chosen]) chosen = found.length ? 0 : OWN;
  const select = make("select", { id: "read-out", onchange: ({ target }) => { chosen = target.value === OWN ? OWN : Number(target.value); text = null; refresh(true); } },
    ...found.map((each, index) => make("option", { value: index, selected: index === chosen }, each.said)), make("option", { value: OWN, selected: chosen === OWN }, "your own: mark phrases and fit"));
  result = make("div", {});
  fill(box,
    make("div.bar", {}, make("label.field", {}, "Read-out ", select)),
    found.length ? null : make("p.quiet", {}, "No model of this server has a read-out. Those of the lesson come with this page: ", make("code", {}, "python -m elman_web.lesson models"), " writes them, and ", make("code", {}, "elman-server --models models"), " serves them."),
    ...(chosen === OWN ? marking.view() : typing(found[chosen])), result);
}

function typing(source) {
  text ??= EXAMPLES[source.readOut] ?? "The movie was good.";
  const show = attempt(() => label(source));
  const soon = quietly(150, show);
  const input = make("input", { id: "meaning-text", class: "wide", ".value": text, spellcheck: "false", "aria-label": "Text to read", maxlength: 400, oninput: () => { text = input.value; soon(); } });
  const within = source.isTrained ? null : make("label.field", {}, make("input", { type: "checkbox", ".checked": isAll, onchange: ({ target }) => { isAll = target.checked; show(); } }), "within words too, where it was not trained");
  show();
  return [make("p", {}, source.about, " Type, and see what it says after each ", source.isTrained ? "character." : "word."), make("div.bar", {}, input, within)];
}

async function label(source) {
  const said = text;
  if (!said) {
    fill(result);
    return;
  }
  const scored = await post("/v1/score", { model: source.model, text: said, ...(source.isTrained ? {} : { read_out: source.readOut }) });
  if (said !== text) return;
  const characters = [...said];
  const rows = scored.labels.map((row) => source.labels.map((name) => Math.exp(row[name] ?? -99)));
  const isHidden = (index) => !source.isTrained && isWithinWord(characters, index);
  const lines = source.labels.map((name, place) => ({ name, colour: colourOf(name, place), values: rows.map((row, index) => (isHidden(index) && !isAll ? null : row[place])) }));
  const last = rows.at(-1);
  const best = last.indexOf(Math.max(...last));
  const isOpen = !source.isTrained && /\p{L}/u.test(characters.at(-1));
  fill(result,
    strip(characters, lines, { low: 0, high: 1, name: "Probability of each label", labels: runs(characters, rows, source.labels, { isHidden, isOpen }) }),
    make("p", { role: "status" }, "After the last character: ", make("strong", {}, source.labels[best]), ` with ${(100 * last[best]).toFixed(1)} %${isOpen ? ", if the word ends here" : ""}.`));
}
