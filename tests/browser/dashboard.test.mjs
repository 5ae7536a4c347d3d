// The real page on the real server, in the order in which a person would use it.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';

import { barriers, launch, watched } from './browser.mjs';
import { LINK, PICTURES, Receiver, Wire, admin, call, ended, until } from './world.mjs';

/** What a caller may name its tag, and a provider its model (tests/it/dashboard.rs). */
const HOSTILE = '<img src=x onerror=alert(1)>';

const whose = (row) => row.organization ?? row.credential.slice(0, 8);
const LEARNED = { 'whole-batch': 'batch, to its last line', calls: 'calls a second' };
/** Tables by what they show of which list; columns by the cell and what the server tells there. Nothing that fades. */
const TABLES = [
  ['batch', 'batches', 'data', [
    ['th', (row) => `…${row.id.slice(-8)}`], ['.chip', (row) => row.state], ['.name .under', (row) => row.endpoint.replace('/v1/', '')],
    ['td:nth-child(5)', (row) => row.lines], ['td:nth-child(9)', (row) => row.tries], ['.why', (row) => `${row.last_error ?? ''}${row.reason}${row.left ? `left: ${row.left}` : ''}`],
  ]],
  ['lane', 'savings', 'by_lane', [
    ['th', (row) => row.lane ?? 'no answer'], ['td:nth-child(2)', (row) => row.requests], ['data', (row) => row.saved_usd], ['td:last-child', (row) => row.late],
  ]],
  ['scope', 'status', 'live', [['.name', (row) => row.model + whose(row)], ['td:nth-child(2)', (row) => row.in_flight], ['td:nth-child(3)', (row) => row.limit]]],
  ['turnaround', 'turnaround', 'data', [['th', (row) => LEARNED[row.what] ?? row.what], ['.name', (row) => row.model + (row.organization ?? row.credential)]]],
];

/** How often the page asked for each of the operators' paths. */
const questions = {};
const streams = { ended: 0 };

let browser, page, wire, receiver, letter, urgent;
const troubles = [];
/** What the browser itself logs of an answer that a test provokes. */
let provoked = null;

before(async () => {
  mkdirSync(PICTURES, { recursive: true });
  receiver = await Receiver.start(process.env.WEBHOOK_PORT);
  const calls = [];
  for (let number = 0; number < 12; number += 1) {
    calls.push(call(`evaluate ${number}`, { sim: `tokens=${300 + number}`, headers: { 'Offpeak-Tag': 'nightly-eval' } }));
  }
  for (let number = 0; number < 4; number += 1) calls.push(call(`summary ${number}`, { model: 'gpt-4.1', key: 'sk-summaries' }));
  calls.push(call('a tag', { headers: { 'Offpeak-Tag': HOSTILE } }), call('a model', { model: HOSTILE }));
  calls.push(call('refused', { sim: 'status=400' }), call('refused at once', { sim: 'status=400', headers: { 'Offpeak-Deadline': '3s' } }), call('soon', { headers: { 'Offpeak-Deadline': '3s' } }));
  const notified = call('notify', { headers: { 'Offpeak-Webhook': receiver.url, 'Offpeak-Tag': 'notified' } });
  const outcomes = await Promise.all(calls);
  urgent = outcomes.at(-1);
  assert.equal(outcomes.at(-2).status, 400);
  letter = await notified;
  assert.equal(letter.status, 202);
  assert.equal(await ended(letter), 200);
  await until('webhooks?status=dead', (dead) => dead.data.length === 1);
  await until('status', (status) => status.requests.open === 0 && status.open_batches === 0);

  wire = await Wire.lay();
  browser = await launch();
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, reducedMotion: 'reduce' });
  page = await watched(context, wire.url, troubles, (text) => provoked?.test(text));
  const asked = (request) => new URL(request.url()).pathname.replace('/offpeak/admin/', '');
  page.on('request', (request) => (questions[asked(request)] = (questions[asked(request)] ?? 0) + 1));
  for (const ended of ['requestfinished', 'requestfailed']) page.on(ended, (request) => asked(request) === 'events' && (streams.ended += 1));
});

after(async () => {
  await browser?.close();
  await wire?.cut();
  receiver?.stop();
});

/** Of an element, or null. */
const text = (selector) => page.evaluate((it) => document.querySelector(it)?.textContent ?? null, selector);
/** An amount with all its digits. */
const amount = (selector) => page.evaluate((it) => document.querySelector(`${it} data`)?.value ?? null, selector);

async function shows(selector, wanted) {
  await page.waitForFunction(([it, content]) => document.querySelector(it)?.textContent === content, [selector, wanted]);
}

