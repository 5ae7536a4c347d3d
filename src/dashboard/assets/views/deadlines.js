// How much time was left at the answer, and which lanes answered.

import { byId, h, money, nothing, numeric, rows, say, td } from "../dom.js";
import { decimalsFor, permille } from "../money.js";
import { count, percent, plural, share, span } from "../words.js";

/** Scopes shown: one for each model of each organization. */
const MOST = 200;

/** Buckets of the histogram that are behind the deadline. */
const LATE = 2;

export const known = (slack = []) => sum(slack);
export const onTime = (slack = []) => sum(slack.slice(LATE));

export function show(savings) {
  const slack = savings.total.slack ?? [];
  const answers = known(slack);
  const unknown = savings.total.succeeded - answers;
  say(byId("slack-sub"), answers === 0 ? "No answers in this period"
    : `${share(onTime(slack), answers)} of ${plural(answers, "answer")} in time, ${count(savings.total.rescued)} rescued, ${count(answers - onTime(slack))} late`
      + (unknown > 0 ? `; of ${count(unknown)} older ones it is not known` : ""));
  const most = Math.max(1, ...slack);
  const names = bounds(savings.slack_bounds_seconds ?? []);
  rows(byId("slack-rows"), slack.map((number, at) => ({ number, at, most, answers })).toReversed(), ({ at }) => at,
    ({ number, at }) => h("tr", { class: at < LATE ? "late" : "in-time" },
      h("th", { scope: "row" }, names[at]),
      td(bar(number / most), "barred"),
      h("td", { class: "num", title: share(number, answers) }, count(number))));
  showLanes(savings);
}

function showLanes(savings) {
  const body = byId("lane-rows");
  if (savings.by_lane.length === 0) return nothing(body, 6, "Nothing ended in this period.");
  const most = Math.max(...savings.by_lane.map((row) => row.requests));
  const decimals = decimalsFor(savings.by_lane.map((row) => row.saved_usd));
  const sorted = savings.by_lane.toSorted((one, other) => other.requests - one.requests);
  rows(body, sorted, (row) => row.lane, (row) => h("tr", {},
    h("th", { scope: "row" }, row.lane ?? h("span", { class: "none" }, "no answer")),
    numeric(count(row.requests)), td(bar(row.requests / most), "barred"),
    numeric(money(row.saved_usd, decimals)), numeric(percent(permille(row.saved_usd, row.standard_usd))),
    numeric(count(row.late))), { see: (row) => JSON.stringify([row, most, decimals]) });
}

export function showScopes(status) {
  const body = byId("scope-rows");
  if (status.live.length === 0) return nothing(body, 6, "No live calls of late.");
  const whose = (scope) => scope.organization ?? (scope.credential ?? "").slice(0, 8);
  rows(body, status.live, (scope) => `${whose(scope)} ${scope.model}`, (scope) => h("tr", {},
    h("th", { scope: "row", class: "name", title: `${whose(scope)} · ${scope.model}` }, scope.model, h("span", { class: "under" }, whose(scope))),
    numeric(count(scope.in_flight)), numeric(count(scope.limit)),
    numeric(scope.calls_per_second.toFixed(1)), numeric(span(scope.latency_seconds)),
    td(scope.paused_until ? h("span", { class: "chip warn", title: scope.paused_until }, "asked to wait") : h("span", { class: "none" }, "–"))), { most: MOST });
}

/** "more than 1h late", "up to 1h late", "under 1m", "1m to 5m", … */
function bounds(edges) {
  const names = [`more than ${span(-edges[0])} late`, `up to ${span(-edges[0])} late`, `under ${span(edges[2])}`];
  for (let at = 3; at < edges.length; at += 1) names.push(`${span(edges[at - 1])} to ${span(edges[at])}`);
  names.push(`more than ${span(edges.at(-1))}`);
  return names;
}

function bar(part) {
  return h("span", { class: "bar", style: { "--part": `${(part * 100).toFixed(2)}%` } });
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
