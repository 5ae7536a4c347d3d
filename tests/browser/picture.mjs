// A week of calls at a simulated provider, a server's day after another, and a picture of
// the dashboard then.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { launch } from './browser.mjs';

const OFFPEAK = fileURLToPath(new URL('../../target/debug/offpeak', import.meta.url));
const DAY_MS = 86_400_000;
/** Calls of each of seven days, today's last. */
const CALLS = [260, 310, 290, 340, 120, 90, 240];

/** What an application sends: tag, model, path, tokens of the answer, deadline, key. */
const KINDS = [
  { tag: 'nightly-eval', model: 'gpt-5.5', tokens: 5200, deadline: '12h', share: 4 },
  { tag: 'nightly-eval', model: 'gpt-4.1', tokens: 6000, deadline: '1day', share: 3 },
  { tag: 'ticket-summaries', model: 'gpt-4o-mini', tokens: 900, deadline: '2h', share: 5 },
  { tag: 'ticket-summaries', model: 'gpt-5', tokens: 2400, deadline: '30m', share: 3 },
  { tag: 'research-agent', model: 'gpt-5.4', tokens: 8000, deadline: '4h', share: 2 },
  { tag: 'research-agent', model: 'o4-mini', tokens: 2500, deadline: '8m', share: 2 },
  { tag: 'moderation-backlog', model: 'gpt-4o-mini', tokens: 150, deadline: '3days', share: 2 },
  { tag: 'routing', model: 'gpt-4o-mini', tokens: 300, deadline: '12s', share: 1 },
].flatMap((kind) => Array(kind.share).fill(kind));

const directory = mkdtempSync(join(tmpdir(), 'offpeak-picture-'));
const running = [];

/** A program of ours that listens; its address. */
async function start(command, options, environment = {}) {
  const child = spawn(OFFPEAK, [command, '--listen', '127.0.0.1:0', ...options], {
    env: { PATH: process.env.PATH, ...environment },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  running.push(child);
  for await (const line of createInterface(child.stdout)) {
    const told = / listens on (http:\/\/[^/ ]+)/.exec(line);
    if (told) return { child, url: told[1] };
  }
  throw new Error(`offpeak ${command} did not start`);
}

/** The simulator's defaults, but for its worst batches: nobody waits for those here. */
function provider() {
  const defaults = readFileSync(new URL('../../src/simulator/default.toml', import.meta.url), 'utf8');
  const file = join(directory, 'simulator.toml');
  writeFileSync(file, defaults.replace('turnaround_sigma = 1.7', 'turnaround_sigma = 0.8').replace('stalled_share = 0.005', 'stalled_share = 0.0'));
  return file;
}

async function serve(upstream, clockMs) {
  writeFileSync(join(directory, 'clock'), String(clockMs));
  return start('serve', ['--upstream', `${upstream}/v1`, '--data-dir', join(directory, 'data')], {
    OFFPEAK_REHEARSAL: directory,
    OFFPEAK_LOG: 'error',
    OFFPEAK_PACKING__LINGER: '200ms',
    OFFPEAK_PACKING__CREATES_PER_HOUR: '1000000',
    OFFPEAK_WATCH__POLL_INTERVAL: '100ms',
    OFFPEAK_WATCH__POLLS_PER_SECOND: '200',
    OFFPEAK_RESCUE__RESERVE: '3s',
    OFFPEAK_LIVE__EXPECTED: '200ms',
    OFFPEAK_STORE__RESERVE_BYTES: '0',
  });
}

async function call(url, number, kind, more = {}) {
  const text = `Case ${number}: ${'the quick brown fox jumps over the lazy dog. '.repeat(60)}`;
  const answer = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: {
      Authorization: `Bearer sk-${kind.tag}`, 'Content-Type': 'application/json',
      'Offpeak-Deadline': kind.deadline, 'Offpeak-Tag': kind.tag, ...more.headers,
    },
    body: JSON.stringify({
      model: kind.model,
      messages: [{ role: 'user', content: text }],
      metadata: { sim: `tokens=${Math.round(kind.tokens * (0.6 + ((number * 37) % 80) / 100))} ${more.sim ?? ''}`.trim() },
    }),
  });
  await answer.arrayBuffer();
  return answer.status;
}

try {
  const simulator = await start('simulator', ['--speed', '300', '--config', provider()]);
  for (const [day, calls] of CALLS.entries()) {
    const server = await serve(simulator.url, (day + 1 - CALLS.length) * DAY_MS);
    const all = Array.from({ length: calls }, async (_, number) => {
      await new Promise((next) => setTimeout(next, number * 15));
      const sim = number % 97 === 96 ? 'status=400' : '';
      return call(server.url, day * 1000 + number, KINDS[number % KINDS.length], { sim });
    });
    await Promise.all(all);
    console.log(`day ${day + 1} of ${CALLS.length}: ${calls} calls`);
    if (day + 1 === CALLS.length) await picture(server.url);
    server.child.kill('SIGTERM');
    await once(server.child, 'exit');
  }
} finally {
  for (const child of running) child.kill('SIGKILL');
  rmSync(directory, { recursive: true });
}

async function picture(url) {
  const pending = { headers: { Prefer: 'respond-async' }, sim: 'slow=40m' };
  await Promise.all(Array.from({ length: 60 }, (_, number) => call(url, 9000 + number, KINDS[number % 14], pending)));
  const token = readFileSync(join(directory, 'data/admin.token'), 'utf8').trim();
  const browser = await launch();
  const page = await browser.newPage({ viewport: { width: 1440, height: 872 }, colorScheme: 'light', reducedMotion: 'reduce' });
  await page.goto(`${url}/offpeak/#token=${encodeURIComponent(token)}`);
  await page.waitForSelector('#board[data-loaded]');
  await page.waitForFunction(() => Number(document.querySelector('#now-in-batches').textContent) > 0);
  await page.screenshot({ path: process.argv[2] });
  await browser.close();
}
