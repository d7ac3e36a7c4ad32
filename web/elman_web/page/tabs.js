/** The views below the text: one is open, and only that one works. */

import { byId } from "./dom.js";
import { on, set, state } from "./state.js";
import * as compare from "./compare.js";
import * as meaning from "./lesson/meaning.js";
import * as memory from "./memory.js";
import * as programs from "./lesson/programs.js";
import * as reach from "./lesson/reach.js";
import * as step from "./lesson/step.js";

const VIEWS = { memory, step, reach, meaning, programs, compare };
const names = Object.keys(VIEWS);

export function setUp(attempt) {
  for (const [name, view] of Object.entries(VIEWS)) {
    view.setUp(byId(`view-${name}`), attempt);
    byId(`tab-${name}`).addEventListener("click", () => set({ tab: name }));
  }
  byId("tabs").addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!move) return;
    const next = names[(names.indexOf(state.tab) + move + names.length) % names.length];
    set({ tab: next });
    byId(`tab-${next}`).focus();
  });
  on(["tab"], show);
  on(["text", "at", "session", "model", "busy"], refresh);
  show();
}

function show() {
  if (!(state.tab in VIEWS)) set({ tab: "memory" });
  for (const name of names) {
    const isOpen = name === state.tab;
    byId(`tab-${name}`).setAttribute("aria-selected", isOpen);
    byId(`tab-${name}`).tabIndex = isOpen ? 0 : -1;
    byId(`view-${name}`).hidden = !isOpen;
  }
  refresh();
}

/** Let the open view follow the text. */
export function refresh() {
  VIEWS[state.tab]?.refresh?.();
}
