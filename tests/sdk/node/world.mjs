// What the tests need of the world: the servers' addresses, clients, the
// provider's log, and a webhook receiver.

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';

import OpenAI from 'openai';

export const OFFPEAK_URL = required('OFFPEAK_URL').replace(/\/$/, '');
export const SIM_URL = required('SIM_URL').replace(/\/$/, '');
const SIM_SPEED = Number(process.env.SIM_SPEED ?? 60);
export const DRIP_AFTER = Number(process.env.DRIP_AFTER ?? 2);
export const MODEL = 'gpt-4o-mini';
export const DEADLINE = { 'Offpeak-Deadline': '6h' };

function required(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: see tests/sdk/README.md`);
  return value;
}

/**
 * A client as an app makes it, but for the address and the key. A key of its own
 * makes it a tenant of its own: its calls share no batch with the calls of other
 * tests, whose slow lines it would wait for.
 */
export function connect(options = {}) {
  return new OpenAI({ baseURL: `${OFFPEAK_URL}/v1`, apiKey: `sk-${randomUUID()}`, ...options });
}

/** A question that nobody has asked before; the provider's log finds it. */
export function askAnew() {
  return `What is ${randomUUID()}?`;
}

/** An ordinary chat call. */
export function chat(text, more = {}) {
  return { model: MODEL, messages: [{ role: 'user', content: text }], ...more };
}

/** Steers the simulator. */
export function directed(directive) {
  return { metadata: { sim: directive } };
}

/** The provider takes this much longer, in real seconds. */
export function slow(seconds, more = '') {
  return directed(`slow=${Math.round(seconds * SIM_SPEED * 1000)}ms ${more}`.trim());
}

export function deferred(more = {}) {
  return { headers: { ...DEADLINE, ...more } };
}

async function seen(text) {
  const log = await (await fetch(`${SIM_URL}/sim/log`)).json();
  return log.requests.filter((entry) => entry.prompt.includes(text));
}

const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

/** How often the provider worked on a question, in every lane, failures included. */
export async function tries(text) {
  const entries = await seen(text);
  return sum(entries.map((entry) => sum(Object.values(entry.runs)) + entry.failures));
}

/** How many batch lines asked a question. */
export async function batchLines(text) {
  return sum((await seen(text)).map((entry) => entry.batches.length));
}

/** Calls Offpeak's own namespace with a client's key. */
export async function ownApi(client, path, method = 'GET', body = undefined) {
  const response = await fetch(`${OFFPEAK_URL}/offpeak/v1/${path}`, {
    method,
    body: body && JSON.stringify(body),
    headers: { Authorization: `Bearer ${client.apiKey}` },
  });
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return response.json();
}

/** How many requests the proxy took in with a client's key. */
export async function purchases(client) {
  const page = await ownApi(client, 'requests?limit=100');
  if (page.has_more) throw new Error('too many to count');
  return page.data.length;
}

/** Until a call that is under way is on the proxy's disk. */
export async function waitForPurchase(client) {
  const giveUp = Date.now() + 30_000;
  while ((await purchases(client)) === 0) {
    if (Date.now() > giveUp) throw new Error('the call never arrived');
  }
}

export async function collect(iterable) {
  const items = [];
  for await (const item of iterable) items.push(item);
  return items;
}

/** Takes webhooks on WEBHOOK_PORT; answers with each status in turn, then 204. */
export async function receive(statuses = []) {
  const waiting = [];
  const arrived = [];
  const server = createServer(async (request, response) => {
    const body = Buffer.concat(await collect(request)).toString();
    response.writeHead(statuses.shift() ?? 204).end();
    const delivery = { headers: request.headers, body };
    const waiter = waiting.shift();
    if (waiter) waiter(delivery);
    else arrived.push(delivery);
  });
  const port = Number(required('WEBHOOK_PORT'));
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${port}/hook`,
    next: () =>
      arrived.length > 0
        ? Promise.resolve(arrived.shift())
        : new Promise((resolve) => waiting.push(resolve)),
    close: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}
