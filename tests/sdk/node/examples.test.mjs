// The short programs below examples/.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

import { place } from './examples.mjs';
import { MODEL, OFFPEAK_URL, askAnew, connect } from './world.mjs';

test('node.mjs', async () => {
  const question = askAnew();
  const { stdout } = await promisify(execFile)(process.execPath, [join(place, 'node.mjs'), question], {
    env: { ...process.env, OPENAI_BASE_URL: `${OFFPEAK_URL}/v1`, OPENAI_API_KEY: connect().apiKey, MODEL },
  });
  assert.ok(stdout.includes('taken in: op_'), stdout);
  assert.ok(stdout.includes(question), stdout);
});
