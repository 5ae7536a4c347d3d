// The page against answers that a test writes: see stage.mjs.

import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';

import { launch, watched } from './browser.mjs';
import { Stage, list, sums } from './stage.mjs';

let browser, stage, page;
const troubles = [];
let provoked = null;

before(async () => { browser = await launch(); });
after(async () => { await browser?.close(); });

beforeEach(async () => {
  [stage, provoked] = [await Stage.open(), null];
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion: 'reduce' });
  page = await watched(context, stage.url, troubles, (text) => provoked?.test(text));
});

afterEach(async () => {
  await page.context().close();
  stage.close();
  assert.deepEqual(troubles.splice(0), []);
});

const text = (selector) => page.evaluate((it) => document.querySelector(it)?.textContent ?? null, selector);

async function shows(selector, wanted) {
  await page.waitForFunction(([it, content]) => document.querySelector(it)?.textContent === content, [selector, wanted]);
}

async function open() {
  await page.goto(stage.page);
  await page.waitForSelector('#board[data-loaded]');
}

/** The page's own clock, which stands until it is told to run. */
async function withClock() {
  await page.clock.install({ time: new Date() });
  await page.clock.pauseAt(new Date(Date.now() + 1_000));
}

/** Lets the page's clock run on in steps, each with what came in between. */
async function run(seconds) {
  for (let step = 0; step < seconds; step += 1) await page.clock.runFor(1_000);
}

/** Whether anybody looks at the tab. */
const look = (hidden) => page.evaluate((it) => {
  Object.defineProperty(document, 'hidden', { configurable: true, get: () => it });
  document.dispatchEvent(new Event('visibilitychange'));
}, hidden);

function request(id, more = {}) {
  return {
    id, status: 'failed', model: 'gpt-4o-mini', endpoint: '/v1/chat/completions', tag: null, tenant: '6f1a', tenant_name: null,
    lane: 'batch', reason: 'because', guarantee: 'firm', admitted_at: '2026-11-22T17:00:00.000Z', finished_at: '2026-11-22T17:10:00.000Z',
    deadline: '2026-11-22T18:00:00.000Z', late: false, status_code: 400, cost_usd: null, saved_usd: null, webhook: null, timeline: [], ...more,
  };
}

