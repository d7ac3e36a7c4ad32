/** Labels of characters: their colours, and where they are shown. */

const COLOURS = ["h", "wxh", "whh", "b", "why", "x", "y"];
const KNOWN = { negative: "x", neutral: "quiet", positive: "whh", plain: "quiet", mark: "x", quoted: "h" };

export const colourOf = (label, place) => KNOWN[label] ?? COLOURS[place % COLOURS.length];

/** Whether the word of a character goes on after it: read-outs of words are not trained there. */
export function isWithinWord(characters, index) {
  const isLetter = (c) => c !== undefined && /\p{L}/u.test(c);
  return isLetter(characters[index]) && isLetter(characters[index + 1]);
}

/**
 * Return the labels as `strip` takes them: the likeliest label of each shown character, equal neighbours joined. A word has
 * the label of its last letter. `isOpen`: the last word may go on.
 */
export function runs(characters, rows, labels, { isHidden = () => false, isOpen = false } = {}) {
  const found = [];
  let from = 0;
  rows.forEach((row, index) => {
    if (isHidden(index)) return;
    const place = row.indexOf(Math.max(...row));
    const isSpace = characters[index] === " ";
    const before = found.at(-1);
    const isLast = index === rows.length - 1;
    if (isSpace && before) { // no word of its own: a gap
      from = index + 1;
      return;
    }
    if (before?.place === place && !(isLast && isOpen)) before.to = index + 1;
    else found.push({ from, to: index + 1, place, text: labels[place], colour: colourOf(labels[place], place), isOpen: isLast && isOpen });
    from = index + 1;
  });
  return found;
}
