// Takes Offpeak's webhooks: verifies, keeps, answers, and only then works.
//
//     npm install openai
//     OFFPEAK_WEBHOOK_SECRET=whsec_... node receiver.mjs
//
// PORT (9000) is where it listens, on loopback: put TLS in front. INBOX (inbox) is the
// directory that keeps events until they are worked on. OPENAI_API_KEY, the key that the
// calls were made with, fetches answers that are too large for a webhook.

import { link, mkdir, open, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';

import OpenAI from 'openai';

const SECRET = process.env.OFFPEAK_WEBHOOK_SECRET;
if (!SECRET) throw new Error('OFFPEAK_WEBHOOK_SECRET is not set');
const KEY = process.env.OPENAI_API_KEY ?? 'none';
const PORT = Number(process.env.PORT ?? 9000);
const INBOX = process.env.INBOX ?? 'inbox';
// Above `webhook.max_inline_bytes`, escapes and all.
const MAX_BODY = 4 * 1024 * 1024;

const { webhooks } = new OpenAI({ apiKey: KEY });

async function receive(request, response) {
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > MAX_BODY) return response.writeHead(413, { Connection: 'close' }).end();
    chunks.push(chunk);
  }
  // The signature is over these bytes: not over what a JSON parser makes of them.
  const body = Buffer.concat(chunks).toString();
  try {
    await webhooks.verifySignature(body, request.headers, SECRET);
  } catch (error) {
    console.log(`refused: ${error.message}`);
    return response.writeHead(400).end();
  }
  // The same event can come again, always under the same id: it is kept once.
  const event = request.headers['webhook-id'];
  console.log(`${(await keep(event, body)) ? 'kept' : 'known already'}: ${event}`);
  // It is on disk: Offpeak need not send it again, whatever happens to us.
  response.writeHead(204).end();
  working = working.then(work, work);
  await working;
}

/** Keeps an event, whole or not at all; false where it is there already. */
async function keep(event, body) {
  const part = join(INBOX, `${event}.${process.hrtime.bigint()}.part`);
  const file = await open(part, 'wx');
  try {
    await file.writeFile(body);
    await file.sync();
    await link(part, join(INBOX, `${event}.json`));
    return true;
  } catch (error) {
    if (error.code !== 'EEXIST') throw error;
    return false;
  } finally {
    await file.close();
    await rm(part);
  }
}

/**
 * What may take its time, one event after the other. An event is done when the work is:
 * should we be killed in between, it is worked on again.
 */
async function work() {
  const names = new Set(await readdir(INBOX));
  for (const name of names) {
    const done = name.replace(/\.json$/, '.done');
    if (done === name || names.has(done)) continue;
    await use(JSON.parse(await readFile(join(INBOX, name), 'utf8')));
    await writeFile(join(INBOX, done), '');
  }
}

/** Your part. */
async function use({ type, data }) {
  // A test event, or a type that came after this was written.
  if (!type.startsWith('offpeak.request.')) return;
  const answer = 'response' in data ? data.response : await fetchAnswer(data.result_url);
  console.log(`${type}: ${data.id} ${data.status_code} ${JSON.stringify(answer)}`);
}

async function fetchAnswer(url) {
  return (await fetch(url, { headers: { Authorization: `Bearer ${KEY}` } })).json();
}

await mkdir(INBOX, { recursive: true });
let working = work().catch(console.error);
createServer((request, response) => {
  receive(request, response).catch((error) => {
    console.error(error);
    if (!response.headersSent) response.writeHead(500).end();
  });
}).listen(PORT, '127.0.0.1', () => console.log(`listens on http://127.0.0.1:${PORT}/`));
