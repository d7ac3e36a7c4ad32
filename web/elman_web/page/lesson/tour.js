/** The tour: each card shows something on the page, asks, and shows the answer after the prediction. */

import { byId, fill, make } from "../dom.js";
import { on, set, state } from "../state.js";
import { CARDS, isServed } from "./cards.js";

const box = byId("tour");
let attempt;

export function setUp(attemptTo) {
  attempt = attemptTo;
  byId("open-tour").addEventListener("click", () => set({ card: 1 }));
  box.addEventListener("keydown", (event) => event.key === "Escape" && (event.stopPropagation(), set({ card: null })));
  on(["card"], show);
  if (state.card) show();
}

function show() {
  const wasOpen = !box.hidden;
  box.hidden = !CARDS[state.card - 1];
  if (box.hidden) {
    if (wasOpen) byId("open-tour").focus();
    return;
  }
  const card = CARDS[state.card - 1];
  const [extra, lacking] = [make("div.extra", {}), make("div", {})];
  const follow = () => card.extra && state.card && CARDS[state.card - 1] === card && fill(extra, card.extra());
  const answer = make("div.answer", { hidden: true, role: "status" });
  const choices = card.choices.map((choice, at) => make("button", { type: "button", onclick: () => predict(card, at, choices, answer, follow) }, choice));
  const heading = make("h2", { tabindex: -1 }, card.title);
  fill(box,
    make("header", {}, make("span.quiet", {}, `${state.card} of ${CARDS.length}`), heading, make("button.icon", { type: "button", "aria-label": "Close the tour", onclick: () => set({ card: null }) }, "✕")),
    make("p", {}, card.said), extra,
    make("div.bar", {}, make("button.primary", { type: "button", onclick: attempt(async () => fill(lacking, ...(await stage(card, card.show, follow)))) }, "Show me")), lacking,
    make("fieldset", {}, make("legend", {}, card.ask), ...choices), answer,
    make("div.bar", {}, make("button", { type: "button", disabled: state.card === 1, onclick: () => set({ card: state.card - 1 }) }, "Back"), make("button", { type: "button", disabled: state.card === CARDS.length, onclick: () => set({ card: state.card + 1 }) }, "Next")));
  follow();
  following = follow;
  heading.focus({ preventScroll: true });
}

let following = () => {};
on(["temperature"], () => box.hidden || following());

/** Do what a card does to the page; return what it adds to the card. */
async function stage(card, act, follow) {
  if (!act) return [];
  if (!isServed(card)) return [make("p.quiet", {}, `This server does not have ${card.needs}: elman-server --models models serves it after python -m elman_web.lesson models.`)];
  const more = await act();
  follow();
  return more ?? [];
}

/** After a prediction: whether it was right, why, and the proof on the page. */
function predict(card, at, choices, answer, follow) {
  choices.forEach((button, index) => button.setAttribute("aria-pressed", index === at));
  const said = make("p", {}, make("strong", {}, at === card.answer ? "Yes. " : `No: ${card.choices[card.answer]}. `), card.because);
  answer.hidden = false;
  fill(answer, said);
  attempt(async () => {
    const more = await stage(card, card.reveal, follow);
    if (answer.firstChild === said) answer.append(...more);
    answer.scrollIntoView({ block: "nearest" });
  })();
}
