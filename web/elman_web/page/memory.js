/** Memory: characters across, units down. Hover for a value, click for the text's colour, drag for what is on in a span. */

import { events, get, latest, post } from "./api.js";
import { make, token, visible } from "./dom.js";
import { floats } from "./floats.js";
import { SORTS, labelling, onIn, similar, sorted } from "./rows.js";
import { isBeyondAscii, turn } from "./session.js";
import { charAt, emit, set, state, text } from "./state.js";
import { paint } from "./text.js";
import { unitName } from "./unit.js";

const MAX_SHOWN = 500;
const ROW = 3; // pixels
const NAMES = { H: "h", C: "c", RESET: "gate r", UPDATE: "gate z", CANDIDATE: "candidate n", INPUT: "gate i", FORGET: "gate f", CELL: "candidate g", OUTPUT: "gate o" };
const PROPERTIES = [["LINE_POSITION", "position in the line"], ["INSIDE_WORD", "inside a word"], ["WORD_POSITION", "position in the word"], ["CAPITAL", "capital letters"], ["INSIDE_QUOTES", "inside quotes"], ["LINE_START", "after a line break"]];

let box;
let attempt;
let map = null; // { key, start, size, length, signal, layer, values, order, column }
let cursor = { row: 0, column: 0 };
let brush = null; // { first, last, isOpen } columns
let isDrawing = false;
const parts = {};
const newest = latest();

export function setUp(element, attemptTo) {
  box = element;
  attempt = attemptTo;
}

export function refresh() {
  if (box.hidden) return;
  if (!state.session || text.end === 0 || isBeyondAscii()) {
    parts.canvas = null;
    map = null;
    box.replaceChildren(make("p.empty", {}, isBeyondAscii()
      ? "This network reads bytes, and some of these characters are several bytes. Its state is shown for texts of ASCII characters only."
      : "When the network has read something, its state after every character is here: characters across, units down."));
    return;
  }
  if (!parts.canvas) build();
  followChosen();
  if (!turn.running) attempt(load)();
}

function followChosen() {
  if (map && state.at !== null && state.at >= map.start && state.at < map.start + map.length) cursor.column = state.at - map.start;
}

function build() {
  parts.signal = make("select", { onchange: attempt(load) });
  parts.sort = make("select", { onchange: () => { map.order = null; draw(); } }, ...Object.entries(SORTS).map(([key, { name }]) => make("option", { value: key }, name)));
  parts.tip = make("p.tip", { "aria-live": "polite" });
  parts.trace = make("canvas.trace", { height: 70, role: "img", "aria-label": "The unit along the text" });
  parts.canvas = make("canvas", { tabindex: 0, role: "img", "aria-label": "Heat map of the state. Arrow keys move, Enter colours the text by the unit, Shift with arrows marks a span.", onpointermove: onMove, onpointerdown: onDown, onpointerup: onUp, onkeydown: onKey });
  parts.letters = make("canvas.letters", { "aria-hidden": "true" });
  parts.cross = make("div.over");
  parts.heat = make("div.heat", {}, parts.letters, parts.canvas, parts.cross);
  parts.found = make("div.chips", { "aria-live": "polite" });
  parts.gates = make("p.quiet");
  const pattern = make("input", { size: 16, placeholder: "pattern, such as [A-Z]+:", "aria-label": "A regular expression that labels the text", spellcheck: "false" });
  const property = make("select", { "aria-label": "Property" }, ...PROPERTIES.map(([key, name]) => make("option", { value: key }, name)), make("option", { value: "" }, "a pattern:"));
  box.replaceChildren(
    make("div.bar", {}, make("label.field", {}, "Show ", parts.signal), make("label.field", {}, "Rows by ", parts.sort), parts.gates),
    parts.heat, parts.tip, parts.trace,
    make("div.bar", {}, make("strong", {}, "Which unit follows"), property, pattern, make("button", { type: "button", onclick: attempt(() => find(property.value, pattern.value)) }, "Find")),
    parts.found,
    make("p.quiet", {}, "Click a row and the text takes its colour. Drag across characters to see which units are on there and off around. In shakespeare, C 1 236 follows the position in the line; in shakespeare-gru, H 1 111; plain networks have no such unit."),
  );
}

