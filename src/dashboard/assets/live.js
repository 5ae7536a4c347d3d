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
/** A tab that nobody looks at lets its stream go: a browser has six connections to a server. */
const UNSEEN = 30_000;

/**
 * Runs until `signal`, after which nothing is told. Calls `told.status(status)`,
 * `told.heard()` whenever the stream says anything, `told.asking()` where there is none
 * and the status is asked for, `told.resting()` where it is let go until somebody looks,
 * `told.lost(error, waitMs)`, and `told.refused(error)` for a token that is not taken,
 * which ends it.
 */
export async function follow(api, told, signal) {
  let wait = FIRST_WAIT;
  const heard = () => {
    wait = FIRST_WAIT;
    told.heard();
  };
  while (!signal.aborted) {
    try {
      const status = await api.get("status");
      if (signal.aborted) return;
      told.status(status);
      const unseen = new AbortController();
      const unwatch = watchLooks(() => unseen.abort());
      try {
        await stream(api, { status: told.status, heard }, AbortSignal.any([signal, unseen.signal]));
        // It ended without a word: the server stops, or a proxy cut it.
        await pause(FIRST_WAIT, signal);
      } catch (error) {
        if (unseen.signal.aborted && !signal.aborted) {
          told.resting();
          await look(signal);
        } else if (error instanceof Refused && error.status !== 401) {
          wait = FIRST_WAIT;
          told.asking();
          await pause(ASK_EVERY, signal);
        } else throw error;
      } finally {
        unwatch();
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

/** Returns where the stream has ended or broken off; throws where `signal` ends it, and where there is none. */
async function stream(api, told, signal) {
  const silence = new AbortController();
  const watch = () => setTimeout(() => silence.abort(), SILENCE);
  let timer = watch();
  let reader = null;
  try {
    const body = await api.events(AbortSignal.any([signal, silence.signal]));
    reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      signal.throwIfAborted();
      if (done) return;
      clearTimeout(timer);
      timer = watch();
      told.heard();
      const events = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
      rest = events.pop();
      for (const event of events) deliver(event, told);
    }
  } catch (error) {
    if (signal.aborted || reader === null) throw error;
    // Broke off: the next question tells whether the server is there.
  } finally {
    clearTimeout(timer);
    reader?.cancel().catch(() => {});
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

/** Calls `unseen` where nobody has looked for a while; what it returns ends that. */
function watchLooks(unseen) {
  let timer = null;
  const turned = () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(unseen, UNSEEN);
  };
  document.addEventListener("visibilitychange", turned);
  turned();
  return () => {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", turned);
  };
}

/** Until somebody looks. */
const look = (signal) => pause(null, signal);

/** So many milliseconds; cut short when the machine is online again, or somebody looks. */
function pause(time, signal) {
  return new Promise((done) => {
    const timer = time === null ? null : setTimeout(end, time);
    const online = () => time === null || end();
    const turned = () => document.hidden || end();
    function end() {
      clearTimeout(timer);
      removeEventListener("online", online);
      document.removeEventListener("visibilitychange", turned);
      signal.removeEventListener("abort", end);
      done();
    }
    addEventListener("online", online);
    document.addEventListener("visibilitychange", turned);
    signal.addEventListener("abort", end);
    if (signal.aborted || (time === null && !document.hidden)) end();
  });
}
