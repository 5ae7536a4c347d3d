// Calls that work: passed through, held, dripped, streamed, polled, embedded.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { APIConnectionTimeoutError, ConflictError } from 'openai';

import {
  DEADLINE,
  DRIP_AFTER,
  MODEL,
  OFFPEAK_URL,
  askAnew,
  batchLines,
  chat,
  collect,
  connect,
  deferred,
  purchases,
  slow,
  tries,
  waitForPurchase,
} from './world.mjs';

// The tests of a group mostly wait: they do so together.
const TOGETHER = { concurrency: 8 };

const TOOL = {
  type: 'function',
  function: {
    name: 'weather',
    parameters: {
      type: 'object',
      properties: { city: { type: 'string' } },
      required: ['city'],
    },
  },
};

function assertAnswers(completion, question) {
  const content = completion.choices[0].message.content;
  assert.ok(content.includes(question), content);
}

describe('without a deadline', TOGETHER, () => {
  test('a plain call passes through', async () => {
    const client = connect();
    const question = askAnew();
    const { data, response } = await client.chat.completions
      .create(chat(question))
      .withResponse();
    assertAnswers(data, question);
    assert.equal(response.headers.get('offpeak-request-id'), null);
    assert.deepEqual([await tries(question), await batchLines(question)], [1, 0]);
  });

  test('a plain stream passes through', async () => {
    const client = connect();
    const question = askAnew();
    const stream = await client.chat.completions.create(
      chat(question, { stream: true, stream_options: { include_usage: true } }),
    );
    const chunks = await collect(stream);
    const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');
    assert.ok(text.includes(question), text);
    assert.ok(chunks.length > 3);
    assert.ok(chunks.at(-1).usage.total_tokens > 0);
  });
});

describe('held until a batch has answered', TOGETHER, () => {
  test('a deferred call', async () => {
    const client = connect();
    const question = askAnew();
    const { data, response } = await client.chat.completions
      .create(chat(question), deferred())
      .withResponse();
    assert.equal(response.status, 200);
    assert.equal(response.headers.get('offpeak-lane'), 'batch');
    assert.match(response.headers.get('offpeak-request-id'), /^op_/);
    assertAnswers(data, question);
    assert.ok(data.usage.total_tokens > 0);
    assert.deepEqual([await tries(question), await batchLines(question)], [1, 1]);
  });

  test('the deadline among the default headers', async () => {
    const question = askAnew();
    const patient = connect({ defaultHeaders: DEADLINE });
    assertAnswers(await patient.chat.completions.create(chat(question)), question);
    assert.equal(await batchLines(question), 1);
  });

  test("a drip outlives the client's limit on silence", async () => {
    const question = askAnew();
    const patience = DRIP_AFTER + 2;
    // Node's own limit is on silence before the head; this one is on the same.
    const hasty = connect({ timeout: patience * 1000, maxRetries: 0 });
    const completion = await hasty.chat.completions.create(
      chat(question, slow(patience + 2)),
      deferred(),
    );
    assertAnswers(completion, question);
    assert.deepEqual([await tries(question), await batchLines(question)], [1, 1]);
  });

  test('a re-send takes over', async () => {
    const question = askAnew();
    const patience = DRIP_AFTER * 0.5;
    const counts = [];
    const hasty = connect({
      timeout: patience * 1000,
      maxRetries: 2,
      fetch: (url, init) => {
        counts.push(new Headers(init.headers).get('x-stainless-retry-count'));
        return fetch(url, init);
      },
    });
    const completion = await hasty.chat.completions.create(
      chat(question, slow(patience)),
      deferred(),
    );
    assertAnswers(completion, question);
    assert.ok(counts.length > 1, counts.join());
    assert.equal(await purchases(hasty), 1);
    assert.deepEqual([await tries(question), await batchLines(question)], [1, 1]);
  });

  test('a re-send that overtakes the hang-up', async () => {
    const client = connect();
    const question = askAnew();
    const call = chat(question, slow(DRIP_AFTER + 1));
    const first = client.chat.completions.create(call, deferred()).then(
      () => assert.fail('the replaced call was answered'),
      (error) => error,
    );
    await waitForPurchase(client);
    const resend = deferred({ 'x-stainless-retry-count': '1' });
    assertAnswers(await client.chat.completions.create(call, resend), question);
    assert.ok((await first) instanceof ConflictError, `${await first}`);
    assert.equal(await purchases(client), 1);
    assert.deepEqual([await tries(question), await batchLines(question)], [1, 1]);
  });

  test('a new client takes over what was left', async () => {
    const question = askAnew();
    const call = chat(question, slow(DRIP_AFTER));
    const hasty = connect({ timeout: DRIP_AFTER * 500, maxRetries: 0 });
    await assert.rejects(
      hasty.chat.completions.create(call, deferred()),
      APIConnectionTimeoutError,
    );
    const client = connect({ apiKey: hasty.apiKey });
    // The proxy hears of the hang-up on another connection than the next call.
    await client.models.list();
    assertAnswers(await client.chat.completions.create(call, deferred()), question);
    assert.deepEqual([await tries(question), await batchLines(question)], [1, 1]);
  });

  test('two equal calls get two answers', async () => {
    const client = connect();
    const question = askAnew();
    const ask = () => client.chat.completions.create(chat(question), deferred()).withResponse();
    const [first, second] = await Promise.all([ask(), ask()]);
    const op = ({ response }) => response.headers.get('offpeak-request-id');
    assert.notEqual(op(first), op(second));
    assert.notEqual(first.data.id, second.data.id);
    assert.deepEqual([await tries(question), await batchLines(question)], [2, 2]);
  });

  test('an idempotency key joins equal calls', async () => {
    const client = connect();
    const question = askAnew();
    const key = { 'Idempotency-Key': question.replaceAll(' ', '-') };
    const ask = () => client.chat.completions.create(chat(question), deferred(key));
    const [first, second] = await Promise.all([ask(), ask()]);
    assert.equal(first.id, second.id);
    assert.equal(await tries(question), 1);
  });
});

