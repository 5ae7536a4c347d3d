// Results delivered to a receiver of ours and verified by the SDK.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';

import { InvalidWebhookSignatureError } from 'openai';

import { deliver, place, run } from './examples.mjs';
import { askAnew, chat, connect, deferred, directed, ownApi, receive, tries } from './world.mjs';

test('a result is delivered again under the same id until it is taken', async (t) => {
  const client = connect();
  const question = askAnew();
  const { secret } = await ownApi(client, 'webhook-secret');
  const receiver = await receive([503]);
  t.after(() => receiver.close());

  const { data: stub, response } = await client.chat.completions
    .create(chat(question), deferred({ 'Offpeak-Webhook': receiver.url }))
    .withResponse();
  assert.equal(response.status, 202);

  const first = await receiver.next();
  const second = await receiver.next();
  assert.equal(first.body, second.body);
  assert.equal(first.headers['webhook-id'], second.headers['webhook-id']);

  for (const { headers, body } of [first, second]) {
    const event = await client.webhooks.unwrap(body, headers, secret);
    assert.equal(event.object, 'event');
    assert.equal(event.type, 'offpeak.request.succeeded');
    assert.equal(event.id, headers['webhook-id']);
    assert.equal(event.data.id, stub.id);
    assert.equal(event.data.status_code, 200);
    assert.ok(event.data.response.choices[0].message.content.includes(question));
  }
  await assert.rejects(
    client.webhooks.unwrap(`${first.body} `, first.headers, secret),
    InvalidWebhookSignatureError,
  );
  assert.equal(await tries(question), 1);
});

test('a failure is delivered', async (t) => {
  const client = connect();
  const { secret } = await ownApi(client, 'webhook-secret');
  const receiver = await receive();
  t.after(() => receiver.close());

  const stub = await client.chat.completions.create(
    chat(askAnew(), directed('status=400')),
    deferred({ 'Offpeak-Webhook': receiver.url }),
  );
  const { headers, body } = await receiver.next();
  const event = await client.webhooks.unwrap(body, headers, secret);
  assert.equal(event.type, 'offpeak.request.failed');
  assert.deepEqual([event.data.id, event.data.status_code], [stub.id, 400]);
  assert.ok(event.data.response.error.message);
});

test('a rotated secret is verified beside the one before', async (t) => {
  const client = connect();
  await client.chat.completions.create(chat(askAnew()), deferred({ Prefer: 'respond-async' }));
  const { secret: old } = await ownApi(client, 'webhook-secret');
  const { secret } = await ownApi(client, 'webhook-secret/rotate', 'POST');
  const receiver = await receive();
  t.after(() => receiver.close());

  const target = { target: receiver.url };
  assert.equal((await ownApi(client, 'webhooks/test', 'POST', target)).delivered, true);
  const both = await receiver.next();
  for (const known of [secret, old]) {
    const event = await client.webhooks.unwrap(both.body, both.headers, known);
    assert.equal(event.type, 'offpeak.webhook.test');
  }

  const expire = { expire_previous: true };
  const { secret: last } = await ownApi(client, 'webhook-secret/rotate', 'POST', expire);
  await ownApi(client, 'webhooks/test', 'POST', target);
  const one = await receiver.next();
  await client.webhooks.unwrap(one.body, one.headers, last);
  for (const known of [secret, old]) {
    await assert.rejects(
      client.webhooks.unwrap(one.body, one.headers, known),
      InvalidWebhookSignatureError,
    );
  }
});

test('the example takes what is signed, once, and nothing else', async (t) => {
  const client = connect();
  const question = askAnew();
  const { secret } = await ownApi(client, 'webhook-secret');
  const port = process.env.WEBHOOK_PORT;
  const url = `http://127.0.0.1:${port}/hook`;
  const receiver = run('webhooks/receiver.mjs', {
    OFFPEAK_WEBHOOK_SECRET: secret,
    OPENAI_API_KEY: client.apiKey,
    PORT: port,
    INBOX: join(place, 'inbox'),
  });
  t.after(receiver.stop);
  await receiver.until('listens on');

  const call = client.chat.completions.create(chat(question), deferred({ 'Offpeak-Webhook': url }));
  const { id } = await call;
  const kept = await receiver.until('kept: evt_');
  const worked = await receiver.until('offpeak.request.succeeded: ');
  assert.ok(worked.startsWith(`offpeak.request.succeeded: ${id} 200 `), worked);
  assert.ok(worked.includes(question));

  await ownApi(client, `requests/${id}/redeliver`, 'POST');
  const again = await receiver.until('known already: ');
  assert.equal(again.split(': ')[1], kept.split(': ')[1]);

  const now = Math.floor(Date.now() / 1000);
  const forged = { event: 'evt_forged', body: '{"type":"x","data":{}}', at: now };
  const good = { ...forged, signed: forged.body };
  const other = `whsec_${Buffer.alloc(32, 'x').toString('base64')}`;
  for (const [key, delivery] of [
    [secret, { ...good, signed: `${forged.body} ` }],
    [secret, { ...good, at: now - 3600 }],
    [other, good],
  ]) {
    assert.equal(await deliver(url, key, delivery), 400);
    await receiver.until('refused: ');
  }
  // The forger's own means would do with the secret: the refusals were earned.
  assert.equal(await deliver(url, secret, good), 204);
  await receiver.until('kept: evt_forged');
});