describe('lists', () => {
  test('a long list that has none of these says how far it was looked through, and goes on', async () => {
    stage.answers.requests = (url) => {
      const after = url.searchParams.get('after');
      if (url.searchParams.get('status') !== 'failed') return list([request('op_other', { status: 'succeeded' })]);
      return after ? list([request('op_far')]) : list([], { has_more: true, next: 'far' });
    };
    await open();
    await shows('#failure-rows', 'None among the last 1,000 that ended.');
    await page.click('#more-failures');
    await page.waitForSelector('#failure-rows a[href="#request=op_far"]');
    assert.equal(await page.isVisible('#more-failures'), false);
  });

  test('dead letters go on behind the first fifty', async () => {
    const letter = (number) => ({ request_id: `op_${number}`, target: 'https://a.test/', given_up_at: '2026-11-22T17:00:00.000Z', tries: 3, last_error: '500' });
    stage.answers.webhooks = (url) => (url.searchParams.get('after')
      ? list([letter(50)])
      : list(Array.from({ length: 50 }, (_, number) => letter(number)), { has_more: true, next: 'more' }));
    await open();
    await shows('#webhooks-heading', 'Dead letters (50 or more)');
    await page.click('#more-letters');
    await shows('#webhooks-heading', 'Dead letters (51)');
    assert.equal(await page.isVisible('#more-letters'), false);
  });

  test('the requests of a tag are one click away, and the filters are the server’s', async () => {
    stage.answers.savings.by_tag = [{ ...sums({ requests: 2 }), tag: 'nightly & eval' }, { ...sums({ requests: 1 }), tag: null }];
    stage.answers.requests = (url) => (url.searchParams.get('tenant') === 'nobody'
      ? { error: { message: 'No tenant is called nobody.', code: 'invalid_parameter' } }
      : list([request(`op_${url.searchParams.get('tag') ?? 'any'}`)]));
    provoked = /400 \(Bad Request\)/;
    await open();
    await page.check('#by input[value=tag]');
    await page.click('#by-rows button');
    await page.waitForSelector('#request-rows a[href="#request=op_nightly%20%26%20eval"]');
    assert.equal(await page.inputValue('#filter-tag'), 'nightly & eval');
    await page.check('#which input[value=queued]');
    await stage.until(({ asked }) => asked.some((it) => it.startsWith('requests?status=queued&tag=nightly+%26+eval&')));
    await shows('#request-when', 'Admitted');
    await page.fill('#filter-tenant', 'nobody');
    await page.keyboard.press('Enter');
    await shows('#filter-error', 'No tenant is called nobody.');
    await page.click('#filter-clear');
    await shows('#filter-error', '');
    await page.waitForSelector('#request-rows a[href="#request=op_any"]');
  });

  test('what has waited for longest is one click away', async () => {
    stage.answers.status.oldest_queued_at = '2026-11-22T17:00:00.120Z';
    stage.answers.requests = (url) => list(url.searchParams.get('created_before') === '2026-11-22T17:00:00.121Z' ? [request('op_oldest')] : []);
    stage.answers['requests/op_oldest'] = request('op_oldest', { status: 'queued', finished_at: null });
    await open();
    await page.click('#now-oldest button');
    await page.waitForSelector('#request[open] .facts');
    assert.match(await text('#request-body'), /op_oldest/);
  });

  test('of 3,000 tags 200 are shown and the others counted, each row told in a few bytes', async () => {
    stage.answers.savings.by_tag = Array.from({ length: 3_000 }, (_, number) => ({
      ...sums({ requests: 1, succeeded: 1, paid_usd: `0.${number + 1}`, standard_usd: '1.00', saved_usd: '0.10' }), tag: `tag-${number}`,
    }));
    stage.answers.savings.by_tag.push({ ...sums({ requests: 99, succeeded: 99, standard_usd: '9.00' }), tag: null, others: true });
    await open();
    await page.check('#by input[value=tag]');
    await page.waitForSelector('#by-rows[data-by=tag]');
    const rows = await page.$$eval('#by-rows tr', (all) => all.map((row) => row.textContent));
    assert.equal(rows.length, 201);
    assert.equal(rows.at(-1), 'and 2,801 more');
    const kept = await page.$$eval('#by-rows tr', (all) => all.reduce((sum, row) => sum + (row.dataset.seen ?? '').length, 0));
    assert.ok(kept < 200 * 1_000, `${kept} bytes`);
  });

  test('a sum of groups that are not told one by one is called so', async () => {
    stage.answers.savings.by_tag = [{ ...sums({ requests: 1 }), tag: null }, { ...sums({ requests: 7 }), tag: null, others: true }];
    await open();
    await page.check('#by input[value=tag]');
    await page.waitForSelector('#by-rows[data-by=tag]');
    assert.deepEqual(await page.$$eval('#by-rows th', (cells) => cells.map((cell) => cell.textContent)), ['no tag', 'others']);
  });
});

