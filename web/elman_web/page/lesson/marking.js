/** A read-out of one's own: phrases of a text are marked with labels, and a line through the states is fitted to them. */

import { events } from "../api.js";
import { fill, make, visible } from "../dom.js";
import { floats } from "../floats.js";
import { models, state } from "../state.js";
import { fit, heldOut } from "./fit.js";
import { colourOf, runs } from "./labels.js";
import { strip } from "./strip.js";

const EXAMPLE = "ROMEO:\nIs the day so young?\n\nBENVOLIO:\nBut new struck nine.\n\nROMEO:\nAy me! sad hours seem long.\nWas that my father that went hence so fast?\n\nBENVOLIO:\nIt was. What sadness lengthens your hours?\n";
const TRY = "\nJULIET:\nWhat day is it?\n\nNURSE:\nA fair one.\n";

let attempt;
let again;
let model = "";
let text = EXAMPLE;
let marks = [...EXAMPLE.matchAll(/^(?<name>[A-Z]+:)|(?<speech>[A-Z][a-z].+)$/gm)].map((found) => ({
  from: found.index, to: found.index + found[0].length, label: found.groups.name ? "name" : "speech",
}));
let tried = TRY;
let fitted = null; // { model, labels, read, said }
let outcome = null;

/** `refresh` shows the view again. */
export function setUp(attemptTo, refresh) {
  attempt = attemptTo;
  again = refresh;
}

const usable = () => [...models].filter(([, each]) => !each.byte_level).map(([name]) => name);

export function view() {
  const names = usable();
  if (!names.includes(model)) model = names.includes(state.model) ? state.model : (names[0] ?? "");
  const label = make("input", { ".value": "name", size: 10, maxlength: 20, list: "known-labels", "aria-label": "Label", spellcheck: "false" });
  const area = make("textarea", { rows: 7, spellcheck: "false", "aria-label": "Text to mark", ".value": text, maxlength: 4000, oninput: () => edit(area.value) });
  const mark = make("button", { type: "button", onclick: () => add(area, label.value) }, "Mark the selection");
  outcome = make("div", { "aria-live": "polite" });
  if (fitted) attempt(show)();
  return [
    make("p", {}, "Select a phrase, give it a label, mark it; press Fit. One weight for each unit of the last layer is fitted to the states after the marked characters: if that suffices, the network keeps what you marked."),
    make("label.field", {}, "Network ", make("select", { onchange: ({ target }) => { model = target.value; fitted = null; again(); } }, ...names.map((name) => make("option", { selected: name === model }, name)))),
    make("div.marking", {}, area, make("div", {},
      make("div.bar", {}, make("label.field", {}, "Label ", label), make("datalist", { id: "known-labels" }, ...labels().map((name) => make("option", { value: name }))), mark, make("button", { type: "button", onclick: () => { marks = []; fitted = null; again(); } }, "Unmark all"), make("button.primary", { type: "button", disabled: labels().length < 2, onclick: attempt(train) }, "Fit")),
      make("ul.chips", { "aria-label": "Marked phrases" }, ...marks.map(chip)))),
    outcome,
  ];
}

const labels = () => [...new Set(marks.map((mark) => mark.label))].sort();

function chip(mark) {
  const said = text.slice(mark.from, mark.to);
  const name = make("strong", {}, mark.label);
  name.style.color = `var(--${colourOf(mark.label, labels().indexOf(mark.label))})`;
  return make("li.label", {}, name, ` ${said.length > 22 ? `${said.slice(0, 20)}…` : said} `, make("button.icon", { type: "button", "aria-label": `Unmark ${said}`, onclick: () => { marks = marks.filter((each) => each !== mark); fitted = null; again(); } }, "✕"));
}

function add(area, name) {
  const [from, to] = [area.selectionStart, area.selectionEnd];
  if (from === to || !name.trim()) return;
  marks = [...marks.filter((mark) => mark.to <= from || mark.from >= to), { from, to, label: name.trim() }].sort((a, b) => a.from - b.from);
  fitted = null;
  again();
}

/** Keep the marks whose phrase is still where it was. */
function edit(next) {
  const kept = marks.filter((mark) => next.slice(mark.from, mark.to) === text.slice(mark.from, mark.to));
  const isChanged = kept.length < marks.length;
  [text, marks] = [next, kept];
  if (isChanged) {
    fitted = null;
    again();
  }
}

/** The states of the last layer after each character of a text. */
async function statesOf(said) {
  const layer = models.get(model).cell === "OTHER" ? 0 : Math.max(0, models.get(model).num_layers - 1);
  const found = [];
  for await (const { value } of events("POST", "/v1/inspect/watch", { model, text: said, units: [{ signal: "H", layer }] })) {
    const numbers = floats(value.values[0].data);
    const size = numbers.length / [...value.text].length;
    for (let from = 0; from < numbers.length; from += size) found.push(numbers.subarray(from, from + size));
  }
  return found;
}

async function train() {
  outcome.replaceChildren(make("p.quiet", {}, "Reading the text …"));
  const [names, all] = [labels(), await statesOf(text)];
  const place = [...text].flatMap((c, index) => Array(c.length).fill(index)); // selections count UTF-16 units
  const examples = marks.flatMap((mark, group) => [...new Set(place.slice(mark.from, mark.to))].map((index) => ({ state: all[index], label: names.indexOf(mark.label), group })));
  const [states, wanted, groups] = ["state", "label", "group"].map((key) => examples.map((each) => each[key]));
  const accuracy = heldOut(states, wanted, groups, names.length);
  const common = Math.max(...names.map((_, label) => wanted.filter((each) => each === label).length)) / wanted.length;
  const percent = (part) => `${(100 * part).toFixed(0)} %`;
  fitted = {
    labels: names, read: fit(states, wanted, names.length),
    said: `Fitted to ${examples.length} characters of ${marks.length} phrases. ${accuracy === null ? "Mark more phrases of each label to measure how far it holds." : `Of phrases that were left out of the fit it labels ${percent(accuracy)} of the characters right; always saying the most common label would be right for ${percent(common)}.`}`,
  };
  await show();
}

async function show() {
  const input = make("textarea", { rows: 3, ".value": tried, spellcheck: "false", "aria-label": "Another text to read", maxlength: 1000, onchange: () => { tried = input.value; attempt(show)(); } });
  const characters = [...tried];
  const rows = tried ? (await statesOf(tried)).map(fitted.read) : [];
  fill(outcome, make("p", { role: "status" }, fitted.said), make("label.field.stack", {}, "On another text", input),
    rows.length ? strip(characters, fitted.labels.map((name, index) => ({ name, colour: colourOf(name, index), values: rows.map((row) => row[index]) })), { low: 0, high: 1, name: `Your read-out of ${model}`, labels: runs(characters, rows, fitted.labels) }) : null);
}
