/**
 * The text: a span a character, coloured, chosen by click or arrow keys. Each line is a block of its own, so that a new
 * character costs the browser its line, however long the text is.
 */

import { byId, make, say, signedColour, surpriseColour, token, visible } from "./dom.js";
import { charAt, emit, on, set, state, text } from "./state.js";
import { isByteLevel, readBack, path } from "./session.js";
import { get } from "./api.js";

const box = byId("text");
const earlier = byId("earlier");
let spans = []; // the characters that are shown
let shownStart = 0; // position of the first
let chosen = null; // one of them
let isPending = false;

/** Values that colour the text, from a position on: of a unit, of a read-out, or of what is remembered. */
export const paint = { start: 0, values: [], marks: new Map() };

export function setUp() {
  on(["text"], renderAll);
  on(["more"], () => {
    if (isPending) return;
    isPending = true; // many characters, one frame
    requestAnimationFrame(() => {
      isPending = false;
      renderMore();
    });
  });
  on(["colour", "paint"], recolour);
  on(["at"], showChosen);
  box.addEventListener("click", ({ target }) => {
    const index = spans.indexOf(target.closest("i"));
    if (index >= 0) set({ at: shownStart + index });
  });
  box.addEventListener("keydown", onKey);
  earlier.addEventListener("click", async () => readBack(Math.max(0, text.start - 3000), await get(path())));
}

function renderAll() {
  box.replaceChildren();
  spans = [];
  shownStart = text.start;
  earlier.hidden = text.start === 0;
  renderMore();
  showChosen();
  box.scrollTop = box.scrollHeight;
}

function renderMore() {
  if (text.start < shownStart || text.start > shownStart + spans.length) {
    renderAll();
    return;
  }
  const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 60;
  for (const old of spans.splice(0, text.start - shownStart)) (old.parentElement.childElementCount > 1 ? old : old.parentElement).remove();
  shownStart = text.start;
  earlier.hidden = text.start === 0;
  while (spans.length < text.chars.length) append(text.chars[spans.length]);
  emit("shown"); // first: the scroll below is then the frame's only layout
  if (isAtEnd) box.scrollTop = box.scrollHeight;
}

function append(char) {
  if (!box.lastElementChild || spans.at(-1)?.textContent === "\n") box.append(make("div"));
  const element = span(char, shownStart + spans.length);
  box.lastElementChild.append(element);
  spans.push(element);
}

function span(char, position) {
  const kind = `${char.isRead ? "read" : "written"}${char.c === "\n" ? " line" : ""}`;
  const element = make("i", { class: kind }, char.c);
  element.style.backgroundColor = colourOf(char, position);
  const mark = paint.marks.get(position);
  if (mark) element.classList.add(mark);
  return element;
}

function colourOf(char, position) {
  if (state.colour === "surprise") return surpriseColour(char.nats);
  if (state.colour === "none") return "";
  return signedColour(paint.values[position - paint.start]);
}

function recolour() {
  spans.forEach((element, index) => {
    const position = shownStart + index;
    element.style.backgroundColor = colourOf(charAt(position), position);
    element.classList.remove("near", "equal", "unequal");
    const mark = paint.marks.get(position);
    if (mark) element.classList.add(mark);
  });
  showScale();
}

function showScale() {
  const scale = byId("scale");
  scale.hidden = state.colour === "none";
  const [low, high] = { surprise: ["0", "6 nats"], memory: ["misleads", "missed"], readout: ["", "1"] }[state.colour] ?? ["−1", "+1"];
  scale.firstElementChild.textContent = low;
  scale.lastElementChild.textContent = high;
  const canvas = scale.querySelector("canvas");
  const context = canvas.getContext("2d");
  context.fillStyle = token("--sunk");
  context.fillRect(0, 0, canvas.width, canvas.height);
  for (let x = 0; x < canvas.width; x++) {
    const part = x / (canvas.width - 1);
    context.fillStyle = (state.colour === "surprise" ? surpriseColour(6 * part) : signedColour(2 * part - 1)) || "transparent";
    context.fillRect(x, 0, 1, canvas.height);
  }
}

function showChosen() {
  chosen?.classList.remove("chosen");
  const char = state.at === null ? undefined : charAt(state.at);
  byId("chosen-actions").hidden = !char || isByteLevel();
  if (!char) {
    chosen = null;
    say(byId("chosen"), text.end ? "Choose a character to see what else was likely there." : "");
    return;
  }
  chosen = spans[state.at - shownStart];
  chosen?.classList.add("chosen");
  chosen?.scrollIntoView({ block: "nearest" });
  const surprise = char.nats === null ? "" : `: it had ${(100 * Math.exp(-char.nats)).toFixed(1)} %, ${char.nats.toFixed(2)} nats of surprise`;
  say(byId("chosen"), `Position ${state.at}, ${visible(char.c)}, ${char.isRead ? "read" : "written"}${surprise}.`);
}

function onKey(event) {
  const here = state.at ?? text.end;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -40, ArrowDown: 40, Home: text.start - here, End: text.end - here };
  if (!(event.key in steps) || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const next = Math.max(text.start, here + steps[event.key]);
  set({ at: next >= text.end ? null : next });
}

export { showScale };