describe('time', () => {
  test('a batch grows older', async () => {
    const batch = {
      id: 'ob_01', state: 'submitted', created_at: new Date().toISOString(), age_seconds: 0, reason: 'linger', tenant: '6f1a', endpoint: '/v1/chat/completions',
      model: 'gpt-4o-mini', lines: 3, finished_lines: 1, answered_lines: null, bytes: 1, earliest_deadline: null, submitted_at: null, ended_at: null,
      provider_id: null, provider_status: null, tries: 0, last_error: null,
    };
    stage.answers.batches = list([batch]);
    await withClock();
    await page.goto(stage.page);
    await stage.until(({ streams }) => streams.size === 1);
    await run(5);
    await page.waitForSelector('#batch-rows time[data-age]');
    const before = await text('#batch-rows time[data-age]');
    await run(20);
    const after = await text('#batch-rows time[data-age]');
    assert.ok(parseFloat(after) >= parseFloat(before) + 19, `${before}, ${after}`);
  });

  test('the time beside Live is that of the last word, a heartbeat’s too', async () => {
    await withClock();
    await page.goto(stage.page);
    await stage.until(({ streams }) => streams.size === 1);
    await shows('#connection-text', 'Live');
    const before = await text('#connection-time');
    await run(20);
    assert.equal(await text('#connection-time'), before);
    stage.say(':\n\n');
    await page.waitForFunction((it) => document.querySelector('#connection-time').textContent !== it, before);
  });

  test('a stream that never begins is no live connection', async () => {
    stage.hold('events');
    await withClock();
    await page.goto(stage.page);
    await stage.until(() => stage.times('events') === 1);
    assert.equal(await text('#connection-text'), 'Connecting…');
    await run(50);
    await page.waitForSelector('#banner:not([hidden])');
    assert.equal(await text('#connection-text'), 'No connection');
  });

  test('a tab that nobody looks at gives its connection back', async () => {
    await withClock();
    await page.goto(stage.page);
    await stage.until(({ streams }) => streams.size === 1);
    await shows('#connection-text', 'Live');
    await look(true);
    await run(20);
    assert.equal(stage.streams.size, 1);
    await run(11);
    await stage.until(({ streams }) => streams.size === 0);
    await shows('#connection-text', 'Resting until somebody looks');
    await run(120);
    assert.equal(stage.times('events'), 1);
    stage.answers.status.paused = true;
    await look(false);
    await stage.until(({ streams }) => streams.size === 1);
    await shows('#connection-text', 'Live');
    assert.match(await text('#running'), /Paused/);
  });

  test('a change that comes while numbers are loaded is not forgotten', async () => {
    await withClock();
    await page.goto(stage.page);
    const go = stage.hold('savings');
    await stage.until(({ streams }) => streams.size === 1);
    await shows('#connection-text', 'Live');
    await page.clock.runFor(20);
    await stage.until(() => stage.times('savings') === 1);
    stage.tell({ ended_since_start: 5, open_batches: 1 });
    await shows('#now-batches', '1');
    await page.clock.runFor(20);
    go();
    await page.waitForSelector('#board[data-loaded]');
    // Sooner than where nothing has changed.
    await run(8);
    await stage.until(() => stage.times('savings') === 2);
  });
});

describe('a session', () => {
  test('is over with Sign out, whatever is still on its way', async () => {
    await page.addInitScript(() => {
      // Counts the answers that the page has read and made something of.
      window.read = 0;
      const { json } = Response.prototype;
      Response.prototype.json = async function read() {
        const value = await json.call(this);
        setTimeout(() => { window.read += 1; });
        return value;
      };
    });
    await open();
    stage.answers['requests/op_slow'] = request('op_slow');
    const [status, slow] = [stage.hold('status'), stage.hold('pause')];
    stage.answers.pause = { ...stage.answers.status, paused: true };
    for (const stream of stage.streams) stream.end();
    await stage.until(() => stage.times('status') === 2);
    await page.click('#pause');
    await page.click('#ask-yes');
    await stage.until(() => stage.times('pause') === 1);
    await page.evaluate(() => document.querySelector('#sign-out').click());
    const before = await page.evaluate(() => window.read);
    status();
    slow();
    await page.waitForFunction((it) => window.read >= it + 2, before);
    assert.equal(await page.isVisible('#sign-in'), true);
    assert.equal(await page.isVisible('#board'), false);
    assert.equal(await text('#connection-text'), 'Not connected');
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  });

  test('a request whose answer failed once is shown at the next look', async () => {
    stage.answers['requests/op_a'] = request('op_a');
    provoked = /500 \(Internal Server Error\)/;
    await open();
    const visit = async () => {
      await page.evaluate(() => { location.hash = 'request=op_a'; });
      await page.waitForSelector('#request[open]');
    };
    await visit();
    await page.waitForSelector('#request .facts');
    await page.click('#request-close');
    await page.waitForFunction(() => location.hash === '');
    stage.answers['requests/op_a'] = { status: 500, error: { message: 'the disk is gone' } };
    await visit();
    await shows('#request .error', 'the disk is gone');
    stage.answers['requests/op_a'] = request('op_a');
    stage.tell({ ended_since_start: 1 });
    await page.waitForSelector('#request .facts');
  });
});

