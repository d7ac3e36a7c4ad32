/** All sessions as a tree of forks: open, save, load, replay, delete. */

import { bytes, call, events, get, post } from "./api.js";
import { byId, make } from "./dom.js";
import { open, path, turn } from "./session.js";
import { emit, set, state, text } from "./state.js";
import { paint } from "./text.js";

const box = byId("sessions");
let attempt;

export function setUp(attemptTo) {
  attempt = attemptTo;
  byId("open-sessions").addEventListener("click", attempt(show));
}

async function show() {
  const { data, has_more } = await get("/v1/sessions?limit=300");
  const file = make("input", { type: "file", id: "load-file", class: "hidden", "aria-label": "Load a saved session", onchange: attempt(load) });
  box.replaceChildren(
    make("header", {}, make("h2", { id: "sessions-title" }, "Sessions"), make("span.quiet", {}, `${data.length}${has_more ? " and more" : ""}`), make("button.icon", { type: "button", "aria-label": "Close", onclick: () => box.close() }, "✕")),
    make("div.bar", {},
      make("button", { type: "button", disabled: !state.session, onclick: attempt(replay) }, "Replay this session"),
      make("button", { type: "button", disabled: !state.session, onclick: attempt(save) }, "Save it as a file"),
      make("button", { type: "button", onclick: () => file.click() }, "Load a file"), file,
    ),
    make("p.quiet", {}, "Replay lets the server compute every turn again: characters get a green line as they prove equal. To see that nothing is lost, start a server with --store sqlite:sessions.db, press Go, end it with kill -9, and start it again: the text continues."),
    tree(data),
  );
  if (!box.open) box.showModal();
}

function tree(data) {
  const children = new Map();
  const names = new Set(data.map((session) => session.name));
  for (const session of data) {
    const parent = names.has(session.forked_from?.name) ? session.forked_from.name : "";
    children.set(parent, [...(children.get(parent) ?? []), session]);
  }
  const newest = (a, b) => b.update_time.localeCompare(a.update_time);
  const branch = (name) => {
    const items = (children.get(name) ?? []).sort(newest).map((session) => make("li", {}, row(session), branch(session.name)));
    return items.length ? make("ul.tree", {}, ...items) : null;
  };
  return branch("") ?? make("p.empty", {}, "No session yet.");
}

function row(session) {
  const id = session.name.replace("sessions/", "");
  const labels = Object.entries(session.labels).map(([key, value]) => make("span.label", {}, `${key}: ${value}`));
  const from = session.forked_from ? `, forked at ${session.forked_from.position}` : "";
  return make("div", {},
    make(`span.name${id === state.session ? ".here" : ""}`, {}, id),
    make("span.quiet", {}, `${session.model.split("/")[1]}, ${session.position} characters, ${session.turn_count} turns${from}`),
    ...labels,
    make("button", { type: "button", "aria-label": `Open ${id}`, onclick: attempt(async () => { await open(id); box.close(); }) }, "Open"),
    make("button", { type: "button", "aria-label": `Label ${id}`, onclick: attempt(() => label(id, session.labels)) }, "Label"),
    make("button", { type: "button", "aria-label": `Delete ${id}`, onclick: attempt(() => remove(id)) }, "Delete"),
  );
}

async function label(id, labels) {
  const note = globalThis.prompt("A note for this session", labels.note ?? "");
  if (note === null) return;
  await call("PATCH", path(id), { labels: { ...labels, note } });
  await show();
}

async function remove(id) {
  await call("DELETE", path(id));
  if (id === state.session) {
    text.chars = [];
    set({ session: "", at: null });
    emit("text");
  }
  await show();
}

async function save() {
  const link = make("a", { href: URL.createObjectURL(await bytes(`${path()}/export`)), download: `${state.session}.elman` });
  link.click();
  URL.revokeObjectURL(link.href);
}

async function load({ target }) {
  const [file] = target.files;
  if (!file) return;
  const info = await post("/v1/sessions/import", file);
  await open(info.name.replace("sessions/", ""));
  box.close();
}

async function replay() {
  box.close();
  if (turn.running) return;
  paint.marks.clear();
  emit("paint");
  for await (const { value } of events("GET", `${path()}/replay`)) {
    const end = value.difference_at ?? value.turn.end;
    for (let position = value.turn.start; position < end; position++) paint.marks.set(position, "equal");
    if (value.difference_at !== null) paint.marks.set(value.difference_at, "unequal");
    emit("paint");
  }
}
