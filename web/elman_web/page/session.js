/** The session on the page: opened, created, written to by turns, rewound and forked. */

import { DoorError, events, get, pause, post } from "./api.js";
import { emit, models, set, state, text } from "./state.js";

const WINDOW = 3000; // characters that the page holds of a long text
const NUM_TOP = 20;
const MAX_READ = 5000; // characters whose candidates fit into one answer
const NUM_TRIES = 40; // for a session that another turn has for a moment longer
const TRY_MS = 100;

/** What goes on: `running` ends the turn; `isPaused`: its stream is broken and tried again; it began at `start`. */
export const turn = { running: null, isPaused: false, start: 0 };

export const path = (name = state.session) => `/v1/sessions/${name}`;
export const isByteLevel = () => Boolean(models.get(state.model)?.byte_level);

/** Whether positions, which are bytes of such a model, are not those of the characters that the page shows. */
export const isBeyondAscii = (chars = text.chars) => isByteLevel() && chars.some(({ c }) => c > "\x7f");

/** The arguments of sampling, as the door takes them. */
export function sampling() {
  return {
    temperature: state.temperature,
    top_k: state.topK ?? undefined,
    top_p: state.topP ?? undefined,
    min_p: state.minP ?? undefined,
    seed: state.seed ?? undefined,
  };
}

/** Show a session: its text from the server, and how much each character surprised. */
export async function open(name, { at = null, isStep = true } = {}) {
  const info = await get(path(name));
  const model = info.model.split("/")[1];
  text.start = 0;
  text.chars = [];
  set({ session: name, model, at, seed: state.seed }, { isStep });
  await readBack(Math.max(0, info.position - WINDOW), info);
}

/** Leave the session; the next text begins a new one. */
export function close() {
  text.start = 0;
  text.chars = [];
  set({ session: "", at: null }, { isStep: true });
  emit("text");
}

/** Read the text again from a position on. */
export async function readBack(start, info) {
  if (!info.position) {
    emit("text");
    return;
  }
  const transcript = await get(`${path()}/transcript?start=${start}`);
  const read = transcript.turns.map((turn) => [turn.start, turn.prompt_end]);
  text.start = transcript.start;
  text.chars = [...transcript.text].map((c, index) => ({
    c,
    isRead: read.some(([from, to]) => transcript.start + index >= from && transcript.start + index < to),
    nats: null,
  }));
  emit("text");
  if (start === 0 && info.initial_state === "default" && !isByteLevel()) await scoreAll(info);
}

async function scoreAll(info) {
  const scored = await post("/v1/score", { model: info.model, text: text.chars.map((char) => char.c).join("") });
  scored.logprobs.token_logprobs.forEach((value, index) => {
    if (text.chars[index] && value !== null) text.chars[index].nats = -value;
  });
  emit("text");
}

/**
 * Read a prompt and generate. Characters appear at the chosen speed; `stop` ends the turn where the page shows it.
 */
export async function generate(prompt, maxChars, charsPerSecond = Infinity) {
  if (turn.running) return;
  const stopping = new AbortController();
  turn.running = stopping;
  emit("busy");
  try {
    await begin();
    turn.start = text.end;
    if ([...prompt].length > MAX_READ) {
      await read(prompt);
      prompt = "";
    }
    await run(prompt, maxChars, charsPerSecond, stopping.signal);
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    await settle();
  } finally {
    turn.running = null;
    turn.isPaused = false;
    emit("busy", "text");
  }
}

export const stop = () => turn.running?.abort();

/** Let the network read a text, and generate nothing. */
export async function read(prompt) {
  await begin();
  const characters = [...prompt];
  for (let from = 0; from < characters.length; from += MAX_READ) {
    const piece = characters.slice(from, from + MAX_READ);
    const { logprobs } = await post(`${path()}/append`, { text: piece.join(""), logprobs: NUM_TOP });
    add(piece.map((c, index) => char(c, true, logprobs, index)));
  }
  emit("text"); // nothing runs that would emit it at its end
}