describe('the dashboard', () => {
  test('asks for the token, and says where it is', async () => {
    await page.goto(`${wire.url}/offpeak/`);
    assert.match(await text('#sign-in'), /admin\.token/);
    assert.equal(await page.evaluate(() => document.activeElement.id), 'token');
    provoked = /401 \(Unauthorized\)/;
    await page.fill('#token', 'adm_wrong');
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => document.querySelector('#token-error').textContent !== '');
    assert.match(await text('#token-error'), /does not know this token/);
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    assert.deepEqual(await barriers(page), []);
    await page.screenshot({ path: join(PICTURES, 'sign-in.png') });
    provoked = null;
  });

  test('takes it from the link, and out of the address', async () => {
    await page.goto('about:blank');
    const link = new URL(LINK);
    assert.equal(link.pathname, '/offpeak/');
    await page.goto(`${wire.url}/offpeak${link.hash}`);
    await page.waitForSelector('#board[data-loaded]');
    assert.equal(page.url(), `${wire.url}/offpeak/`);
    assert.deepEqual(await page.context().cookies(), []);
  });

  test('shows the sums that the server tells', async () => {
    const { total } = await admin('savings');
    assert.equal(total.requests, 22);
    assert.equal(total.unpriced, 1);
    await shows('#total-requests', String(total.requests));
    assert.equal(await amount('#paid'), total.paid_usd);
    assert.equal(await amount('#standard'), total.standard_usd);
    assert.equal(await amount('#saved'), total.saved_usd);
    assert.notEqual(total.saved_usd, '0.00');
    for (const name of ['late', 'rescued', 'paid_twice', 'unaccounted', 'unpriced']) {
      assert.equal(await text(`#total-${name.replace('_', '-')}`), String(total[name]), name);
    }
    assert.equal(await text('#total-unpriced-note'), HOSTILE);
    const [onTime, known] = [total.slack.slice(2), total.slack].map((counts) => counts.reduce((sum, count) => sum + count, 0));
    assert.equal(known, 20);
    assert.equal(await text('#total-on-time'), onTime === known ? '100 %' : `${(Math.floor((onTime * 1000) / known) / 10).toFixed(1)} %`);
    const counted = await page.$$eval('#slack-rows .num', (cells) => cells.map((cell) => Number(cell.textContent)));
    assert.deepEqual(counted.toReversed(), total.slack);
  });

  test('shows every row by model, tag, tenant and lane', async () => {
    const savings = await admin('savings');
    for (const by of ['model', 'tag', 'tenant', 'lane']) {
      await page.check(`#by input[value=${by}]`);
      await page.waitForSelector(`#by-rows[data-by=${by}]`);
      const shown = await page.$$eval('#by-rows tr', (rows) => rows.map((row) => [
        row.cells[0].title, row.cells[1].textContent, row.cells[2].querySelector('data')?.value, row.cells[3].querySelector('data')?.value,
      ]));
      const told = savings[`by_${by}`].map((row) => {
        const priced = row.unpriced < row.succeeded || row.unpriced === 0;
        return [row[by] ?? (by === 'lane' ? 'no answer' : `no ${by}`), String(row.requests), priced ? row.paid_usd : undefined, priced ? row.saved_usd : undefined];
      });
      assert.ok(told.length > 1, by);
      assert.deepEqual(shown.toSorted(), told.toSorted(), by);
    }
    await page.check('#by input[value=model]');
  });

  for (const [table, path, list, columns] of TABLES) {
    test(`shows the rows of ${table} that the server tells`, async () => {
      const rows = (await admin(path))[list];
      assert.ok(rows.length > 0, path);
      const shown = await page.$$eval(`#${table}-rows tr`, (all, cells) => all.map((row) => cells.map((cell) => {
        const found = row.querySelector(cell);
        return found.value ?? found.textContent;
      })), columns.map(([cell]) => cell));
      assert.deepEqual(shown.toSorted(), rows.map((row) => columns.map(([, told]) => String(told(row)))).toSorted());
    });
  }

  test('adds up to the total in every period', async () => {
    for (const period of ['24h', '31d', 'all', '7d']) {
      await page.check(`#period input[value="${period}"]`);
      await page.waitForSelector(`#board[data-loaded="${period}"]`);
      const requests = await page.$$eval('#over-time-rows tr', (rows) => rows.map((row) => Number(row.cells[1].textContent)));
      assert.equal(requests.reduce((sum, count) => sum + count, 0), 22, period);
      assert.ok(await page.$('#over-time canvas'), period);
    }
  });

  test('gives the ledger of the period as a file', async () => {
    const [file] = await Promise.all([page.waitForEvent('download'), page.click('#csv')]);
    assert.match(file.suggestedFilename(), /^offpeak-ledger-\d{4}-\d\d-\d\d\.csv$/);
    const [head, ...rows] = readFileSync(await file.path(), 'utf8').trim().split('\r\n').map((line) => line.split(','));
    const { data } = await admin('ledger');
    assert.equal(rows.length, data.length);
    assert.equal(rows.reduce((sum, row) => sum + Number(row[head.indexOf('requests')]), 0), 22);
  });

  test('turns the pages of requests', async () => {
    const listed = () => page.$$eval('#request-rows tr', (rows) => rows.length);
    assert.equal(await listed(), 20);
    await page.click('#more-requests');
    await page.waitForFunction(() => document.querySelectorAll('#request-rows tr').length === 22);
    assert.equal(await page.isVisible('#more-requests'), false);
  });

  test('shows what callers write as text', async () => {
    const named = (rows) => rows.flatMap((row) => [...row.cells]).filter((cell) => cell.textContent.startsWith('<img')).length;
    assert.equal(await page.$$eval('#request-rows tr', named), 2);
    assert.equal(await page.$$eval('main img, dialog img', (images) => images.length), 0);
  });

  test('lists failures with their reasons', async () => {
    const reasons = await page.$$eval('#failure-rows .why', (cells) => cells.map((cell) => cell.textContent));
    assert.equal(reasons.length, 2);
    for (const reason of reasons) assert.match(reason, /^the provider answered 400 invalid_value; \S/);
    assert.equal(reasons.filter((reason) => reason.startsWith('the provider answered 400 invalid_value; batch, ')).length, 1);
  });

  test('tells the way of one request', async () => {
    await page.click(`#request-rows a[href="#request=${urgent.id}"]`);
    await page.waitForSelector('#request .timeline');
    const { timeline } = await admin(`requests/${urgent.id}`);
    const shown = await page.$$eval('#request .timeline li', (items) => items.map((item) => [
      item.querySelector('time')?.dateTime ?? null, item.querySelector('.why')?.textContent ?? null,
    ]));
    assert.deepEqual(shown, timeline.map((event) => [event.at, event.reason || null]));
    assert.doesNotMatch(await text('#request'), /null|undefined|NaN/);
    assert.equal(timeline[0].event, 'admitted');
    assert.ok(timeline.some((event) => event.event === 'answered'));
    assert.ok(timeline.some((event) => event.reason), 'no decision has a reason');
    await page.screenshot({ path: join(PICTURES, 'request.png') });
    assert.deepEqual(await barriers(page), []);
    await page.reload();
    await page.waitForSelector('#request[open] .timeline');
    assert.match(await text('#request'), new RegExp(urgent.id));
    await page.keyboard.press('Escape');
    await page.waitForFunction(() => location.hash === '');
  });

  test('finds a request by its id, and says where there is none', async () => {
    await page.fill('#find-id', letter.id);
    await page.click('#find button');
    await page.waitForSelector('#request[open] .timeline');
    assert.match(await text('#request .facts'), /notified/);
    await page.click('#request-close');
    provoked = /404 \(Not Found\)/;
    await page.fill('#find-id', 'op_01kap9kdcg0000040000000000');
    await page.keyboard.press('Enter');
    await page.waitForSelector('#request .error');
    await page.click('#request-close');
    provoked = null;
  });

  test('sends a dead letter again', async () => {
    assert.equal(await page.$$eval('#letter-rows .redeliver', (buttons) => buttons.length), 1);
    receiver.taking = true;
    await page.click(`#letter-rows button[data-request="${letter.id}"]`);
    const event = await receiver.next();
    assert.equal(event.data.id, letter.id);
    assert.equal(event.type, 'offpeak.request.succeeded');
    await page.waitForFunction(() => document.querySelector('#letter-rows').textContent.startsWith('None'));
    await until(`requests/${letter.id}`, (request) => request.webhook.status === 'delivered');
  });

  test('pauses, resumes and flushes, when asked twice', async () => {
    await page.click('#pause');
    await page.click('#ask-no');
    assert.equal((await admin('status')).paused, false);
    await page.click('#pause');
    await page.click('#ask-yes');
    await shows('#running', 'Paused: nothing is packed or submitted');
    assert.equal((await admin('status')).paused, true);
    assert.match(await text('#warning-list'), /Paused/);
    const waiting = await call('waits', { headers: { Prefer: 'respond-async' } });
    await shows('#now-queued', '1');
    const status = await admin('status');
    for (const [name, number] of [['in-batches', status.requests.in_batches], ['live', status.requests.live], ['batches', status.open_batches]]) {
      assert.equal(await text(`#now-${name}`), String(number), name);
    }
    assert.equal(await page.getAttribute('#now-oldest time', 'datetime'), status.oldest_queued_at);
    assert.equal(await page.getAttribute('#now-earliest time', 'datetime'), status.earliest_deadline);
    await page.check('#which input[value=queued]');
    await page.waitForSelector(`#request-rows tr:only-child a[href="#request=${waiting.id}"]`);
    await page.click('#now-oldest button');
    await page.waitForSelector('#request[open] .timeline');
    assert.match(await text('#request-body'), new RegExp(waiting.id));
    await page.click('#request-close');
    await page.check('#which input[value=ended]');
    await page.screenshot({ path: join(PICTURES, 'paused.png') });
    await page.click('#resume');
    await page.click('#ask-yes');
    await shows('#running', 'Packing and submitting');
    assert.equal((await admin('status')).paused, false);
    assert.equal(await ended(waiting), 200);
    await page.click('#flush');
    const [flushed] = await Promise.all([page.waitForResponse(/admin\/flush$/), page.click('#ask-yes')]);
    assert.equal(flushed.status(), 200);
    await shows('body > .said', 'All that waits is being packed.');
    assert.equal(await page.isVisible('#ask'), false);
  });

  test('sees another operator pause', async () => {
    await admin('pause', 'POST');
    await shows('#running', 'Paused: nothing is packed or submitted');
    await admin('resume', 'POST');
    await shows('#running', 'Packing and submitting');
  });

  test('counts the next call without being loaded again', async () => {
    await page.evaluate(() => { window.sameDocument = true; });
    const before = { ...questions, ended: streams.ended };
    await call('one more');
    await shows('#total-requests', '24');
    assert.equal(await amount('#paid'), (await admin('savings')).total.paid_usd);
    assert.equal(await page.evaluate(() => window.sameDocument), true);
    // By the stream that is open, and by no question for the status.
    assert.deepEqual([questions.events, questions.status, streams.ended], [before.events, before.status, before.ended]);
    assert.ok(questions.events > streams.ended, 'no stream of events is open');
  });

  test('keeps what it shows while the server is away', async () => {
    provoked = /Failed to load resource: net::ERR_/;
    await wire.cut();
    await page.waitForSelector('#banner:not([hidden])');
    assert.match(await text('#banner'), /does not answer\. What is shown is from/);
    await page.screenshot({ path: join(PICTURES, 'away.png') });
    await page.click('#pause');
    await page.click('#ask-yes');
    await page.waitForFunction(() => document.querySelector('#ask-error').textContent !== '');
    await page.click('#ask-no');
    assert.equal(await text('#total-requests'), '24');
    await wire.mend();
    await page.waitForSelector('#banner', { state: 'hidden' });
    await call('after the break');
    await shows('#total-requests', '25');
    provoked = null;
    assert.equal((await admin('status')).paused, false);
    await page.waitForFunction(() => !document.querySelector('.said.shown'));
  });

  for (const [name, width, height, colorScheme] of [
    ['desktop-light', 1440, 900, 'light'],
    ['desktop-dark', 1440, 900, 'dark'],
    ['phone-light', 390, 844, 'light'],
    ['phone-dark', 390, 844, 'dark'],
  ]) {
    test(`keeps nobody out: ${name}`, async () => {
      await page.setViewportSize({ width, height });
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      await page.waitForFunction((most) => document.querySelector('.uplot').offsetWidth < most, width);
      await page.evaluate(() => scrollTo(0, 0));
      assert.doesNotMatch(await text('#board'), /null|undefined|NaN/);
      assert.deepEqual(await barriers(page), []);
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width, 'it is too wide');
      await page.screenshot({ path: join(PICTURES, `${name}.png`), fullPage: true });
    });
  }

  test('can be made dark and light by hand, and stays so', async () => {
    await page.emulateMedia({ colorScheme: 'light' });
    const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await background();
    await page.click('#theme');
    const dark = await background();
    assert.notEqual(dark, light);
    await page.reload();
    await page.waitForSelector('#board[data-loaded]');
    assert.equal(await background(), dark);
  });

  test('forgets the token, and takes it again', async () => {
    await page.click('#sign-out');
    await page.fill('#token', new URLSearchParams(new URL(LINK).hash.slice(1)).get('token'));
    await page.keyboard.press('Enter');
    await page.waitForSelector('#board[data-loaded]');
    await shows('#total-requests', '25');
    await page.click('#sign-out');
    await page.waitForSelector('#token');
    await page.reload();
    await page.waitForSelector('#token');
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  });

  test('logged nothing, asked nobody else and was forbidden nothing', () => {
    assert.deepEqual(troubles, []);
  });
});
