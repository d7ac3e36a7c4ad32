/** The thirteen cards of the tour, R1 to R13 of docs/lesson.md. */

import { get, post } from "../api.js";
import { byId, make, visible } from "../dom.js";
import * as session from "../session.js";
import { softmax } from "../softmax.js";
import { models, set, state } from "../state.js";
import * as meaning from "./meaning.js";
import * as programs from "./programs.js";
import * as reach from "./reach.js";
import * as step from "./step.js";

const LOGITS = [2, 1, 0.1];

const tab = (name, act = () => {}) => () => {
  set({ tab: name });
  act();
  byId("tabs").scrollIntoView({ block: "start" });
};
const writer = () => (models.has("shakespeare") ? "shakespeare" : state.model);

/** The three logits of the lesson, at the temperature of the page. */
function threeBars() {
  return make("div.p", {}, ...softmax(LOGITS, state.temperature).map((p, index) => {
    const bar = make("b");
    bar.style.width = `${100 * p}%`;
    return make("div", {}, make("strong", {}, LOGITS[index].toFixed(1)), make("span.meter", {}, bar, make("span", {}, p.toFixed(3))));
  }));
}

async function seeds() {
  const generate = async (seed) => {
    const { choices: [{ text }] } = await post("/v1/completions", { model: writer(), prompt: "\nROMEO:\n", max_tokens: 40, temperature: 1, seed });
    return `Seed ${seed}: ${[...text].map((c) => (c === "\n" ? "↵" : c)).join("")}`;
  };
  return [await generate(1), await generate(2), await generate(1)].map((line) => make("p.sample", {}, line));
}

async function afterHel() {
  const model = writer();
  const { probabilities } = await post("/v1/inspect/explain", { model, text: "\nhel" });
  const vocabulary = [...models.get(model).vocabulary];
  const said = [..."lpzq"].map((c) => `${visible(c)} ${(100 * (probabilities[vocabulary.indexOf(c)] ?? 0)).toFixed(2)} %`);
  return [make("p", {}, `${model} says, after hel: ${said.join(", ")}.`)];
}

async function readHel() {
  session.close();
  set({ model: writer(), temperature: 1 });
  await session.read("\nhel");
}

async function sizes() {
  const { elman } = await get(`/v1/models/${writer()}`);
  return [make("p", {}, `${writer()}: ${elman.num_parameters.toLocaleString("en")} parameters and ${elman.state_bytes.toLocaleString("en")} bytes of state, after one character and after a million.`)];
}

async function remember() {
  tab("reach")();
  await reach.measure();
  byId("tabs").scrollIntoView({ block: "start" });
  return [];
}

/**
 * `show` sets the stage; `reveal` shows the answer on the page, and may return more for the card. `needs` is a model,
 * or a read-out, without which the card cannot be shown. `extra` stands on the card and follows the temperature.
 */