async function begin() {
  if (state.session) return;
  const seed = state.seed ?? Math.floor(Math.random() * 2 ** 31);
  const info = await post("/v1/sessions", { model: state.model, seed, labels: { from: "page" } });
  text.start = 0;
  text.chars = [];
  set({ session: info.name.replace("sessions/", ""), seed }, { isStep: true });
}

async function run(prompt, maxChars, charsPerSecond, signal) {
  const body = {
    model: state.model, session: state.session, prompt, max_tokens: maxChars, stream: true,
    logprobs: NUM_TOP, effective: true, echo: Boolean(prompt), ...sampling(),
  };
  if (charsPerSecond < 100) body.chunk_chars = 1;
  const onPause = (isPaused) => {
    turn.isPaused = isPaused;
    emit("busy");
  };
  let echoed = prompt ? [...prompt].length : 0;
  let due = performance.now();
  for await (const { value } of events("POST", "/v1/completions", body, { signal, onPause })) {
    const choice = value.choices[0];
    if (!choice?.text) continue;
    const characters = [...choice.text];
    for (let from = 0; from < characters.length; ) {
      const size = echoed || charsPerSecond === Infinity ? characters.length : 1;
      if (!echoed && charsPerSecond !== Infinity) {
        due = Math.max(due + 1000 / charsPerSecond, performance.now() - 1000);
        const wait = due - performance.now();
        if (wait > 4) await pause(wait, signal);
      }
      const part = characters.slice(from, from + size);
      add(part.map((c, index) => char(c, echoed > 0, choice.logprobs, from + index, choice.effective)));
      from += size;
    }
    echoed = 0;
  }
}

function char(c, isRead, logprobs, index, effective) {
  const value = logprobs?.token_logprobs?.[index];
  return {
    c,
    isRead,
    nats: value === undefined || value === null ? null : -value,
    top: logprobs?.top_logprobs?.[index] ?? null,
    effective: effective?.[index] ?? null,
  };
}

function add(chars) {
  text.chars.push(...(isBeyondAscii() || isBeyondAscii(chars) ? chars.map((each) => ({ ...each, nats: null, top: null, effective: null })) : chars));
  if (text.chars.length > 2 * WINDOW) {
    const extra = text.chars.length - WINDOW;
    text.chars.splice(0, extra);
    text.start += extra;
  }
  emit("more");
}

/** After a stop: the session keeps what the page shows, and nothing more. */
async function settle() {
  const info = await patiently(() => get(path()).then((found) => {
    if (found.state === "GENERATING") throw new DoorError(503, { message: "the turn is ending" });
    return found;
  }));
  const width = (char) => (isByteLevel() ? new TextEncoder().encode(char.c).length : 1);
  const shown = isByteLevel() ? text.start + text.chars.reduce((sum, each) => sum + width(each), 0) : text.end;
  if (info.position > shown) await patiently(() => post(`${path()}/rewind`, { position: shown }));
  if (info.position < shown || isBeyondAscii()) await readBack(text.start, await get(path()));
}

/** Do something that a running turn may hinder for a moment. */
export async function patiently(act) {
  for (let tries = 0; ; tries++) {
    try {
      return await act();
    } catch (error) {
      if (!(error instanceof DoorError && error.isPassing) || tries === NUM_TRIES) throw error;
      await pause(TRY_MS);
    }
  }
}

/** Return the session to a position, and delete what came after. */
export async function rewind(position) {
  await patiently(() => post(`${path()}/rewind`, { position }));
  text.chars.length = Math.max(0, position - text.start);
  set({ at: null });
  emit("text");
}

/** Continue from a position in a copy; with `instead`, another character than the one that came there. */
export async function fork(position, instead) {
  const { data } = await patiently(() => post(`${path()}/fork`, { position }));
  const name = data[0].name.replace("sessions/", "");
  await open(name);
  if (instead !== undefined) await read(instead);
  return name;
}
