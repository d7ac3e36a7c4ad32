/** A label of a read-out colours the text: how likely it is after each character. */

import { post } from "./api.js";
import { byId, make } from "./dom.js";
import { turn } from "./session.js";
import { emit, models, on, state, text } from "./state.js";
import { paint } from "./text.js";

export function setUp(attempt) {
  const field = byId("readout");
  const update = attempt(read);
  field.addEventListener("change", update);
  on(["model", "colour"], () => {
    const readOuts = models.get(state.model)?.read_outs ?? [];
    const labels = readOuts.flatMap(({ name, labels: all }) => all.map((label) => [JSON.stringify([name, label]), `${name}: ${label}`]));
    field.replaceChildren(...(labels.length ? labels : [["", "this model has none"]]).map(([value, said]) => make("option", { value }, said)));
  });
  on(["text", "colour", "model"], () => !turn.running && update());
}

async function read() {
  if (state.colour !== "readout" || !byId("readout").value || !text.chars.length || text.start) return;
  const [name, label] = JSON.parse(byId("readout").value);
  const { labels } = await post("/v1/score", { model: state.model, text: text.chars.map((char) => char.c).join(""), read_out: name });
  paint.start = 0;
  paint.values = labels.map((row) => Math.exp(row[label]));
  emit("paint");
}
