/** Lines over numbers, as an SVG. */

import { make } from "./dom.js";

const COLOURS = ["--h", "--x", "--whh", "--b", "--wxh", "--y", "--why"];
const WIDTH = 720;
const HEIGHT = 220;
const EDGE = { left: 44, right: 12, top: 10, bottom: 34 };

/**
 * Return a chart and its legend. `lines` are `{name, points: [[x, y]]}`; `marks` are values of x with a text.
 */
export function chart(lines, { x, y, low, high, marks = [] }) {
  const all = lines.flatMap((line) => line.points);
  if (!all.length) return make("p.empty", {}, "Nothing to show.");
  const xs = all.map((point) => point[0]);
  const ys = all.map((point) => point[1]);
  const [minX, maxX] = [Math.min(...xs), Math.max(...xs)];
  const minY = low ?? Math.min(0, ...ys);
  const maxY = high ?? Math.max(...ys, minY + 1e-6);
  const atX = (value) => EDGE.left + ((value - minX) / (maxX - minX || 1)) * (WIDTH - EDGE.left - EDGE.right);
  const atY = (value) => HEIGHT - EDGE.bottom - ((value - minY) / (maxY - minY)) * (HEIGHT - EDGE.top - EDGE.bottom);
  const svg = make("svg.chart", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": describe(lines, x, y) });
  for (let part = 0; part <= 4; part++) {
    const value = minY + (part / 4) * (maxY - minY);
    svg.append(stroked(make("line", { x1: EDGE.left, x2: WIDTH - EDGE.right, y1: atY(value), y2: atY(value) }), "--line"));
    svg.append(make("text", { x: EDGE.left - 6, y: atY(value) + 4, "text-anchor": "end" }, value.toFixed(Math.abs(maxY - minY) < 10 ? 1 : 0)));
  }
  for (const [value, label] of marks) svg.append(make("text", { x: atX(value), y: HEIGHT - EDGE.bottom + 14, "text-anchor": "middle" }, label));
  if (!marks.length) for (const value of [minX, Math.round((minX + maxX) / 2), maxX]) svg.append(make("text", { x: atX(value), y: HEIGHT - EDGE.bottom + 14, "text-anchor": "middle" }, String(value)));
  svg.append(make("text", { x: WIDTH - EDGE.right, y: HEIGHT - 4, "text-anchor": "end" }, x), make("text", { x: 4, y: 10 }, y));
  lines.forEach((line, index) => {
    const path = line.points.map(([px, py], at) => `${at ? "L" : "M"}${atX(px).toFixed(1)} ${atY(py).toFixed(1)}`).join("");
    svg.append(stroked(make("path", { d: path, fill: "none", "stroke-width": 2 }), COLOURS[index % COLOURS.length]));
  });
  const legend = make("div.legend", {}, ...lines.map((line, index) => {
    const sample = make("i");
    sample.style.background = `var(${COLOURS[index % COLOURS.length]})`;
    return make("span", {}, sample, line.name);
  }));
  return make("div", {}, svg, legend);
}

function stroked(element, colour) {
  element.style.stroke = `var(${colour})`;
  return element;
}

function describe(lines, x, y) {
  const ends = lines.map(({ name, points }) => `${name}: ${points[0][1].toFixed(2)} to ${points.at(-1)[1].toFixed(2)}`);
  return `${y} by ${x}. ${ends.join("; ")}`;
}
