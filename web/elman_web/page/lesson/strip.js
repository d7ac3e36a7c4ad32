/** Lines along a text: a column for each character, which scrolls where the screen is narrower. */

import { make, visible } from "../dom.js";

const NARROWEST = 15; // pixels of a column
const WIDEST = 28;
const ENOUGH = 900; // pixels of a text that need not be wider
const HIGH = 150;
const LETTER = 7.5; // of a label
const LEFT = 42;
const TOP = 10;

/**
 * Return a chart whose columns are the characters of a text. `lines` are `{name, colour, values, isThin}`: a value, or null,
 * for each character. `labels` are `{from, to, text, colour, isOpen}` below the characters from a position to before another.
 */
export function strip(characters, lines, { low, high, name, labels = [] }) {
  const wide = matchMedia("(min-width: 720px)").matches ? Math.max(NARROWEST, Math.min(WIDEST, Math.floor(ENOUGH / characters.length))) : NARROWEST;
  const atX = (index) => LEFT + (index + 0.5) * wide;
  const atY = (value) => TOP + (1 - (value - low) / (high - low)) * HIGH;
  const width = LEFT + characters.length * wide + 8;
  const height = TOP + HIGH + 26 + (labels.length ? 22 : 0);
  const svg = make("svg.strip", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": describe(characters, lines, name) });
  for (let part = 0; part <= 4; part++) {
    const value = low + (part / 4) * (high - low);
    svg.append(make("line", { class: value === 0 ? "zero" : "grid-line", x1: LEFT, x2: width, y1: atY(value), y2: atY(value) }));
    svg.append(make("text", { class: "tick", x: LEFT - 6, y: atY(value) + 4, "text-anchor": "end" }, value.toFixed(high - low < 8 ? 2 : 0).replace("-", "−")));
  }
  characters.forEach((c, index) => {
    svg.append(make("text", { class: "letter", x: atX(index), y: TOP + HIGH + 17, "text-anchor": "middle" }, visible(c)));
  });
  for (const { colour, values, isThin } of lines) {
    const points = values.map((value, index) => [index, value]).filter(([, value]) => value !== null);
    const path = points.map(([index, value], at) => `${at ? "L" : "M"}${atX(index)} ${atY(value).toFixed(1)}`).join("");
    svg.append(coloured(make("path", { d: path, fill: "none", class: isThin ? "thin" : "thick" }), "stroke", colour));
    if (!isThin) svg.append(...points.map(([index, value]) => coloured(make("circle", { cx: atX(index), cy: atY(value), r: 2.5 }), "fill", colour)));
  }
  labels.forEach(({ from, to, text, colour, isOpen }, place) => {
    const isApart = (labels[place - 1]?.to ?? from - 1) < from && (labels[place + 1]?.from ?? to + 1) > to;
    const line = make("line", { class: `span${isOpen ? " open" : ""}`, x1: atX(from) - wide / 3, x2: atX(to - 1) + wide / 3, y1: TOP + HIGH + 25, y2: TOP + HIGH + 25 });
    svg.append(coloured(line, "stroke", colour));
    if (text.length * LETTER > (to - from + (isApart ? 1 : 0)) * wide) return; // it would touch the next one; the colour says it
    svg.append(coloured(make("text", { class: "label", x: (atX(from) + atX(to - 1)) / 2, y: TOP + HIGH + 40, "text-anchor": "middle" }, text), "fill", colour));
  });
  const legend = make("div.legend", {}, ...lines.map((line) => {
    const sample = make("i", {});
    sample.style.background = `var(--${line.colour})`;
    return make("span", {}, sample, line.name);
  }));
  return make("div", {}, legend, make("div.scroll", { tabindex: 0, role: "region", "aria-label": name }, svg));
}

function coloured(element, property, colour) {
  element.style[property] = `var(--${colour})`;
  return element;
}

function describe(characters, lines, name) {
  return `${name} along ${characters.map(visible).join("")}. At the end: ${lines.map((line) => `${line.name} ${(line.values.findLast((value) => value !== null) ?? 0).toFixed(2)}`).join(", ")}.`;
}
