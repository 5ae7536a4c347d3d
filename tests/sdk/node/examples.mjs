// The files below examples/, run as they are.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { cpSync, mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { after } from 'node:test';

// Copied beside node_modules, where `import 'openai'` finds it.
const installed = dirname(realpathSync(join(import.meta.dirname, 'node_modules')));
export const place = mkdtempSync(join(installed, 'examples-'));
cpSync(join(import.meta.dirname, '../../../examples'), place, { recursive: true });
after(() => rmSync(place, { recursive: true }));

/**
 * Runs an example; `until` gives the next line that begins so. Where none comes the
 * program is ended, and with it the wait.
 */
export function run(path, environment) {
  const process_ = spawn(process.execPath, [join(place, path)], {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: process_.stdout })[Symbol.asyncIterator]();
  return {
    until: async (start) => {
      const patience = setTimeout(() => process_.kill(), 60_000);
      try {
        for (;;) {
          const { value, done } = await lines.next();
          assert.ok(!done, `it ended without ${start}`);
          if (value.startsWith(start)) return value;
        }
      } finally {
        clearTimeout(patience);
      }
    },
    stop: async () => {
      if (process_.exitCode !== null || process_.signalCode !== null) return;
      process_.kill();
      await once(process_, 'exit');
    },
  };
}

/** A delivery by hand; the signature is over `signed`. */
export async function deliver(url, secret, { event, body, at, signed }) {
  const key = Buffer.from(secret.replace('whsec_', ''), 'base64');
  const signature = createHmac('sha256', key).update(`${event}.${at}.${signed}`).digest('base64');
  const headers = {
    'webhook-id': event,
    'webhook-timestamp': String(at),
    'webhook-signature': `v1,${signature}`,
  };
  return (await fetch(url, { method: 'POST', body, headers })).status;
}
