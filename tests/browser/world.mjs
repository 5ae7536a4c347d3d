// What the tests need of the world: calls, the operators' paths, a webhook receiver.

import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect, createServer as listen } from 'node:net';

export const OFFPEAK_URL = required('OFFPEAK_URL').replace(/\/$/, '');
/** What `offpeak dashboard` printed. */
export const LINK = required('LINK');
const ADMIN_TOKEN = new URLSearchParams(new URL(LINK).hash.slice(1)).get('token');
export const PICTURES = required('PICTURES');

function required(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: see tests/browser/README.md`);
  return value;
}

/** A call with a deadline, held until its answer: its id and status. */
export async function call(text, { model = 'gpt-4o-mini', sim, headers = {}, key = 'sk-nightly' } = {}) {
  const answer = await fetch(`${OFFPEAK_URL}/v1/chat/completions`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json', 'Offpeak-Deadline': '6h', ...headers },
    body: JSON.stringify({ model, messages: [{ role: 'user', content: text }], metadata: sim ? { sim } : undefined }),
  });
  const body = await answer.text();
  const id = answer.headers.get('offpeak-request-id');
  if (!id) throw new Error(`it was not taken: ${answer.status} ${body}`);
  return { id, status: answer.status, key };
}

/** Waits until a request that was answered with 202 has ended. */
export async function ended({ id, key }) {
  for (;;) {
    const answer = await fetch(`${OFFPEAK_URL}/v1/chat/completions/${id}`, {
      headers: { Authorization: `Bearer ${key}`, Prefer: 'wait=60' },
    });
    await answer.arrayBuffer();
    if (answer.status !== 202) return answer.status;
  }
}

/** What an operator is told. */
export async function admin(path, method = 'GET') {
  const answer = await fetch(`${OFFPEAK_URL}/offpeak/admin/${path}`, {
    method,
    headers: { Authorization: `Bearer ${ADMIN_TOKEN}` },
  });
  const body = await answer.json();
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${JSON.stringify(body)}`);
  return body;
}

/** Asks until `holds` of what an operator is told. */
export async function until(path, holds) {
  for (;;) {
    const told = await admin(path);
    if (holds(told)) return told;
    await new Promise((next) => setTimeout(next, 20));
  }
}

/** A webhook receiver that refuses until it is told to take. */
export class Receiver {
  taking = false;
  #taken = [];
  #waiting = [];

  static async start(port) {
    const receiver = new Receiver();
    receiver.server = createServer((request, response) => receiver.#receive(request, response));
    receiver.server.listen(port, '127.0.0.1');
    await once(receiver.server, 'listening');
    receiver.url = `http://127.0.0.1:${port}/hook`;
    return receiver;
  }

  /** The next event that it took. */
  async next() {
    while (this.#taken.length === 0) await new Promise((wake) => this.#waiting.push(wake));
    return this.#taken.shift();
  }

  stop() {
    this.server.close();
    this.server.closeAllConnections();
  }

  async #receive(request, response) {
    const body = (await request.setEncoding('utf8').toArray()).join('');
    response.writeHead(this.taking ? 200 : 503).end();
    if (!this.taking) return;
    this.#taken.push(JSON.parse(body));
    for (const wake of this.#waiting.splice(0)) wake();
  }
}

/** A wire to the server that can be cut, and mended again at the same address. */
export class Wire {
  #sockets = new Set();
  #server;

  static async lay() {
    const wire = new Wire();
    await wire.#open(0);
    wire.port = wire.#server.address().port;
    wire.url = `http://127.0.0.1:${wire.port}`;
    return wire;
  }

  mend() {
    return this.#open(this.port);
  }

  cut() {
    for (const socket of this.#sockets) socket.destroy();
    return new Promise((closed) => this.#server.close(closed));
  }

  async #open(port) {
    const { hostname, port: far } = new URL(OFFPEAK_URL);
    this.#server = listen((near) => {
      const ends = [near, connect(far, hostname)];
      ends[0].pipe(ends[1]).pipe(ends[0]);
      for (const end of ends) {
        this.#sockets.add(end);
        end.on('error', () => {});
        end.on('close', () => {
          this.#sockets.delete(end);
          for (const other of ends) other.destroy();
        });
      }
    });
    this.#server.listen(port, '127.0.0.1');
    await once(this.#server, 'listening');
  }
}
