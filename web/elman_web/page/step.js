/** One step, worked: every term of the equations as numbers and coloured cells, forwards and backwards through a text. */

import { latest, post } from "./api.js";
import { fill, make, signedColour, visible } from "./dom.js";
import { models, state } from "./state.js";
import { handMade, hello } from "./byhand.js";

const GATES = { H: "h", RESET: "r", UPDATE: "z", CANDIDATE: "n", INPUT: "i", FORGET: "f", CELL: "g", OUTPUT: "o" };
const MAX_CELLS = 144;
let box;
let attempt;
let kind = "model";
let at = null;
let said = "hello";
const newest = latest();

export function setUp(element, attemptTo) {
  box = element;
  attempt = attemptTo;
}

export function refresh() {
  if (box.hidden || !models.size) return;
  if (state.at !== null && at !== state.at) {
    at = state.at;
    kind = "session";
  }
  const choice = make("select", { onchange: ({ target }) => { kind = target.value; refresh(); } },
    ...[["model", `${state.model}, reading a word`], ["session", "the chosen character of the text"], ["two", "two units by hand (0.6, 0.8, 1.05, 0.624)"], ["hello", "three units reading hello"]]
      .map(([value, name]) => make("option", { value, selected: value === kind, disabled: value === "session" && state.at === null }, name)));
  const body = make("div", { class: "step-body" });
  box.replaceChildren(
    make("div.bar", {}, make("label.field", {}, "Network ", choice)),
    make("p.equation", {}, part("c-h", "h′"), "= tanh(", part("c-wxh", "W_xh"), part("c-x", "x"), "+", part("c-whh", "W_hh"), part("c-h", "h"), "+", part("c-b", "b"), ")", "  ", part("c-y", "y"), "=", part("c-why", "W_hy"), part("c-h", "h′"), "+", part("c-b", "b_y"), "  p = softmax(", part("c-y", "y"), "/ T)"),
    body,
  );
  if (kind === "two") body.append(handMade());
  else if (kind === "hello") body.append(hello());
  else if (kind === "session" && state.at !== null) attempt(() => explain(body, { session: state.session, position: state.at }))();
  else word(body);
}

const part = (colour, name) => make(`strong.${colour}`, {}, name);

/** A word whose characters are buttons: the network reads up to the pressed one. */
function word(body) {
  const steps = make("div.steps", { role: "group", "aria-label": "Characters of the word" });
  const result = make("div");
  let index = [...said].length - 1;
  const show = (next) => {
    index = Math.max(0, Math.min([...said].length - 1, next));
    steps.replaceChildren(...[...said].map((c, here) => make("button", { type: "button", "aria-pressed": here === index, "aria-label": `Read up to ${visible(c)}, character ${here + 1}`, onclick: () => show(here) }, visible(c))));
    attempt(() => explain(result, { model: state.model, text: said, position: index }))();
  };
  const input = make("input", { ".value": said, size: 14, maxlength: 60, spellcheck: "false", oninput: ({ target }) => { said = target.value || "h"; show([...said].length - 1); } });
  body.append(
    make("div.bar", {}, make("label.field", {}, "Word ", input), make("button", { type: "button", onclick: () => show(index - 1), "aria-label": "One character back" }, "◀"), make("button", { type: "button", onclick: () => show(index + 1), "aria-label": "One character on" }, "▶"), steps),
    result,
  );
  show(index);
}

async function explain(result, place) {
  const step = await post("/v1/inspect/explain", { ...place, num_candidates: 5, num_contributions: 6, temperature: state.temperature }, { signal: newest() });
  const layers = step.layers.map((layer) => make("details.card", { open: layer.layer === 0 },
    make("summary", {}, make("strong", {}, step.layers.length > 1 ? `Layer ${layer.layer}, which reads ${layer.layer ? "h of the layer below" : "the character"}` : "The step")),
    make("div.vectors", {}, ...vectors(layer, step.text)),
  ));
  fill(result,
    make("p", {}, `Reading ${visible(step.text)} at position ${step.position}. Blue cells are negative, orange ones positive; hover one for its number.`),
    step.gates_absent ? make("p.quiet", {}, `The terms are not shown: ${step.gates_absent}`) : null,
    ...layers, candidates(step),
  );
}

function vectors(layer, character) {
  const rows = [];
  const row = (colour, name, values, scale = 1) => values.length && rows.push(make("div", {}, make(`span.name.${colour}`, {}, name), cells(values, scale)));
  row("c-h", "h before", layer.h_before);
  row("c-h", "c before", layer.c_before, 2);
  for (const gate of layer.gates) {
    const name = layer.gates.length > 1 ? ` of ${GATES[gate.signal] ?? gate.signal}` : "";
    const x = layer.layer ? "h of the layer below" : `x = ${visible(character)}`;
    row("c-wxh", `W_xh ${gate.bias.length || layer.layer ? "" : "x + b"}${name}${gate.bias.length || layer.layer ? ` x, ${x}` : `, ${x}`}`, gate.input, 3);
    row("c-whh", `W_hh h${name}`, gate.recurrent, 3);
    row("c-b", `b${name}`, gate.bias, 3);
    row("c-y", `sum${name}`, gate.pre_activation, 3);
    if (layer.gates.length > 1) row("c-why", `${GATES[gate.signal]} after its function`, gate.activation);
  }
  row("c-h", "c after", layer.c, 2);
  row("c-h", "h′ after", layer.h);
  return rows;
}

function cells(values, scale) {
  const box = make("div.cells", {});
  values.slice(0, MAX_CELLS).forEach((value, unit) => {
    const cell = make("i", { title: `[${unit}] ${value.toFixed(4)}` });
    cell.style.backgroundColor = signedColour(value / scale);
    box.append(cell);
  });
  return values.length > MAX_CELLS ? make("div.cells-more", {}, box, make("span.quiet", {}, `of ${values.length}`)) : box;
}

function candidates(step) {
  const rows = step.candidates.map((each) => make("tr", {},
    make("td", {}, make("strong", {}, visible(each.text))), make("td", {}, each.logit.toFixed(3)), make("td", {}, `${(100 * each.probability).toFixed(1)} %`),
    make("td", {}, each.contributions.length ? `${each.bias.toFixed(2)} (bias) ${each.contributions.map((one) => `${one.contribution < 0 ? "−" : "+"} ${Math.abs(one.contribution).toFixed(2)} (h[${one.unit}])`).join(" ")} …` : "")));
  return make("section.card", {}, make("h3", {}, `What comes next, at temperature ${state.temperature}`), make("div.scroll", { tabindex: 0, role: "region", "aria-label": "Candidates" }, make("table.plain", {},
    make("thead", {}, make("tr", {}, ...["", "logit y", "softmax(y/T)", "the logit's largest terms: W_hy times h′"].map((name) => make("th", { scope: "col" }, name)))), make("tbody", {}, ...rows))));
}

