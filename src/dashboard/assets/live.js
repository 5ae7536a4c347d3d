// The status, as it changes: server-sent events, read by fetch because EventSource
// sends no Authorization. Where there is no stream the status is asked for; where there
// is no server it is tried again, less and less often.

import { Refused } from "./api.js";

const FIRST_WAIT = 1_000;
const LONGEST_WAIT = 30_000;
/** Between two questions where there is no stream. */
const ASK_EVERY = 5_000;
/** The server says something every 15 s; a stream that says nothing for this long is dead. */
const SILENCE = 40_000;

/**
 * Runs until `signal`. Calls `told.status(status)`, `told.lost(error, waitMs)` and
 * `told.refused(error)` for a token that is not taken, which ends it.
 */
export async function follow(api, told, signal) {
  let wait = FIRST_WAIT;
  while (!signal.aborted) {
    try {
      told.status(await api.get("status"));
      wait = FIRST_WAIT;
      try {
        await stream(api, told, signal);
        // It ended without a word: the server stops, or a proxy cut it.
        await pause(FIRST_WAIT, signal);
      } catch (error) {
        if (!(error instanceof Refused) || error.status === 401) throw error;
        await pause(ASK_EVERY, signal);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.status === 401) return told.refused(error);
      told.lost(error, wait);
      await pause(wait, signal);
      wait = Math.min(wait * 2, LONGEST_WAIT);
    }
  }
}

async function stream(api, told, signal) {
  const silence = new AbortController();
  const either = AbortSignal.any([signal, silence.signal]);
  const reader = (await api.events(either)).pipeThrough(new TextDecoderStream()).getReader();
  const watch = () => setTimeout(() => silence.abort(), SILENCE);
  let timer = watch();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = watch();
      const events = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
      rest = events.pop();
      for (const event of events) deliver(event, told);
    }
  } catch (error) {
    if (signal.aborted) throw error;
    // Broke off: the next question tells whether the server is there.
  } finally {
    clearTimeout(timer);
    reader.cancel().catch(() => {});
  }
}

function deliver(text, told) {
  let name = "message";
  const data = [];
  for (const line of text.split("\n")) {
    const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (field === "event") name = value;
    if (field === "data") data.push(value);
  }
  if (name === "status" && data.length) told.status(JSON.parse(data.join("\n")));
}

/** Cut short when the machine is online again, or somebody looks. */
function pause(time, signal) {
  return new Promise((done) => {
    const timer = setTimeout(end, time);
    const look = () => document.hidden || end();
    function end() {
      clearTimeout(timer);
      removeEventListener("online", end);
      document.removeEventListener("visibilitychange", look);
      signal.removeEventListener("abort", end);
      done();
    }
    addEventListener("online", end);
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", end);
  });
}