describe('an action', () => {
  test('in a sheet on a phone is heard and seen', async () => {
    await page.setViewportSize({ width: 390, height: 844 });
    const webhook = { target: 'https://a.test/hook', status: 'dead', tries: 3, last_error: '500' };
    stage.answers['requests/op_a'] = request('op_a', { webhook });
    stage.answers['requests/op_a/redeliver'] = request('op_a', { webhook });
    await page.goto(`${stage.page}&request=op_a`);
    const button = page.getByRole('button', { name: 'Send webhook again' });
    await button.click({ trial: true });
    const go = stage.hold('requests/op_a/redeliver');
    await button.click();
    await stage.until(() => stage.times('requests/op_a/redeliver') === 1);
    assert.equal(await button.isDisabled(), true);
    go();
    await shows('#request .said', 'The webhook of op_a is being sent again.');
    // In front of everything, and no part of what the dialog makes inert.
    const seen = await page.waitForFunction(() => {
      const said = document.querySelector('#request .said');
      const { left, top, right, bottom } = said.getBoundingClientRect();
      const inside = left >= 0 && right <= innerWidth && top >= 0 && bottom <= innerHeight && right - left > 100;
      return inside && document.elementFromPoint((left + right) / 2, (top + bottom) / 2) === said && said.getAttribute('aria-live');
    });
    assert.equal(await seen.jsonValue(), 'polite');
  });

  test('sends all dead letters of an endpoint again, and no others', async () => {
    const letter = (number, target) => ({ request_id: `op_${number}`, tenant: '6f1a', target, given_up_at: '2026-11-22T17:00:00.000Z', tries: 3, last_error: '500' });
    const [ours, theirs] = ['https://a.test/hook', 'https://b.test/hook'];
    stage.answers.webhooks = (url) => (url.searchParams.get('after')
      ? list([letter(3, ours)])
      : list([letter(0, ours), letter(1, theirs), letter(2, ours)], { has_more: true, next: 'more' }));
    for (const number of [0, 1, 2, 3]) stage.answers[`requests/op_${number}/redeliver`] = request(`op_${number}`);
    await open();
    assert.equal(await page.locator('#endpoints button').count(), 1);
    await page.click('#endpoints button');
    await page.click('#ask-yes');
    await shows('body > .said', '3 webhooks are being sent again.');
    assert.deepEqual(stage.asked.filter((it) => it.includes('redeliver')), [0, 2, 3].map((number) => `requests/op_${number}/redeliver?tenant=6f1a`));
  });

  test('copies the id of a request', async () => {
    await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
    stage.answers['requests/op_a'] = request('op_a');
    await page.goto(`${stage.page}&request=op_a`);
    await page.getByRole('button', { name: 'Copy id' }).click();
    await shows('#request .said', 'Copied.');
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), 'op_a');
  });

  test('that the server refuses says why, where it was asked', async () => {
    stage.answers.flush = { status: 503, error: { message: 'The server stops.' } };
    provoked = /503 \(Service Unavailable\)/;
    await open();
    await page.click('#flush');
    await page.click('#ask-yes');
    await shows('#ask-error', 'The server stops.');
    stage.answers.flush = { ...stage.answers.status };
    await page.click('#ask-yes');
    await shows('body > .said', 'All that waits is being packed.');
    assert.equal(await page.isVisible('#ask'), false);
  });
});

describe('where callers are', () => {
  for (const [name, told, shown] of [
    ['here', {}, () => `${stage.url}/within/6h/v1`],
    ['at a public address', { base_url: 'https://llm.example.com/a', operators_apart: true }, () => 'https://llm.example.com/a/within/6h/v1'],
    ['elsewhere', { operators_apart: true }, () => 'http://HOST:PORT/within/6h/v1'],
  ]) {
    test(`the first call is shown ${name}`, async () => {
      Object.assign(stage.answers.status, told);
      await open();
      assert.equal(await text('#first-url'), shown());
      assert.equal(await page.isVisible('#first-where'), name === 'elsewhere');
    });
  }

  test('what is shown of the sums adds up', async () => {
    stage.answers.savings.total = sums({ requests: 2, succeeded: 2, paid_usd: '43.205', saved_usd: '43.205', standard_usd: '86.41' });
    await open();
    assert.deepEqual(await page.$$eval('#paid, #saved, #standard', (all) => all.map((it) => it.textContent)), ['$43.205', '$43.205', '$86.410']);
  });
});
