/** The tour: thirteen cards of the lesson. Each shows something on the page, and asks before it answers. */

import { byId, make } from "./dom.js";
import { models, set } from "./state.js";

const has = (name) => models.has(name);

/** `show` is what "Show me" does to the page; `answer` is the index of the right choice. */
const CARDS = [
  { title: "A state that is carried along", said: "h′ = tanh(W_xh x + W_hh h + b). Every number of h stays between −1 and 1, and the first h is 0.", show: { tab: "step" }, ask: "A unit's sum is 1000. What is its h?", choices: ["1000", "almost exactly 1", "0"], answer: 1, because: "tanh squeezes every sum into −1 to 1." },
  { title: "An output at every step", said: "y = W_hy h + b_y. The model elman-128 has 128 units and knows 65 characters.", show: { tab: "step", model: "elman-128" }, ask: "How many numbers has its W_hy?", choices: ["128", "65 × 128 = 8320", "65 × 65"], answer: 1, because: "A row for each character, a column for each unit: 65 logits." },
  { title: "Softmax", said: "Softmax turns logits into probabilities: 2.0, 1.0 and 0.1 become 0.659, 0.242 and 0.099.", show: { tab: "step" }, ask: "All three logits grow by 5. What happens to the probabilities?", choices: ["they grow", "nothing", "the first becomes 1"], answer: 1, because: "Only differences of logits matter." },
  { title: "Temperature", said: "Before softmax the logits are divided by T. Move the slider and look at the bars.", show: { temperature: 0.5 }, ask: "At T = 2, the likeliest character becomes …", choices: ["likelier", "less likely", "impossible"], answer: 1, because: "A high temperature flattens: 0.659 becomes 0.502. T = 0.5 makes it 0.864." },
  { title: "A sample, not the best", said: "The next character is sampled: a random number chooses its place on the bar. The number follows from seed and position.", show: { temperature: 1 }, ask: "Same text, same seed, tomorrow, on another server. Is the next text the same?", choices: ["yes, bit for bit", "only at T = 0", "no"], answer: 0, because: "That is this server's promise, for the same model and the same arithmetic." },
  { title: "One character at a time", said: "The network reads h, e, l, l, o one after the other. Its h after each encodes all before it.", show: { tab: "step" }, ask: "It reads l twice in hello. Is h the same after both?", choices: ["yes, it is the same letter", "no, the state before differs"], answer: 1, because: "Choose the three units reading hello, and step from the first l to the second." },
  { title: "What it expects", said: "After hel the bars show what the network expects.", show: { temperature: 1 }, ask: "Which is more likely after hel?", choices: ["l or p", "z or q"], answer: 0, because: "Write hel, press Only read, and look at Next character." },
  { title: "By hand", said: "Two units: tanh(ln 2) = 0.6 and tanh(ln 3) = 0.8. Three classes: the first wins with 1.05.", show: { tab: "step" }, ask: "And its probability?", choices: ["1.05", "0.624", "0.333"], answer: 1, because: "softmax(1.05, −0.1, −0.2) = 0.624, 0.198, 0.179." },
  { title: "A label at every step", said: "A network may answer every character with a label instead of the next character: quoted or not.", show: { tab: "meaning" }, ask: "The same mark opens and closes a quotation. How can a network tell which it is?", choices: ["from the state", "it cannot"], answer: 0, because: "The character is the same; only h distinguishes them." },
  { title: "Meaning, as it reads", said: "A read-out of the state follows the mood of a phrase while it is read.", show: { tab: "meaning" }, ask: "The movie was terrible, no, terribly good! Where does the line end?", choices: ["negative", "neutral", "positive"], answer: 2, because: "It turns when the last word is read: 0.991 positive." },
  { title: "The same matrices at every step", said: "However long the text, the parameters and the state stay the same size.", show: { tab: "memory" }, ask: "A session of shakespeare has read a million characters. How large is its state?", choices: ["a million numbers", "as large as after one character"], answer: 1, because: "8 KB, always. The transcript is longer, the state is not." },
  { title: "Programs", said: "A network of four units learns to count a's and b's.", show: { tab: "programs" }, ask: "It was trained up to ten a's. What does it do with fifteen?", choices: ["it counts on", "it stops at ten"], answer: 0, because: "It learned counting, not ten lines. Move n until it fails." },
  { title: "Gates", said: "A plain network loses what it read some ten characters ago. Gates of an LSTM or a GRU keep it.", show: { tab: "memory", model: () => (has("shakespeare") ? "shakespeare" : undefined) }, ask: "One unit of shakespeare counts the position in the line. Has a plain network such a unit?", choices: ["yes", "no, at best a faint one"], answer: 1, because: "Write a few lines, sort rows by the position in the line: C 1 236 follows it with r = 0.89; the best of the plain networks reach 0.29." },
];

const box = byId("tour");
let index = 0;

export function setUp() {
  byId("open-tour").addEventListener("click", () => {
    box.hidden = false;
    show();
  });
}

function show() {
  const card = CARDS[index];
  const answer = make("p.answer", { hidden: true, role: "status" }, "");
  const choices = card.choices.map((choice, at) => make("button", { type: "button", onclick: () => {
    answer.hidden = false;
    answer.textContent = `${at === card.answer ? "Yes." : `No: ${card.choices[card.answer]}.`} ${card.because}`;
  } }, choice));
  const heading = make("h2", { tabindex: -1 }, card.title);
  box.replaceChildren(
    make("header", {}, make("span.quiet", {}, `${index + 1} of ${CARDS.length}`), heading, make("button.icon", { type: "button", "aria-label": "Close the tour", onclick: close }, "✕")),
    make("p", {}, card.said),
    make("div.bar", {}, make("button.primary", { type: "button", onclick: () => look(card.show) }, "Show me")),
    make("fieldset", {}, make("legend", {}, card.ask), ...choices), answer,
    make("div.bar", {}, make("button", { type: "button", disabled: index === 0, onclick: () => move(-1) }, "Back"), make("button", { type: "button", disabled: index === CARDS.length - 1, onclick: () => move(1) }, "Next")),
  );
  heading.focus();
}

function look(changes) {
  const known = Object.entries(changes).map(([key, value]) => [key, typeof value === "function" ? value() : value]);
  set(Object.fromEntries(known.filter(([key, value]) => value !== undefined && (key !== "model" || has(value)))));
  if (changes.tab) byId("tabs").scrollIntoView({ block: "start" });
}

function move(by) {
  index += by;
  show();
}

function close() {
  box.hidden = true;
  byId("open-tour").focus();
}
