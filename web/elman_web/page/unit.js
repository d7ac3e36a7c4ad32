/** The unit that colours the text: its values from the server, live while a turn runs. */

import { events } from "./api.js";
import { byId } from "./dom.js";
import { floats } from "./floats.js";
import { isBeyondAscii, turn } from "./session.js";
import { emit, on, set, state, text } from "./state.js";
import { paint } from "./text.js";

const LIVE_MS = 250;
let isReading = false;

/** Read a unit's name, such as "C 1 236": a signal, a layer, a unit. */
export function parseUnit(name) {
  const found = /^\s*([A-Za-z]+)\s+(\d+)\s+(\d+)\s*$/.exec(name);
  return found && { signal: found[1].toUpperCase(), layer: Number(found[2]), units: [Number(found[3])] };
}

export const unitName = ({ signal, layer, unit }) => `${signal} ${layer} ${unit}`;

export function setUp(attempt) {
  const field = byId("unit");
  field.value = state.unit;
  field.addEventListener("change", () => {
    if (field.value && !parseUnit(field.value)) field.setCustomValidity("A signal, a layer and a unit, such as C 1 236");
    else field.setCustomValidity("");
    if (field.reportValidity()) set({ unit: field.value.trim() });
  });
  const update = attempt(read);
  on(["unit", "colour", "session", "text"], () => {
    field.value = state.unit;
    if (!turn.running) update();
  });
  setInterval(() => turn.running && state.colour === "unit" && update(), LIVE_MS);
}

async function read() {
  const unit = parseUnit(state.unit);
  if (isReading || state.colour !== "unit" || !unit || !state.session || !text.chars.length || isBeyondAscii()) return;
  isReading = true;
  try {
    const isLive = Boolean(turn.running);
    const base = isLive ? turn.start : 0;
    const said = isLive ? text.chars.slice(turn.start - text.start).map((char) => char.c).join("") : undefined;
    if (isLive && !said) return;
    if (!isLive) {
      paint.start = text.start;
      paint.values = [];
    }
    const body = { session: state.session, text: said, units: [unit], start: isLive ? 0 : text.start };
    for await (const { value } of events("POST", "/v1/inspect/watch", body)) {
      floats(value.values[0].data).forEach((number, row) => {
        paint.values[base + value.start + row - paint.start] = unit.signal === "C" ? number / 2 : number;
      });
    }
    emit("paint");
  } finally {
    isReading = false;
  }
}
