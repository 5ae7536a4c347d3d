// What the page makes of amounts, shares and spans, without a browser.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

/** A module of the page, and what it imports, as an address that it can be imported from. */
function address(path) {
  const source = readFileSync(path, 'utf8').replace(/ from "([^"]+)"/g, (_, other) => ` from "${address(new URL(other, path))}"`);
  return `data:text/javascript,${encodeURIComponent(source)}`;
}
const load = (name) => import(address(new URL(`../../src/dashboard/assets/${name}`, import.meta.url)));

const { decimalsFor, decimalsThatAdd, dollars, exact, permille, pico } = await load('money.js');
const { few, MOST, ranked } = await load('groups.js');
const { share, span } = await load('words.js');

test('amounts are whole picodollars', () => {
  assert.equal(pico('0.000000000001'), 1n);
  assert.equal(pico('-1234.5'), -1_234_500_000_000_000n);
  assert.equal(pico('90071992547409931.23'), 90_071_992_547_409_931_230_000_000_000n);
  for (const bad of ['', '1e3', '.5', '1.', '0.0000000000001', '1,000.00', ' 1', 'NaN', null]) {
    assert.throws(() => pico(bad), TypeError, String(bad));
  }
});

test('people are shown cents, or of less than a dollar three digits', () => {
  for (const [amount, shown] of [
    ['0.00', '$0.00'], ['1234.5678', '$1,234.57'], ['1234567.005', '$1,234,567.01'], ['0.999', '$0.999'], ['0.99999', '$1.000'],
    ['0.001215', '$0.00122'], ['0.000000000001', '$0.000000000001'], ['-0.25', '−$0.250'], ['-12.3', '−$12.30'],
    ['90071992547409931.23', '$90,071,992,547,409,931.23'],
  ]) assert.equal(dollars(amount), shown, amount);
  assert.equal(exact('-1234567.000012'), '−$1,234,567.000012');
});

test('amounts that stand together have as many decimals, and none is hidden', () => {
  const among = ['0.0012', '0.5', '0.00'];
  assert.deepEqual(among.map((amount) => dollars(amount, decimalsFor(among))), ['$0.001', '$0.500', '$0.000']);
  assert.equal(dollars('0.004', decimalsFor(['0.004', '25.00'])), '<$0.01');
  assert.equal(dollars('-0.004', decimalsFor(['0.004', '25.00'])), '−<$0.01');
});

test('parts are shown with as many decimals as it takes that they add up', () => {
  for (const [parts, whole, decimals] of [
    [['43.20', '43.21'], '86.41', 2], [['43.205', '43.205'], '86.41', 3], [['2.00', '-0.50'], '1.50', 2],
    [['1.0045', '1.0045'], '2.009', 4], [['0.00', '0.00'], '0.00', 2], [['0.0012', '0.0013'], '0.0025', 5],
  ]) {
    assert.equal(decimalsThatAdd(parts, whole), decimals, `${parts} of ${whole}`);
    const [cents, all] = [parts, [whole]].map((amounts) => amounts
      .map((amount) => Number(dollars(amount, decimals).replace('−', '-').replace(/[$,]/g, '')))
      .reduce((sum, amount) => sum + amount, 0).toFixed(decimals));
    assert.equal(cents, all);
  }
});

test('3,000 groups are told in as many readings of an amount, not in its square', () => {
  const groups = Array.from({ length: 3_000 }, (_, number) => ({
    tag: `tag-${number}`, requests: 1, paid_usd: `0.${String(number).padStart(4, '0')}`, saved_usd: '0.25', standard_usd: `${number}.00`,
  }));
  groups.unshift({ tag: null, others: true, requests: 9, paid_usd: '9000.00', saved_usd: '1.00', standard_usd: '9001.00' });
  const { BigInt: real } = globalThis;
  let read = 0;
  globalThis.BigInt = (text) => {
    read += 1;
    return real(text);
  };
  try {
    const { rows, decimals } = ranked(groups);
    const shown = rows.slice(0, MOST).map((row) => [row.tag, dollars(row.paid_usd, decimals), dollars(row.saved_usd, decimals)]);
    assert.equal(rows.length, 3_001);
    assert.deepEqual(shown[0], ['tag-2999', '$0.300', '$0.250']);
    assert.deepEqual(rows.at(-1).others, true);
  } finally {
    globalThis.BigInt = real;
  }
  assert.ok(read > 0 && read <= 3_001 * 4, `${read} amounts were read`);
});

test('of many names the first are told', () => {
  assert.equal(few(['a', 'b']), 'a, b');
  assert.equal(few(['a', 'b', 'c', 'd'], 2), 'a, b and 2 more');
});

test('a share is whole only where nothing is missing', () => {
  assert.equal(share(99_999, 100_000), '99.9 %');
  assert.equal(share(100_000, 100_000), '100 %');
  assert.equal(share(1, 100_000), '<0.1 %');
  assert.equal(share(0, 100_000), '0.0 %');
  assert.equal(share(0, 0), '–');
  assert.equal(permille('0.50', '1.00'), 500);
  assert.equal(permille('-0.10', '1.00'), -100);
  assert.equal(permille('1.00', '0.00'), null);
});

test('spans have two units at most', () => {
  for (const [seconds, shown] of [
    [0, '0s'], [0.25, '0.25s'], [9.96, '10s'], [59.4, '59s'], [231, '3m 51s'], [9304, '2h 35m'], [3600, '1h'], [356_400, '4d 3h'],
  ]) assert.equal(span(seconds), shown, seconds);
});
