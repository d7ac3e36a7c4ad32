/** Numbers as coloured cells: a positive one has the colour of its quantity, a negative one is grey. */

import { make, token, visible } from "../dom.js";

const MAX_WRITTEN = 24; // numbers of a block whose cells have room for them
const PIXELS = 256; // of the longer side of a drawn block

/** A number of a cell. */
export const number = (value) => value.toFixed(3).replace("-", "−");

/** What an output stands for: a character as it can be seen, or the name of a class or label. */
export const symbol = (name) => ([...name].length === 1 ? visible(name) : name);

/**
 * Return a block of cells with its name. `colour` is a colour of the lesson without its dashes, `rows` are the numbers.
 * `scale` is the size that has the full colour; `marked` a column that is framed; `phase` when it is computed.
 */
export function block(colour, name, rows, { scale, marked, phase = 0, names = [] } = {}) {
  const flat = rows.flat();
  const full = scale ?? largest(flat);
  const size = `${rows.length} × ${rows[0].length}`;
  const body = flat.length <= MAX_WRITTEN ? written(colour, rows, full, marked) : drawn(colour, name, rows, full, { marked, names });
  return make("figure.block", { "data-phase": phase, title: `${name}: ${size}` }, make(`figcaption.c-${colour}`, {}, name, flat.length > MAX_WRITTEN && rows[0].length > 1 ? make("span.quiet", {}, ` ${size}`) : null), body);
}

/** The size that nearly all numbers of a block stay below: a few large ones do not make the others pale. */
function largest(flat) {
  const sizes = flat.map(Math.abs).sort((a, b) => a - b);
  return sizes[Math.floor(0.99 * (sizes.length - 1))] || sizes.at(-1) || 1;
}

function written(colour, rows, full, marked) {
  const table = make("div.numbers", {});
  table.style.gridTemplateColumns = `repeat(${rows[0].length}, auto)`;
  rows.forEach((row) => row.forEach((value, column) => {
    const cell = make(`i${column === marked ? ".marked" : ""}`, {}, number(value));
    cell.style.background = `color-mix(in srgb, var(--${value < 0 ? "quiet" : colour}) calc(${Math.min(1, Math.abs(value) / full).toFixed(2)} * var(--cell)), transparent)`;
    table.append(cell);
  }));
  return table;
}

function drawn(colour, name, rows, full, { marked, names }) {
  const cell = Math.max(2, Math.floor(PIXELS / Math.max(rows.length, rows[0].length)));
  const wide = rows[0].length === 1 ? 14 : cell;
  const flat = rows.flat();
  const said = `${name}, ${rows.length} by ${rows[0].length}, from ${number(Math.min(...flat))} to ${number(Math.max(...flat))}`;
  const canvas = make("canvas", { width: rows[0].length * wide, height: rows.length * cell, role: "img", "aria-label": said });
  const context = canvas.getContext("2d");
  const [positive, negative, frame] = [token(`--${colour}`), token("--quiet"), token("--ink")];
  rows.forEach((row, y) => row.forEach((value, x) => {
    context.globalAlpha = Math.min(1, Math.abs(value) / full);
    context.fillStyle = value < 0 ? negative : positive;
    context.fillRect(x * wide, y * cell, wide, cell);
  }));
  context.globalAlpha = 1;
  context.strokeStyle = frame;
  if (marked >= 0) context.strokeRect(marked * wide - 0.5, 0.5, wide + 1, canvas.height - 1);
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const x = Math.min(rows[0].length - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * rows[0].length)));
    const y = Math.min(rows.length - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * rows.length)));
    const column = rows[0].length > 1 ? `, ${names[x] === undefined ? x : visible(names[x])}` : "";
    canvas.title = `${name} [${y}${column}] = ${number(rows[y][x])}`;
  });
  return canvas;
}

/** A vector as a column. */
export const column = (colour, name, values, options) => block(colour, name, values.map((value) => [value]), options);

/** A long vector as a tile of cells, row after row. */
export function tile(colour, name, values, options) {
  const across = values.length > 24 ? Math.ceil(Math.sqrt(2 * values.length)) : values.length;
  const rows = [];
  for (let from = 0; from < values.length; from += across) rows.push(values.slice(from, from + across));
  while (rows.at(-1).length < across) rows.at(-1).push(0);
  return block(colour, name, rows, options);
}

/** A sign between blocks. */
export const sign = (text, phase = 0) => make("span.sign", { "data-phase": phase }, text);