describe('not held', TOGETHER, () => {
  test('respond-async and retrieve', async () => {
    const client = connect();
    const question = askAnew();
    const { data: stub, response } = await client.chat.completions
      .create(chat(question, slow(1)), deferred({ Prefer: 'respond-async' }))
      .withResponse();
    assert.equal(response.status, 202);
    assert.equal(response.headers.get('preference-applied'), 'respond-async');
    assert.match(stub.id, /^op_/);
    assert.ok(response.headers.get('location').endsWith(`/v1/chat/completions/${stub.id}`));
    assert.equal(stub.object, 'chat.completion');
    assert.equal(stub.status, 'queued');
    assert.deepEqual(stub.choices, []);

    const pending = await client.chat.completions.retrieve(stub.id).withResponse();
    assert.equal(pending.response.status, 202);
    assert.equal(pending.data.id, stub.id);

    const answer = await client.chat.completions
      .retrieve(stub.id, { headers: { Prefer: 'wait=60' } })
      .withResponse();
    assert.equal(answer.response.status, 200);
    assertAnswers(answer.data, question);
    assert.deepEqual(await client.chat.completions.retrieve(stub.id), answer.data);
    assert.equal(await tries(question), 1);
  });
});

describe('a stream with a deadline', TOGETHER, () => {
  test('of text, with usage', async () => {
    const client = connect();
    const question = askAnew();
    const stream = await client.chat.completions.create(
      chat(question, { n: 2, stream: true, stream_options: { include_usage: true } }),
      deferred(),
    );
    const chunks = await collect(stream);
    const text = ['', ''];
    const ends = {};
    for (const choice of chunks.flatMap((chunk) => chunk.choices)) {
      text[choice.index] += choice.delta.content ?? '';
      if (choice.finish_reason) ends[choice.index] = choice.finish_reason;
    }
    assert.ok(text[0].includes(question) && text[1].includes(question));
    assert.notEqual(text[0], text[1]);
    assert.deepEqual(ends, { 0: 'stop', 1: 'stop' });
    assert.deepEqual(chunks.at(-1).choices, []);
    assert.ok(chunks.at(-1).usage.total_tokens > 0);
    assert.deepEqual([await tries(question), await batchLines(question)], [1, 1]);
  });

  test('of text, without usage', async () => {
    const client = connect();
    const stream = await client.chat.completions.create(
      chat(askAnew(), { stream: true }),
      deferred(),
    );
    const chunks = await collect(stream);
    assert.ok(chunks.every((chunk) => chunk.choices.length > 0 && !chunk.usage));
  });

  test('waits with heartbeats', async () => {
    const question = askAnew();
    const hasty = connect({ timeout: (DRIP_AFTER + 2) * 1000, maxRetries: 0 });
    const stream = await hasty.chat.completions.create(
      chat(question, { ...slow(DRIP_AFTER + 4), stream: true }),
      deferred(),
    );
    const chunks = await collect(stream);
    const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');
    assert.ok(text.includes(question), text);
    assert.equal(await tries(question), 1);
  });

  test('of tool calls', async () => {
    const client = connect();
    const question = askAnew();
    const runner = client.chat.completions.stream(chat(question, { tools: [TOOL] }), deferred());
    const completion = await runner.finalChatCompletion();
    assert.equal(completion.choices[0].finish_reason, 'tool_calls');
    const [call] = completion.choices[0].message.tool_calls;
    assert.equal(call.function.name, 'weather');
    assert.ok(JSON.parse(call.function.arguments).city);
    assert.equal(await batchLines(question), 1);
  });

  test('of a response', async () => {
    const client = connect();
    const question = askAnew();
    const stream = await client.responses.create(
      { model: MODEL, input: question, stream: true },
      deferred(),
    );
    const events = await collect(stream);
    assert.deepEqual(
      events.map((event) => event.sequence_number),
      events.map((_, index) => index),
    );
    assert.equal(events[0].type, 'response.created');
    assert.equal(events.at(-1).type, 'response.completed');
    const text = events
      .filter((event) => event.type === 'response.output_text.delta')
      .map((event) => event.delta)
      .join('');
    assert.ok(text.includes(question), text);
    assert.ok(events.at(-1).response.usage.total_tokens > 0);
    assert.equal(await batchLines(question), 1);
  });

  test("of a response's tool call", async () => {
    const client = connect();
    const question = askAnew();
    const tool = { type: 'function', name: 'weather', strict: false, ...TOOL.function };
    const runner = client.responses.stream(
      { model: MODEL, input: question, tools: [tool] },
      deferred(),
    );
    const response = await runner.finalResponse();
    const call = response.output.find((item) => item.type === 'function_call');
    assert.equal(call.name, 'weather');
    assert.ok(JSON.parse(call.arguments).city);
    assert.equal(await batchLines(question), 1);
  });
});

