/** Elements, made of names and texts only: nothing that anybody wrote is ever read as HTML. */

/** Make an element: attributes, `on...` listeners, properties that begin with a dot, then children. */
export function make(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const isSvg = ["svg", "path", "line", "text", "rect", "circle", "g"].includes(name);
  const element = isSvg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key.startsWith(".")) element[key.slice(1)] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter(isThere));
  return element;
}

const isThere = (child) => child !== null && child !== undefined && child !== false;

/** Replace what is in an element. */
export function fill(element, ...children) {
  element.replaceChildren(...children.filter(isThere));
}

/** Say something else: a sentence that stays costs no layout. */
export function say(element, sentence) {
  if (element.textContent !== sentence) element.textContent = sentence;
}

export const byId = (id) => document.getElementById(id);

/** A character as it can be seen. */
export function visible(character) {
  return { "\n": "↵", " ": "␣", "\t": "⇥" }[character] ?? (/\p{C}|\p{Z}/u.test(character) ? `x${character.codePointAt(0).toString(16)}` : character);
}

/** Colours of a value: what surprises, and what is negative or positive. */
export function surpriseColour(nats) {
  if (nats === null || nats === undefined) return "";
  const part = Math.min(1, nats / 6);
  return `rgba(${Math.round(235 - 15 * part)}, ${Math.round(150 - 110 * part)}, 40, ${(0.62 * Math.sqrt(part)).toFixed(3)})`;
}

export function signedColour(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "";
  const size = Math.min(1, Math.abs(value));
  return value < 0 ? `rgba(40, 105, 225, ${(0.62 * size).toFixed(3)})` : `rgba(235, 95, 30, ${(0.62 * size).toFixed(3)})`;
}

/** The value of a colour of the style sheet. */
export const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Call `act` once things were quiet for a while. */
export function quietly(ms, act) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...values), ms);
  };
}