async function load() {
  const model = state.model;
  if (!map) parts.heat.setAttribute("aria-busy", "true");
  if (parts.signal.dataset.model !== model) {
    const { signals, gates_absent: absent } = await get(`/v1/inspect/models/${model}`);
    parts.signal.dataset.model = model;
    parts.signal.replaceChildren(...signals.map(({ signal, layer, size }) => make("option", { value: `${signal} ${layer} ${size}` }, `${NAMES[signal] ?? signal}, layer ${layer}`)));
    parts.signal.value = [...parts.signal.options].findLast((option) => option.value.startsWith("H "))?.value ?? parts.signal.value;
    parts.gates.textContent = absent ? `No gates: ${absent}` : "";
  }
  const [signal, layer, size] = parts.signal.value.split(" ");
  const key = [state.session, signal, layer, text.start, text.end].join();
  const wanted = state.at ?? text.end - 1;
  if (map?.key === key && wanted >= map.start && wanted < map.start + map.length) {
    if (map.theme === document.documentElement.dataset.theme) drawCross();
    else draw();
    return;
  }
  const end = Math.min(text.end, Math.max(wanted + MAX_SHOWN / 2, text.start + MAX_SHOWN));
  const start = Math.max(text.start, end - MAX_SHOWN);
  const request = newest();
  const next = { key, start, length: end - start, size: Number(size), signal, layer: Number(layer), values: new Float32Array((end - start) * size), order: null };
  parts.heat.setAttribute("aria-busy", "true");
  const body = { session: state.session, units: [{ signal, layer: next.layer }], start, end };
  for await (const { value } of events("POST", "/v1/inspect/watch", body, { signal: request })) {
    next.values.set(floats(value.values[0].data), (value.start - start) * next.size);
  }
  if (request.aborted) return;
  parts.heat.removeAttribute("aria-busy");
  const largest = next.values.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-6);
  next.scale = signal === "C" ? Math.min(largest, 2) : 1;
  map = next;
  followChosen();
  draw();
}

function draw() {
  if (!map) return;
  const { length, size, values, scale } = map;
  const characters = text.chars.slice(map.start - text.start, map.start - text.start + length).map((char) => char.c);
  map.order ??= sorted(map, characters, parts.sort.value);
  const cell = Math.max(7, Math.min(14, Math.floor((parts.heat.clientWidth - 2) / length)));
  map.cell = cell;
  Object.assign(parts.canvas, { width: length, height: size });
  parts.canvas.style.width = `${length * cell}px`;
  parts.canvas.style.height = `${size * ROW}px`;
  const context = parts.canvas.getContext("2d");
  const image = context.createImageData(length, size);
  map.theme = document.documentElement.dataset.theme;
  const dark = map.theme === "dark";
  for (let row = 0; row < size; row++) {
    const unit = map.order[row];
    for (let column = 0; column < length; column++) {
      colour(image.data, 4 * (row * length + column), values[column * size + unit] / scale, dark);
    }
  }
  context.putImageData(image, 0, 0);
  drawLetters(characters, cell);
  parts.trace.width = Math.max(300, parts.trace.clientWidth);
  parts.colours = ["--line", "--h", "--x"].map(token);
  drawCross();
}

/** Blue below zero, orange above, the paper's colour at zero. */
function colour(data, at, value, dark) {
  const part = Math.min(1, Math.abs(value));
  const [r, g, b] = dark ? [18, 23, 33] : [247, 248, 250];
  const [tr, tg, tb] = value < 0 ? [45, 110, 230] : [238, 105, 40];
  data[at] = r + (tr - r) * part;
  data[at + 1] = g + (tg - g) * part;
  data[at + 2] = b + (tb - b) * part;
  data[at + 3] = 255;
}

function drawLetters(characters, cell) {
  const canvas = parts.letters;
  canvas.width = characters.length * cell * devicePixelRatio;
  canvas.height = 18 * devicePixelRatio;
  canvas.style.width = `${characters.length * cell}px`;
  canvas.style.height = "18px";
  const context = canvas.getContext("2d");
  context.scale(devicePixelRatio, devicePixelRatio);
  context.fillStyle = token("--ink");
  context.font = `${Math.min(12, cell + 3)}px monospace`;
  context.textAlign = "center";
  characters.forEach((c, column) => context.fillText(c === " " ? "" : visible(c), (column + 0.5) * cell, 13));
}

function at(event) {
  const frame = parts.canvas.getBoundingClientRect();
  return {
    column: Math.max(0, Math.min(map.length - 1, Math.floor((event.clientX - frame.left) / map.cell))),
    row: Math.max(0, Math.min(map.size - 1, Math.floor((event.clientY - frame.top) / ROW))),
  };
}

function onMove(event) {
  if (!map) return;
  cursor = at(event);
  if (brush?.isOpen) brush.last = cursor.column;
  if (isDrawing) return;
  isDrawing = true; // many moves, one frame
  requestAnimationFrame(() => {
    isDrawing = false;
    drawCross();
  });
}

