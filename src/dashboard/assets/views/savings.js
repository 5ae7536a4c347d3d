// Savings over time, and by model, tag, tenant and lane.

import { PaidAndSaved } from "../charts.js";
import { byId, h, money, nothing, numeric, rows, say } from "../dom.js";
import { MOST, ranked } from "../groups.js";
import { decimalsFor, decimalsThatAdd, dollars, drawn, permille } from "../money.js";
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

/** `narrow(by, value)` is told which group somebody wants to see the requests of. */
export function start(narrow) {
  chart = new PaidAndSaved(byId("over-time"), pointed);
  byId("by-rows").addEventListener("click", (event) => {
    const { by, value } = event.target.closest("button")?.dataset ?? {};
    if (by) narrow(by, value);
  });
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
  const decimals = decimalsFor(busy.flatMap(({ row }) => [row.paid_usd, row.standard_usd]));
  rows(body, busy.toReversed(), (bar) => bar.at, ({ at, row }) => h("tr", {},
    h("th", { scope: "row" }, label(at)),
    numeric(count(row.requests)), numeric(money(row.paid_usd, decimals)), numeric(money(row.standard_usd, decimals)),
    numeric(money(row.saved_usd, decimals)), numeric(count(row.late))), { see: (bar) => JSON.stringify([bar, decimals]), most: MOST });
}

/** What the pointer is at, in exact words; nothing of the whole period. */
function pointed(index) {
  const bar = index === null ? null : bars[index];
  const text = !bar ? "" : !bar.row ? `${label(bar.at)}: nothing ended`
    : `${label(bar.at)}: ${paidOf(bar.row)}, ${plural(bar.row.requests, "request")}`;
  say(byId("over-time-readout"), text);
}

function paidOf({ paid_usd: paid, saved_usd: saved, standard_usd: standard }) {
  const decimals = decimalsThatAdd([paid, saved], standard);
  return `${dollars(paid, decimals)} paid of ${dollars(standard, decimals)}, ${dollars(saved, decimals)} saved`;
}

function label(at) {
  const text = new Date(at * 1000).toISOString();
  return at % DAY !== 0 || bars.length < 2 || bars[1].at - bars[0].at < DAY ? `${text.slice(5, 10)} ${text.slice(11, 16)}` : text.slice(0, 10);
}

const OTHERS = "all that are not told one by one";
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
  const { rows: sorted, decimals } = ranked(found);
  rows(body, sorted, (row) => `${by} ${JSON.stringify(row.others ? true : row[by])}`, (row) => h("tr", {},
    h("th", { scope: "row", class: "name", title: row.others ? OTHERS : row[by] ?? WITHOUT[by] }, named(by, row)),
    numeric(count(row.requests)), numeric(priced(row, "paid_usd", decimals)), numeric(priced(row, "saved_usd", decimals)),
    numeric(row.unpriced > 0 ? unpriced(row) : percent(permille(row.saved_usd, row.standard_usd)))), { see: (row) => JSON.stringify([row, decimals]), most: MOST });
}

/** Where nothing has a price there is no amount, which is not an amount of nothing. */
function priced(row, field, decimals) {
  return money(row.unpriced > 0 && row.unpriced >= row.succeeded ? null : row[field], decimals);
}

function unpriced(row) {
  const why = `${plural(row.unpriced, "answer")} whose price is not known: counted in tokens, and in no sum of money`;
  return h("span", { class: "chip warn", title: why }, "unpriced");
}

/** A button that shows its requests, where they can be asked for. */
function named(by, row) {
  if (row.others) return h("span", { class: "none" }, "others");
  if (row[by] === null) return h("span", { class: "none" }, WITHOUT[by]);
  if (by === "lane") return row.lane;
  const name = by === "tenant" ? row.name ?? h("span", { class: "id" }, short(row.tenant)) : row[by];
  return h("button", { type: "button", class: "named", "data-by": by, "data-value": row[by], "aria-label": `Show the requests of ${by} ${row.name ?? row[by]}` }, name);
}
