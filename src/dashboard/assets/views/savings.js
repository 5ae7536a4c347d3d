// Savings over time, and by model, tag, tenant and lane.

import { PaidAndSaved } from "../charts.js";
import { byId, h, money, nothing, numeric, rows, say } from "../dom.js";
import { dollars, drawn, permille } from "../money.js";
import { count, percent, plural, short } from "../words.js";

const HOUR = 3_600;
const DAY = 86_400;

/** What the picker offers: how far back, and how wide a bar is. */
const PERIODS = {
  "24h": { step: HOUR, back: 23 },
  "7d": { step: DAY, back: 6, words: "seven days" },
  "31d": { step: DAY, back: 30 },
  all: { step: DAY },
};

/** The questions of a period's savings: from a whole hour or day of UTC. */
export function asked(period, nowMs) {
  const { step, back } = PERIODS[period];
  const last = Math.floor(nowMs / 1000 / step) * step;
  const since = back === undefined ? 0 : last - back * step;
  return { since: new Date(since * 1000).toISOString(), by: step === HOUR ? "hour" : undefined };
}

let chart = null;
let bars = [];
let latest = null;

export function start() {
  chart = new PaidAndSaved(byId("over-time"), pointed);
  byId("by").addEventListener("change", () => latest && showGroups(latest));
}

export function show(savings, period, nowMs) {
  latest = savings;
  showBars(savings, period, nowMs);
  showGroups(savings);
}

function showBars(savings, period, nowMs) {
  const { step } = PERIODS[period];
  const found = step === HOUR ? savings.by_hour : savings.by_day;
  const name = step === HOUR ? "hour" : "day";
  const known = new Map(found.map((row) => [Date.parse(row[name]) / 1000, row]));
  const last = Math.floor(nowMs / 1000 / step) * step;
  let first = Date.parse(asked(period, nowMs).since) / 1000;
  if (period === "all") first = Math.min(last - 6 * step, ...known.keys());
  bars = [];
  for (let at = first; at <= last; at += step) bars.push({ at, row: known.get(at) ?? null });

  const amount = (field) => bars.map(({ row }) => (row ? drawn(row[field]) : 0));
  chart.show(bars.map((bar) => bar.at), amount("standard_usd"), amount("paid_usd"), step);
  pointed(null);
  const busy = bars.filter((bar) => bar.row);
  say(byId("over-time-text"), `${bars.length} bars, one ${name === "hour" ? "an hour" : "a day"}; ${busy.length} of them have requests. In all ${dollars(savings.total.paid_usd)} paid and ${dollars(savings.total.saved_usd)} saved.`);

  say(byId("over-time-unit"), name === "hour" ? "Hour (UTC)" : "Day (UTC)");
  const body = byId("over-time-rows");
  if (busy.length === 0) return nothing(body, 6, "Nothing ended in this period.");
  const among = busy.flatMap(({ row }) => [row.paid_usd, row.standard_usd]);
  rows(body, busy.toReversed(), (bar) => bar.at, ({ at, row }) => h("tr", {},
    h("th", { scope: "row" }, label(at)),
    numeric(count(row.requests)), numeric(money(row.paid_usd, among)), numeric(money(row.standard_usd, among)),
    numeric(money(row.saved_usd, among)), numeric(count(row.late))), (bar) => JSON.stringify([bar, among]));
}

/** What the pointer is at, in exact words; nothing of the whole period. */
function pointed(index) {
  const bar = index === null ? null : bars[index];
  const text = !bar ? "" : !bar.row ? `${label(bar.at)}: nothing ended`
    : `${label(bar.at)}: ${dollars(bar.row.paid_usd)} paid of ${dollars(bar.row.standard_usd)}, ${dollars(bar.row.saved_usd)} saved, ${plural(bar.row.requests, "request")}`;
  say(byId("over-time-readout"), text);
}

function label(at) {
  const text = new Date(at * 1000).toISOString();
  return at % DAY !== 0 || bars.length < 2 || bars[1].at - bars[0].at < DAY ? `${text.slice(5, 10)} ${text.slice(11, 16)}` : text.slice(0, 10);
}

const WITHOUT = { tag: "no tag", lane: "no answer", model: "no model", tenant: "no tenant" };

function showGroups(savings) {
  const by = byId("by").querySelector("input:checked").value;
  const found = savings[`by_${by}`] ?? [];
  const title = by[0].toUpperCase() + by.slice(1);
  say(byId("by-column"), title);
  say(byId("by-heading"), `By ${by}`);
  say(byId("by-caption"), `Savings by ${by}`);
  const body = byId("by-rows");
  body.dataset.by = by;
  if (found.length === 0) return nothing(body, 5, "Nothing ended in this period.");
  const sorted = found.toSorted((one, other) => drawn(other.standard_usd) - drawn(one.standard_usd) || other.requests - one.requests);
  const among = sorted.flatMap((row) => [row.paid_usd, row.saved_usd]);
  rows(body, sorted, (row) => `${by} ${JSON.stringify([row[by], row.others])}`, (row) => h("tr", {},
    h("th", { scope: "row", class: "name", title: row[by] ?? unnamed(by, row) }, named(by, row)),
    numeric(count(row.requests)), numeric(priced(row, "paid_usd", among)), numeric(priced(row, "saved_usd", among)),
    numeric(row.unpriced > 0 ? unpriced(row) : percent(permille(row.saved_usd, row.standard_usd)))), (row) => JSON.stringify([row, among]));
}

/** Where nothing has a price there is no amount, which is not an amount of nothing. */
function priced(row, field, among) {
  return money(row.unpriced > 0 && row.unpriced >= row.succeeded ? null : row[field], among);
}

function unpriced(row) {
  const why = `${plural(row.unpriced, "answer")} whose price is not known: counted in tokens, and in no sum of money`;
  return h("span", { class: "chip warn", title: why }, "unpriced");
}

function unnamed(by, row) {
  return row.others ? "all others" : WITHOUT[by];
}

function named(by, row) {
  if (row[by] === null) return h("span", { class: "none" }, unnamed(by, row));
  if (by !== "tenant") return row[by];
  return row.name ?? h("span", { class: "id" }, short(row.tenant));
}
