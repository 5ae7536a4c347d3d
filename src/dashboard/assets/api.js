// The server's operators' paths. They are named relative to the page, which may be
// served below a prefix.

/** What the server refused, in its own words. */
export class Refused extends Error {
  constructor(status, code, message) {
    super(message || `the server answered ${status}`);
    this.status = status;
    this.code = code;
  }
}

/** No answer at all. */
export class Unreachable extends Error {}

/** An answer that takes longer than this is none. */
const PATIENCE = 20_000;
const PATIENCE_FOR_FILES = 300_000;

/** A query of what is given. */
function asked(parameters) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
  return query.size ? `?${query}` : "";
}

export class Api {
  #token;

  constructor(token) {
    this.#token = token;
  }

  get(path, parameters = {}) {
    return this.#ask("GET", `admin/${path}${asked(parameters)}`);
  }

  /** A file, whole. */
  async file(path, parameters) {
    const answer = await this.#fetch("GET", `admin/${path}${asked(parameters)}`, { signal: AbortSignal.timeout(PATIENCE_FOR_FILES) });
    try {
      return await answer.blob();
    } catch {
      throw new Unreachable("the answer broke off");
    }
  }

  post(path) {
    return this.#ask("POST", `admin/${path}`);
  }

  /** A stream of events that runs until it breaks or `signal` says so. */
  async events(signal) {
    const answer = await this.#fetch("GET", "admin/events", { signal, headers: { Accept: "text/event-stream" } });
    if (!answer.headers.get("content-type")?.startsWith("text/event-stream")) {
      throw new Refused(answer.status, "no_events", "the server tells no events");
    }
    return answer.body;
  }

  async #ask(method, path) {
    const answer = await this.#fetch(method, path, { signal: AbortSignal.timeout(PATIENCE) });
    try {
      return await answer.json();
    } catch {
      throw new Unreachable("the answer broke off");
    }
  }

  async #fetch(method, path, { signal, headers = {} }) {
    const url = new URL(path, document.baseURI);
    url.hash = "";
    let answer;
    try {
      answer = await fetch(url, {
        method,
        signal,
        headers: { ...headers, Authorization: `Bearer ${this.#token}` },
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
      });
    } catch (error) {
      if (signal?.aborted && signal.reason?.name === "AbortError") throw error;
      throw new Unreachable("the server does not answer");
    }
    if (answer.ok) return answer;
    const told = await answer.json().catch(() => null);
    throw new Refused(answer.status, told?.error?.code, told?.error?.message);
  }
}
