/** What the page shows, one value for each thing; all that a link can say is in the address. */

const DEFAULTS = {
  model: "", session: "", temperature: 1, topK: null, topP: null, minP: null, seed: null,
  colour: "surprise", unit: "", at: null, tab: "memory", card: null,
};
const NUMBERS = new Set(["temperature", "topK", "topP", "minP", "seed", "at", "card"]);

const listeners = [];

/** The state: read it anywhere, change it with `set` only. */
export const state = { ...DEFAULTS, ...fromAddress() };

/** The text of the session: characters from a position on; each `{c, isRead, nats, top, effective}`. */
export const text = { start: 0, chars: [], get end() { return this.start + this.chars.length; } };

/** What is known of the model, as the door lists it. */
export const models = new Map();

/** Change some values; whoever listens to one of them is called with all that changed. */
export function set(changes, { isStep = false } = {}) {
  const changed = Object.keys(changes).filter((key) => state[key] !== changes[key]);
  if (!changed.length) return;
  Object.assign(state, changes);
  toAddress(isStep);
  emit(...changed);
}

/** Call `act` after one of some values changed; "text" stands for the characters, "busy" for a running turn. */
export function on(keys, act) {
  listeners.push({ keys: new Set(keys), act });
}

export function emit(...keys) {
  for (const { keys: wanted, act } of listeners) if (keys.some((key) => wanted.has(key))) act(keys);
}

/** The character of a position, if the page has it. */
export const charAt = (position) => text.chars[position - text.start];

/** Read a link: the state after the visitor went back or forward. */
export function readAddress() {
  const next = { ...DEFAULTS, ...fromAddress() };
  const changed = Object.keys(next).filter((key) => state[key] !== next[key]);
  Object.assign(state, next);
  emit(...changed);
}

function fromAddress() {
  const found = {};
  for (const [key, value] of new URLSearchParams(location.search)) {
    if (!(key in DEFAULTS)) continue;
    const number = Number(value);
    if (!NUMBERS.has(key)) found[key] = value;
    else if (value !== "" && Number.isFinite(number) && number >= 0) found[key] = number;
  }
  return found;
}

function toAddress(isStep) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    if (value !== DEFAULTS[key] && value !== null && value !== "") query.set(key, value);
  }
  const address = query.size ? `?${query}` : location.pathname;
  if (isStep) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
}