describe('responses', TOGETHER, () => {
  test('background and retrieve', async () => {
    const client = connect();
    const question = askAnew();
    let response = await client.responses.create(
      { model: MODEL, input: question, background: true, ...slow(1) },
      deferred(),
    );
    const op = response.id;
    assert.match(op, /^op_/);
    assert.equal(response.status, 'queued');
    while (['queued', 'in_progress'].includes(response.status)) {
      response = await client.responses.retrieve(op, {}, { headers: { Prefer: 'wait=5' } });
    }
    assert.equal(response.status, 'completed');
    assert.ok(response.output_text.includes(question));
    assert.equal(await tries(question), 1);
  });

  test('background and cancel', async () => {
    const client = connect();
    const question = askAnew();
    const response = await client.responses.create(
      { model: MODEL, input: question, background: true, ...slow(600) },
      deferred(),
    );
    assert.equal((await client.responses.cancel(response.id)).status, 'cancelled');
    assert.equal((await client.responses.retrieve(response.id)).status, 'cancelled');
    assert.equal(await tries(question), 0);
  });
});

test('embeddings in both encodings', async () => {
  const client = connect();
  const question = askAnew();
  const embed = (more) =>
    client.embeddings.create(
      { model: 'text-embedding-3-small', input: question, ...more },
      deferred(),
    );
  const implicit = (await embed({})).data[0].embedding;
  const floats = (await embed({ encoding_format: 'float' })).data[0].embedding;
  const encoded = (await embed({ encoding_format: 'base64' })).data[0].embedding;
  assert.equal(typeof encoded, 'string');
  const bytes = Buffer.from(encoded, 'base64');
  const decoded = Array.from({ length: 1536 }, (_, index) => bytes.readFloatLE(index * 4));
  assert.equal(bytes.length, 1536 * 4);
  assert.deepEqual(floats.map(Math.fround), decoded);
  assert.deepEqual(Array.from(implicit, Math.fround), decoded);
});

test('the deadline in the base URL', async () => {
  const question = askAnew();
  const within = connect({ baseURL: `${OFFPEAK_URL}/within/6h/v1` });
  const { data, response } = await within.models.list().withResponse();
  assert.equal(response.headers.get('offpeak-reason'), 'not-deferrable');
  assert.ok(data.data.some((model) => model.id === MODEL));

  const answer = await within.chat.completions.create(chat(question)).withResponse();
  assert.equal(answer.response.headers.get('offpeak-lane'), 'batch');
  assertAnswers(answer.data, question);
  assert.equal(await batchLines(question), 1);
});
