// A server of the page alone: its files, and answers that a test writes. For what a real
// server seldom says, or says when nobody can wait for it.

import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const ASSETS = new URL('../../src/dashboard/assets/', import.meta.url);
const KINDS = { html: 'text/html', css: 'text/css', js: 'text/javascript', svg: 'image/svg+xml' };
const TOKEN = 'adm_stage';

const SUMS = {
  requests: 0, succeeded: 0, late: 0, rescued: 0, paid_twice: 0, unaccounted: 0, unpriced: 0,
  paid_usd: '0.00', standard_usd: '0.00', saved_usd: '0.00', rescue_paid_usd: '0.00',
  usage: { input_tokens: 0, output_tokens: 0, cached_tokens: 0 },
  slack: Array(11).fill(0),
};

/** The sums of one group, or of all. */
export const sums = (more) => ({ ...SUMS, ...more });
export const list = (data, more = {}) => ({ object: 'list', data, has_more: false, next: null, ...more });

/** What a server says that has nothing to do. */
const quiet = () => ({
  status: {
    object: 'offpeak.status', now: new Date().toISOString(), base_url: null, operators_apart: false, paused: false,
    requests: { open: 0, queued: 0, in_batches: 0, live: 0 }, ended_since_start: 0,
    oldest_queued_at: null, earliest_deadline: null, delivery: { pending: 0, dead: 0 }, open_batches: 0,
    live: [], rescue_budgets_spent: 0, refused_keys: [], upstream_warning: null, batches: [],
  },
  savings: {
    object: 'offpeak.savings', total: sums({}), by_model: [], by_tag: [], by_tenant: [], by_lane: [], by_day: [], by_hour: [],
    slack_bounds_seconds: [-3600, 0, 60, 300, 900, 3600, 10800, 21600, 43200, 86400], assumptions: [],
  },
  requests: list([]),
  batches: list([]),
  webhooks: list([]),
  turnaround: { object: 'offpeak.turnaround', data: [] },
});

export class Stage {
  /** By path below `admin/`: an answer, or a function that makes one of a request's URL. */
  answers = quiet();
  /** Paths that were asked for, with their queries, in order. */
  asked = [];
  /** Streams of events that are open. */
  streams = new Set();
  #held = new Map();
  #waiting = [];

  static async open() {
    const stage = new Stage();
    stage.server = createServer((request, response) => stage.#answer(request, response));
    stage.server.listen(0, '127.0.0.1');
    await once(stage.server, 'listening');
    stage.url = `http://127.0.0.1:${stage.server.address().port}`;
    stage.page = `${stage.url}/offpeak/#token=${TOKEN}`;
    return stage;
  }

  close() {
    this.server.close();
    this.server.closeAllConnections();
  }

  /** Answers to this path wait until what it returns is called. */
  hold(path) {
    let release;
    this.#held.set(path, new Promise((done) => { release = done; }));
    return () => {
      this.#held.delete(path);
      release();
    };
  }

  /** Waits until `holds` of what was asked and is open. */
  async until(holds) {
    while (!holds(this)) await new Promise((wake) => this.#waiting.push(wake));
  }

  /** How often this path was asked for. */
  times(path) {
    return this.asked.filter((it) => it.split('?')[0] === path).length;
  }

  /** Says something on every stream. */
  say(text) {
    for (const stream of this.streams) stream.write(text);
  }

  tell(status) {
    this.answers.status = { ...this.answers.status, ...status };
    this.say(`event: status\ndata: ${JSON.stringify(this.answers.status)}\n\n`);
  }

  #changed() {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  async #answer(request, response) {
    const url = new URL(request.url, this.url);
    const admin = /^\/offpeak\/admin\/(.*)$/.exec(url.pathname)?.[1];
    if (admin === undefined) return this.#file(url.pathname, response);
    this.asked.push(admin + url.search);
    this.#changed();
    await this.#held.get(admin);
    if (admin === 'events' && !this.answers.events) return this.#stream(response);
    const said = this.answers[admin];
    const found = typeof said === 'function' ? said(url) : said;
    const status = found?.error ? found.status ?? 400 : found === undefined ? 404 : 200;
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify(found ?? { error: { message: 'nothing here' } }));
  }

  #stream(response) {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.flushHeaders();
    this.streams.add(response);
    this.tell({});
    this.#changed();
    response.on('close', () => {
      this.streams.delete(response);
      this.#changed();
    });
  }

  #file(path, response) {
    const name = path === '/offpeak/' ? 'index.html' : path.replace('/offpeak/assets/', '');
    try {
      const bytes = readFileSync(new URL(name, ASSETS));
      response.writeHead(200, { 'content-type': KINDS[name.split('.').pop()] ?? 'text/plain' }).end(bytes);
    } catch {
      response.writeHead(404).end();
    }
  }
}
