/** The rows of the heat map: their order, and what a span of them has in common. No element is touched here. */

const NEAR = 40; // characters around a span that it is compared with

const isWord = (c) => /[\p{L}\p{N}]/u.test(c);

/** For each character whether it is labelled, for those labels that the page computes itself. */
export function labelling(characters, property, pattern) {
  if (property === "INSIDE_WORD") return characters.map(isWord);
  if (property === "CAPITAL") return characters.map((c) => /\p{Lu}/u.test(c));
  if (property === "LINE_START") return characters.map((_, index) => index > 0 && characters[index - 1] === "\n");
  if (property || !pattern) return characters.map(() => false);
  const labels = characters.map(() => false);
  try {
    const marks = [...characters.join("").matchAll(new RegExp(pattern, "gu"))].slice(0, 5000);
    for (const { index, 0: found } of marks) labels.fill(true, index, index + found.length);
  } catch {
    // The server's expressions are not quite a browser's: then nothing is underlined.
  }
  return labels;
}

/** Ways to order the rows; `of` gives each character a number, which units are compared with. */
export const SORTS = {
  variance: { name: "how much they vary" },
  line: { name: "position in the line", of: counting((c) => c !== "\n") },
  word: { name: "inside a word", of: (characters) => characters.map((c) => Number(isWord(c))) },
  capital: { name: "inside a name in capitals", of: (characters) => characters.map((c) => Number(/\p{Lu}/u.test(c))) },
  quoted: { name: "inside quotes", of: quoted },
  index: { name: "their number" },
};

function counting(goesOn) {
  return (characters) => {
    let count = 0;
    return characters.map((c) => (count = goesOn(c) ? count + 1 : 0));
  };
}

function quoted(characters) {
  let is = 0;
  return characters.map((c) => (is = c === '"' ? 1 - is : is));
}

/** Return the units in the order of their rows. */
export function sorted({ values, size, length }, characters, by) {
  const units = Array.from({ length: size }, (_, unit) => unit);
  if (by === "index") return units;
  const labels = SORTS[by].of?.(characters);
  const scores = units.map((unit) => (labels ? Math.abs(correlation(values, size, length, unit, labels)) : variance(values, size, length, unit)));
  return units.sort((a, b) => scores[b] - scores[a]);
}

function mean(values, size, unit, from, to) {
  let sum = 0;
  for (let index = from; index < to; index++) sum += values[index * size + unit];
  return sum / Math.max(1, to - from);
}

function variance(values, size, length, unit) {
  const middle = mean(values, size, unit, 0, length);
  let sum = 0;
  for (let index = 0; index < length; index++) sum += (values[index * size + unit] - middle) ** 2;
  return sum / length;
}

function correlation(values, size, length, unit, labels) {
  const middle = mean(values, size, unit, 0, length);
  const labelMiddle = labels.reduce((a, b) => a + b, 0) / length;
  let both = 0;
  let own = 0;
  let other = 0;
  for (let index = 0; index < length; index++) {
    const a = values[index * size + unit] - middle;
    const b = labels[index] - labelMiddle;
    both += a * b;
    own += a * a;
    other += b * b;
  }
  return own && other ? both / Math.sqrt(own * other) : 0;
}

/** The units whose mean in a span of columns differs most from that around it. */
export function onIn({ values, size, length }, first, last, count = 8) {
  const found = [];
  for (let unit = 0; unit < size; unit++) {
    const inside = mean(values, size, unit, first, last + 1);
    const from = Math.max(0, first - NEAR);
    const to = Math.min(length, last + 1 + NEAR);
    const before = mean(values, size, unit, from, first) * (first - from);
    const after = mean(values, size, unit, last + 1, to) * (to - last - 1);
    const outside = (before + after) / Math.max(1, to - from - (last - first + 1));
    found.push({ unit, inside, outside });
  }
  return found.sort((a, b) => Math.abs(b.inside - b.outside) - Math.abs(a.inside - a.outside)).slice(0, count);
}

/** The other columns where the same units are on. */
export function similar({ values, size, length }, units, first, last) {
  const columns = [];
  for (let column = 0; column < length; column++) {
    if (column >= first && column <= last) continue;
    const agreeing = units.filter(({ unit, inside, outside }) => {
      const value = values[column * size + unit];
      return Math.abs(value - inside) < Math.abs(value - outside);
    });
    if (agreeing.length >= 0.8 * units.length) columns.push(column);
  }
  return columns;
}