function onDown(event) {
  if (!map) return;
  parts.canvas.setPointerCapture(event.pointerId);
  cursor = at(event);
  brush = { first: cursor.column, last: cursor.column, isOpen: true };
}

function onUp() {
  if (!brush) return;
  brush.isOpen = false;
  if (Math.abs(brush.last - brush.first) < 2) {
    brush = null;
    pickRow();
  } else showSpan();
}

function onKey(event) {
  const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
  if (!map || (!dx && !dy && event.key !== "Enter")) return;
  event.preventDefault();
  if (event.key === "Enter") {
    if (brush) showSpan();
    else pickRow();
    return;
  }
  if (!event.shiftKey) brush = null;
  else brush ??= { first: cursor.column, last: cursor.column, isOpen: false };
  cursor.column = Math.max(0, Math.min(map.length - 1, cursor.column + dx));
  cursor.row = Math.max(0, Math.min(map.size - 1, cursor.row + dy));
  if (brush) brush.last = cursor.column;
  drawCross();
}

const unitAt = (row) => ({ signal: map.signal, layer: map.layer, unit: map.order[row] });

function pickRow() {
  set({ unit: unitName(unitAt(cursor.row)), colour: "unit" });
}

function drawCross() {
  if (!map?.order) return;
  const { column, row } = cursor;
  const value = map.values[column * map.size + map.order[row]];
  const char = charAt(map.start + column);
  if (!char) return;
  parts.tip.textContent = `${unitName(unitAt(row))} after ${visible(char.c)} at position ${map.start + column}: ${value.toFixed(3)}`;
  const [first, last] = brush ? [Math.min(brush.first, brush.last), Math.max(brush.first, brush.last)] : [column, column];
  const style = parts.cross.style;
  style.left = `${first * map.cell}px`;
  style.width = `${(last - first + 1) * map.cell}px`;
  style.top = "18px";
  style.height = `${map.size * ROW}px`;
  style.background = brush ? "rgba(120, 160, 255, .28)" : "rgba(120, 160, 255, .16)";
  style.borderTop = "0";
  drawTrace(map.order[row], column);
}

function drawTrace(unit, column) {
  const canvas = parts.trace;
  const width = canvas.width;
  const context = canvas.getContext("2d");
  const x = (index) => (index / Math.max(1, map.length - 1)) * (width - 4) + 2;
  const y = (value) => 35 - (Math.max(-1, Math.min(1, value / map.scale)) * 31);
  context.clearRect(0, 0, width, 70);
  context.strokeStyle = parts.colours[0];
  context.strokeRect(0, y(0), width, 0);
  context.strokeStyle = parts.colours[1];
  context.lineWidth = 1.5;
  context.beginPath();
  for (let index = 0; index < map.length; index++) context.lineTo(x(index), y(map.values[index * map.size + unit]));
  context.stroke();
  context.fillStyle = parts.colours[2];
  context.fillRect(x(column) - 1, 0, 2, 70);
}

/** The units of a span, as buttons; and every other place where they are on too. */
function showSpan() {
  const first = Math.min(brush.first, brush.last);
  const last = Math.max(brush.first, brush.last);
  const units = onIn(map, first, last);
  showUnits(`On from position ${map.start + first} to ${map.start + last}, and off around:`, units.map(({ unit, inside, outside }) => ({ unit: { ...unitAt(0), unit }, said: `${inside.toFixed(2)} there, ${outside.toFixed(2)} around` })));
  paint.marks.clear();
  for (const column of similar(map, units, first, last)) paint.marks.set(map.start + column, "near");
  emit("paint");
}

async function find(property, pattern) {
  const labels = property ? { text_property: property } : { pattern };
  const { units, num_labelled: labelled, num_characters: all } = await post("/v1/inspect/units", { session: state.session, start: text.start, num_units: 12, ...labels });
  showUnits(`${labelled} of ${all} characters are labelled. Units that follow best, with their correlation:`, units.map((unit) => ({ unit, said: unit.correlation.toFixed(2) })));
  paint.marks.clear();
  labelling(text.chars.map((char) => char.c), property, pattern).forEach((is, index) => is && paint.marks.set(text.start + index, "near"));
  emit("paint");
}

function showUnits(title, found) {
  parts.found.replaceChildren(make("span", {}, title), ...found.map(({ unit, said }) => make("button", { type: "button", title: "Colour the text by this unit", onclick: () => set({ unit: unitName(unit), colour: "unit" }) }, `${unitName(unit)}  ${said}`)));
}
