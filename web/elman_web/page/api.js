/** The door, as this page calls it: JSON, and streams of events that survive a broken connection. */

const PATIENCE_SECONDS = 60; // how long a broken stream is tried again
const PAUSES_MS = [200, 500, 1000, 2000];

/** What the door answered instead of what was asked for. */
export class DoorError extends Error {
  constructor(status, { message, code, param }) {
    super(message);
    this.status = status;
    this.code = code ?? "";
    this.param = param ?? null;
  }

  /** Whether another try may succeed: the server is busy or lost. */
  get isPassing() {
    return this.status === 0 || this.status === 503;
  }
}

/** The caller's key, for a server that asks who calls: it stays in this tab. */
export const key = {
  get: () => sessionStorage.getItem("key") ?? "",
  set: (value) => sessionStorage.setItem("key", value),
};

async function send(method, path, body, { signal, headers = {} } = {}) {
  if (key.get()) headers = { authorization: `Bearer ${key.get()}`, ...headers };
  const isBytes = body instanceof ArrayBuffer || body instanceof Blob;
  const type = isBytes ? "application/octet-stream" : "application/json";
  let response;
  try {
    response = await fetch(path, {
      method,
      signal,
      headers: body === undefined ? headers : { "content-type": type, ...headers },
      body: body === undefined || isBytes ? body : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new DoorError(0, { message: "this page cannot reach its own server", code: "LOST" });
  }
  if (response.ok) return response;
  let said = {};
  try {
    said = (await response.json()).error;
  } catch {
    said = { message: `the answer was ${response.status}` };
  }
  throw new DoorError(response.status, said);
}

/** Return the JSON of an answer; nothing for one without a body. */
export async function call(method, path, body, options) {
  const response = await send(method, path, body, options);
  return response.status === 204 ? undefined : response.json();
}

export const get = (path, options) => call("GET", path, undefined, options);
export const post = (path, body, options) => call("POST", path, body, options);

/** Return the bytes of an answer. */
export async function bytes(path) {
  return (await send("GET", path)).blob();
}

/**
 * Iterate over the events of a stream. A stream that breaks is asked for again with the id of the last event, so what is
 * read is one uninterrupted answer. `onPause` is called with true while it is broken, then with false.
 */
export async function* events(method, path, body, { signal, onPause = () => {} } = {}) {
  let lastId = "";
  let lostAt = 0;
  let tries = 0;
  for (;;) {
    try {
      const headers = lastId ? { "last-event-id": lastId } : {};
      const response = await send(method, path, body, { signal, headers });
      for await (const { id, data } of parse(response.body)) {
        if (lostAt) onPause(false);
        lostAt = tries = 0;
        if (id) lastId = id;
        if (data === "[DONE]") return;
        const value = JSON.parse(data);
        if (value.error) throw new DoorError(value.error.code === "INTERNAL" ? 500 : 503, value.error);
        yield { id, value };
      }
    } catch (error) {
      if (error.name === "AbortError" || (error instanceof DoorError && !(lastId && error.isPassing))) throw error;
    }
    lostAt ||= performance.now();
    if (!lastId || performance.now() - lostAt > PATIENCE_SECONDS * 1000) {
      throw new DoorError(0, { message: "the stream broke, and did not come back", code: "LOST" });
    }
    onPause(true);
    await pause(PAUSES_MS[Math.min(tries++, PAUSES_MS.length - 1)], signal);
  }
}

async function* parse(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const event = { id: "", data: "" };
        for (const line of part.split("\n")) {
          if (line.startsWith("id: ")) event.id = line.slice(4);
          else if (line.startsWith("data: ")) event.data += line.slice(6);
        }
        if (event.data) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Return a function that gives the signal of a new request, and ends the one before: only the latest answer counts. */
export function latest() {
  let running;
  return () => {
    running?.abort();
    running = new AbortController();
    return running.signal;
  };
}

/** Wait; an abort ends it with its error. */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    });
  });
}