export const CARDS = [
  {
    title: "A state that is carried along", said: "h′ = tanh(W_xh x + W_hh h + b): the new state comes from the character and from the state before. The first h is 0.",
    show: tab("step", () => step.open("hello", { index: 0, phase: 1 })), reveal: tab("step", () => step.open("hello", { index: 1, phase: 2 })),
    ask: "A unit's sum is 1000. What is its h′?", choices: ["1000", "1, or as good as 1", "0"], answer: 1, because: "tanh squeezes every sum into −1 to 1. Compare the sums with h′.",
  },
  {
    title: "An output at every step", said: "y = W_hy h + b_y gives a logit for each character. elman-128 has 128 units and knows 65 characters.", needs: "elman-128",
    show: tab("step", () => step.open("elman-128", { word: "hello", index: 0, phase: 1 })), reveal: tab("step", () => step.open("elman-128", { word: "hello", index: 0, phase: 3 })),
    ask: "How many numbers does W_hy have?", choices: ["128 × 128", "65 × 128 = 8320", "65 × 65"], answer: 1, because: "A row for each character, a column for each unit.",
  },
  {
    title: "Softmax", said: "Softmax turns logits into probabilities: e to each of them, divided by the sum. Here are 2.0, 1.0 and 0.1.",
    show: () => set({ temperature: 1 }), extra: threeBars,
    ask: "All three logits grow by 5. What happens to the probabilities?", choices: ["They grow", "Nothing", "The first becomes 1"], answer: 1, because: "Every e^y grows by the same factor, and so does the sum. They stay 0.659, 0.242 and 0.099.",
  },
  {
    title: "Temperature", said: "Before softmax the logits are divided by T. At T = 0.5 the first has 0.864.",
    show: () => set({ temperature: 0.5 }), extra: threeBars, reveal: () => set({ temperature: 2 }),
    ask: "And at T = 2, what does the first of them have?", choices: ["More than at T = 1", "Less than at T = 1", "0"], answer: 1, because: "A high temperature flattens: 0.502, 0.304, 0.194. Move the slider of the page: these bars follow. 0 always takes the likeliest.",
  },
  {
    title: "A sample, not the best", said: "The next character is sampled: a random number chooses a place on the bar of all. It follows from the seed and the position.",
    show: () => set({ temperature: 1 }), reveal: seeds,
    ask: "The same text, the same seed, tomorrow, on a busy server. Is the continuation the same?", choices: ["Yes, every character", "Only at T = 0", "No"], answer: 0, because: "Another seed gives another text, the same seed the same. Just now:",
  },
  {
    title: "One character at a time", said: "A network of three units reads h, e, l, l, o. Its state after each encodes all before it. Look at h′ after the first l.",
    show: tab("step", () => step.open("hello", { index: 2, phase: 4 })), reveal: tab("step", () => step.open("hello", { index: 3, phase: 4 })),
    ask: "Then it reads l again. Is h′ the same as after the first?", choices: ["Yes: it is the same letter", "No: the state before differs"], answer: 1, because: "W_xh x is the same, W_hh h is not. After the second l, o is likelier: 0.443 instead of 0.388.",
  },
  {
    title: "What it expects", said: "The network has read hel. The bars show what it expects next.", show: readHel, reveal: afterHel,
    ask: "Which are likely?", choices: ["l and p", "z and q"], answer: 0, because: "hell, help, held: it learned what follows from the text alone.",
  },
  {
    title: "By hand", said: "Two units, one number in: tanh(ln 2) = 0.6 and tanh(ln 3) = 0.8. Three classes out: the first has the largest logit, 1.05.",
    show: tab("step", () => step.open("two", { index: 0, phase: 3 })), reveal: tab("step", () => { set({ temperature: 1 }); step.open("two", { index: 0, phase: 4 }); }),
    ask: "What is its probability?", choices: ["1.05", "0.624", "0.333"], answer: 1, because: "softmax(1.05, −0.1, −0.2) = 0.624, 0.198, 0.179. Move the weights and see.",
  },
  {
    title: "A label at every step", said: "A network may answer every character with a label: plain, a quotation mark, or quoted.", needs: "quotes",
    show: tab("meaning", () => meaning.open("quotes", 'He said "no')), reveal: tab("meaning", () => meaning.open("quotes", 'He said "no" and left.')),
    ask: "The mark that opens and the mark that closes are one character. Can the network label what follows each?", choices: ["Yes, from its state", "No"], answer: 0, because: "The character is the same; the state before it is not.",
  },
  {
    title: "Meaning, as it reads", said: "A line through the state follows the mood of a phrase. The network was never taught what mood is.", needs: "sentiment",
    show: tab("meaning", () => meaning.open("sentiment", "The movie was terrible, no, terribly ")), reveal: tab("meaning", () => meaning.open("sentiment", "The movie was terrible, no, terribly good!")),
    ask: "The next word is good! Where does the line end?", choices: ["negative", "neutral", "positive"], answer: 2, because: "“no,” takes back what was said, “terribly” waits, and “good” decides.",
  },
  {
    title: "The same matrices at every step", said: "W_xh, W_hh and W_hy are the same at every character.", show: tab("memory"), reveal: sizes,
    ask: "A session has read a million characters. How large is its state?", choices: ["A million numbers", "As large as after one character"], answer: 1, because: "Only the transcript is longer.",
  },
  {
    title: "Programs", said: "A network of four units learned lines of up to ten a's and as many b's.", needs: "counting",
    show: tab("programs", () => programs.open(8)), reveal: tab("programs", () => programs.open(15)),
    ask: "What does it do after fifteen a's?", choices: ["It writes fifteen b's", "It stops after ten b's"], answer: 0, because: "It learned to count, not ten lines. See how far: press the button below the lines.",
  },
  {
    title: "Gates", said: "What a plain network read is multiplied by W_hh again at every step, and fades. The gates of an LSTM or a GRU can keep it.", needs: "elman-128",
    show: tab("reach"), reveal: remember,
    ask: "How far back does elman-128 gain from what it read, compared with shakespeare, an LSTM?", choices: ["Further", "As far", "Less far"], answer: 2, because: "Compare where the curves become flat, and the losses of both.",
  },
];

/** Whether what a card shows is served. */
export const isServed = ({ needs }) => !needs || models.has(needs) || [...models.values()].some((model) => model.read_outs.some(({ name }) => name === needs));
