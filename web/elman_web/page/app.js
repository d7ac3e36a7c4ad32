/** Begins the page: reads the address, ties the buttons, watches the server. */

import { DoorError, get, key } from "./api.js";
import { byId, make } from "./dom.js";
import * as next from "./next.js";
import * as session from "./session.js";
import * as sessions from "./sessions.js";
import * as readout from "./readout.js";
import * as tabs from "./tabs.js";
import * as textView from "./text.js";
import * as tour from "./lesson/tour.js";
import * as unit from "./unit.js";
import { models, on, readAddress, set, state, text } from "./state.js";

const HEALTH_MS = 4000;
const SPEEDS = [1, 2, 3, 4, 5, 7, 10, 14, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960, Infinity];
const prompt = byId("prompt");
let isServing = false;

/** Show a sentence until it is closed or the next thing works. */
export function notice(message) {
  byId("notice").hidden = !message;
  byId("notice").firstElementChild.textContent = message ?? "";
}

/** Do what a visitor asked for; what goes wrong is a sentence on the page. */
export function attempt(act) {
  return async (...values) => {
    try {
      notice("");
      await act(...values);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof DoorError)) throw error;
      if (error.status === 401 && !byId("key").open) byId("key").showModal();
      notice(error.code === "SESSION_BUSY" ? "Another tab or program is writing to this text. It can be continued in a moment." : error.message);
      if (error.isPassing) checkHealth();
    }
  };
}

const charsPerSecond = () => SPEEDS[Number(byId("speed").value)];

const go = attempt(async (maxChars = Number(byId("count").value)) => {
  if (session.turn.running) return;
  const said = prompt.value;
  prompt.value = "";
  set({ at: null });
  try {
    await session.generate(said, maxChars, charsPerSecond());
  } catch (error) {
    if (!prompt.value && !text.chars.slice(-said.length).map((char) => char.c).join("").endsWith(said)) prompt.value = said;
    throw error;
  }
});

const readOnly = attempt(async () => {
  if (!prompt.value) return;
  const said = prompt.value;
  await session.read(said);
  prompt.value = "";
});

const pick = attempt((position, character) => (position >= text.end ? session.read(character) : session.fork(position, character)));

function setUpButtons() {
  byId("go").addEventListener("click", () => go());
  byId("one").addEventListener("click", () => go(1));
  byId("stop").addEventListener("click", session.stop);
  byId("read-only").addEventListener("click", readOnly);
  byId("new-session").addEventListener("click", () => {
    session.close();
    prompt.focus();
  });
  byId("rewind").addEventListener("click", attempt(() => session.rewind(state.at)));
  byId("fork").addEventListener("click", attempt(() => session.fork(state.at)));
  byId("explain-here").addEventListener("click", () => {
    set({ tab: "step" });
    byId("view-step").scrollIntoView({ behavior: "smooth", block: "nearest" });
  });
  byId("end-here").addEventListener("click", () => set({ at: null }));
  byId("notice").querySelector("button").addEventListener("click", () => notice(""));
  byId("speed").addEventListener("input", showSpeed);
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      go();
    }
  });
  document.addEventListener("keydown", (event) => {
    const isInText = event.target === byId("text") || event.target === document.body;
    if (event.key === "Escape" && session.turn.running) session.stop();
    else if (event.key === " " && isInText) {
      event.preventDefault();
      go(1);
    }
  });
  byId("key").addEventListener("close", () => {
    key.set(byId("key-value").value.trim());
    attempt(connect)();
  });
  byId("colour").addEventListener("change", ({ target }) => set({ colour: target.value }));
  byId("model").addEventListener("change", ({ target }) => {
    session.close();
    set({ model: target.value });
  });
}

function showSpeed() {
  byId("speed-shown").textContent = charsPerSecond() === Infinity ? "all at once" : `${charsPerSecond()} a second`;
}

function showBusy() {
  const isRunning = Boolean(session.turn.running);
  for (const id of ["go", "one", "read-only", "new-session", "model", "rewind", "fork"]) byId(id).disabled = isRunning;
  byId("stop").disabled = !isRunning;
  showStatus();
}

function showStatus() {
  const isLost = !isServing || session.turn.isPaused;
  const [kind, said] = session.turn.running
    ? isLost ? ["lost", "server lost: waiting for it"] : ["writing", "writing"]
    : isLost ? ["lost", "server lost: trying again"] : ["ready", "ready"];
  byId("status").dataset.state = kind;
  if (byId("status").textContent !== said) byId("status").textContent = said;
}

async function checkHealth() {
  const was = isServing;
  try {
    await get("/healthz");
    isServing = true;
  } catch {
    isServing = false;
  }
  showStatus();
  if (isServing && !was) await attempt(connect)();
}

/** The first time, and whenever the server is there again: which models, and the session of the address. */
async function connect() {
  const { data } = await get("/v1/models");
  models.clear();
  for (const { id, elman } of data) models.set(id, elman);
  const choices = data.filter(({ elman }) => !elman.labels.length);
  byId("model").replaceChildren(...choices.map(({ id, elman }) => make("option", { value: id }, `${id} · ${elman.cell.toLowerCase()} ${elman.num_layers || ""}×${elman.hidden_size || "?"}`)));
  if (!models.has(state.model)) set({ model: models.has("shakespeare") ? "shakespeare" : (choices[0]?.id ?? "") });
  byId("model").value = state.model;
  if (state.session && !session.turn.running) await openSession();
  tabs.refresh();
}

async function openSession() {
  try {
    await session.open(state.session, { at: state.at, isStep: false });
  } catch (error) {
    if (error.status !== 404) throw error;
    session.close();
    throw error;
  }
}

/** Another tab may have written: what changed is read again when this one is looked at. */
const catchUp = attempt(async () => {
  if (!state.session || session.turn.running || document.hidden) return;
  const info = await get(session.path());
  if (info.position !== text.end && !session.isByteLevel() && info.state !== "GENERATING") await session.open(state.session, { isStep: false });
});

function setUpTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const show = () => {
    document.documentElement.dataset.theme = localStorage.getItem("theme") ?? (dark.matches ? "dark" : "light");
    textView.showScale();
    tabs.refresh();
  };
  dark.addEventListener("change", show);
  byId("theme").addEventListener("click", () => {
    localStorage.setItem("theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    show();
  });
  show();
}

textView.setUp();
next.setUp(pick);
next.setUpControls();
unit.setUp(attempt);
readout.setUp(attempt);
tabs.setUp(attempt);
sessions.setUp(attempt);
tour.setUp(attempt);
setUpTheme();
setUpButtons();
showSpeed();
on(["busy"], showBusy);
on(["model", "session"], () => {
  byId("model").value = state.model;
  byId("session-name").textContent = state.session || "no session yet";
});
const showColour = () => {
  byId("colour").value = state.colour;
  byId("unit-field").hidden = state.colour !== "unit";
  byId("readout-field").hidden = state.colour !== "readout";
};
on(["colour"], showColour);
showColour();
byId("session-name").textContent = state.session || "no session yet";
addEventListener("popstate", () => {
  readAddress();
  if (state.session) attempt(openSession)();
});
document.addEventListener("visibilitychange", catchUp);
addEventListener("focus", catchUp);
setInterval(() => document.hidden || checkHealth(), HEALTH_MS);
checkHealth();
next.refresh();
