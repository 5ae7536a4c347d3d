// Failures surface as the SDK's own exceptions and are never bought twice.
// All clients keep the SDK's default of two retries.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import {
  APIError,
  AuthenticationError,
  BadRequestError,
  InternalServerError,
  NotFoundError,
  PermissionDeniedError,
  RateLimitError,
  UnprocessableEntityError,
} from 'openai';

import {
  DRIP_AFTER,
  askAnew,
  batchLines,
  chat,
  collect,
  connect,
  deferred,
  directed,
  ownApi,
  purchases,
  slow,
  tries,
} from './world.mjs';

const client = connect();

// The tests of a group mostly wait: they do so together.
const TOGETHER = { concurrency: 8 };

/** The error that a call ends with, of this class. */
async function failure(call, kind) {
  const error = await call.then(
    () => assert.fail('the call worked'),
    (error) => error,
  );
  assert.ok(error instanceof kind, `${error?.constructor?.name}: ${error}`);
  return error;
}

/** OpenAI's error object with all four keys, and word not to retry. */
function assertShape(error) {
  assert.ok(error.error.message);
  for (const key of ['message', 'type', 'param', 'code']) assert.ok(key in error.error, key);
  assert.equal(error.headers.get('x-should-retry'), 'false');
}

describe('what the provider refuses', TOGETHER, () => {
  for (const [status, kind] of [
    [400, BadRequestError],
    [401, AuthenticationError],
    [403, PermissionDeniedError],
    [404, NotFoundError],
    [422, UnprocessableEntityError],
  ]) {
    test(`with ${status}`, async () => {
      const client = connect();
      const question = askAnew();
      const call = client.chat.completions.create(
        chat(question, directed(`status=${status}`)),
        deferred(),
      );
      const error = await failure(call, kind);
      assert.equal(error.status, status);
      assertShape(error);
      assert.deepEqual([await tries(question), await batchLines(question)], [1, 1]);
    });
  }
});

describe('failures that come late', TOGETHER, () => {
  test('after dripping: a cut, and the next call gets the true status', async () => {
    const client = connect();
    const question = askAnew();
    const call = chat(question, slow(DRIP_AFTER + 2, 'status=400'));
    // The body breaks under the SDK, which neither wraps nor retries that.
    const cut = await failure(client.chat.completions.create(call, deferred()), Error);
    assert.ok(!(cut instanceof APIError && cut.status), `${cut}`);
    const error = await failure(client.chat.completions.create(call, deferred()), BadRequestError);
    assertShape(error);
    assert.equal(await purchases(client), 1);
    assert.deepEqual([await tries(question), await batchLines(question)], [1, 1]);
  });

  test('before the heartbeats of a stream: with the status', async () => {
    const client = connect();
    const question = askAnew();
    const call = chat(question, { ...directed('status=400'), stream: true });
    assertShape(await failure(client.chat.completions.create(call, deferred()), BadRequestError));
    assert.deepEqual([await tries(question), await batchLines(question)], [1, 1]);
  });

  test('after the heartbeats of a stream: as an event', async () => {
    const client = connect();
    const question = askAnew();
    const call = chat(question, { ...slow(DRIP_AFTER + 2, 'status=400'), stream: true });
    const stream = await client.chat.completions.create(call, deferred());
    assert.ok((await failure(collect(stream), APIError)).message);
    assert.deepEqual([await tries(question), await batchLines(question)], [1, 1]);
  });

  // The proxy has tried as often as it was worth; the SDK does not add to that.
  for (const [status, kind] of [
    [429, RateLimitError],
    [500, InternalServerError],
  ]) {
    test(`at the deadline, with ${status}, which the SDK would retry`, async () => {
      const client = connect();
      const call = client.chat.completions.create(
        chat(askAnew(), directed(`status=${status}`)),
        // Told as soon as it is known, however long that takes: nothing drips.
        deferred({ 'Offpeak-Deadline': '6s', Prefer: 'wait=60' }),
      );
      assertShape(await failure(call, kind));
      assert.equal(await purchases(client), 1);
    });
  }
});

describe('bad deadlines', TOGETHER, () => {
  for (const deadline of ['0s', 'soon', '6', '-1h', '15M', '8days', '2001-01-01T00:00:00Z']) {
    test(deadline, async () => {
      const question = askAnew();
      const call = client.chat.completions.create(
        chat(question),
        deferred({ 'Offpeak-Deadline': deadline }),
      );
      assertShape(await failure(call, BadRequestError));
      assert.equal(await tries(question), 0);
    });
  }
});

describe('bad requests', TOGETHER, () => {
  for (const [name, headers, body] of [
    ['a stream with respond-async', { Prefer: 'respond-async' }, { stream: true }],
    ['an unknown webhook name', { 'Offpeak-Webhook': 'no-such-endpoint' }, {}],
    ['an http webhook', { 'Offpeak-Webhook': 'http://example.com/hook' }, {}],
    ['a webhook to a local address', { 'Offpeak-Webhook': 'https://127.1/' }, {}],
    ['priority with a deadline', {}, { service_tier: 'priority' }],
    ['no messages', {}, { messages: [] }],
  ]) {
    test(name, async () => {
      const question = askAnew();
      const call = client.chat.completions.create(
        chat(question, body),
        deferred(headers),
      );
      assertShape(await failure(call, BadRequestError));
      assert.equal(await tries(question), 0);
    });
  }
});

test('an unknown model', async () => {
  const question = askAnew();
  const call = client.chat.completions.create(chat(question, { model: 'gpt-none' }), deferred());
  const error = await failure(call, NotFoundError);
  assert.equal(error.code, 'model_not_found');
  assert.equal(await batchLines(question), 0);
});

test('an idempotency key with another body', async () => {
  const [question, other] = [askAnew(), askAnew()];
  const options = deferred({
    Prefer: 'respond-async',
    'Idempotency-Key': question.replaceAll(' ', '-'),
  });
  await client.chat.completions.create(chat(question), options);
  const call = client.chat.completions.create(chat(other), options);
  assertShape(await failure(call, UnprocessableEntityError));
  assert.equal(await tries(other), 0);
});

test('cancelled is gone', async () => {
  const client = connect();
  const question = askAnew();
  const stub = await client.chat.completions.create(
    chat(question, slow(600)),
    deferred({ Prefer: 'respond-async' }),
  );
  assert.equal((await ownApi(client, `requests/${stub.id}/cancel`, 'POST')).status, 'cancelled');
  const error = await failure(client.chat.completions.retrieve(stub.id), APIError);
  assert.equal(error.status, 410);
  assert.equal(error.code, 'request_cancelled');
  assertShape(error);
  assert.equal(await tries(question), 0);
});

test("another tenant's request is not found", async () => {
  const stub = await client.chat.completions.create(
    chat(askAnew()),
    deferred({ Prefer: 'respond-async' }),
  );
  const stranger = connect();
  await failure(stranger.chat.completions.retrieve(stub.id), NotFoundError);
});
