// The operators' page: who is asked, when, and what is shown of the answers.

import * as actions from "./actions.js";
import { Api, Refused } from "./api.js";
import * as appearance from "./appearance.js";
import { announce } from "./dialogs.js";
import { byId, now, say, setClock, tick } from "./dom.js";
import { follow } from "./live.js";
import { Rounds } from "./rounds.js";
import * as session from "./session.js";
import * as sheet from "./sheet.js";
import * as batches from "./views/batches.js";
import * as deadlines from "./views/deadlines.js";
import * as present from "./views/now.js";
import * as requests from "./views/requests.js";
import * as savings from "./views/savings.js";
import * as totals from "./views/totals.js";
import * as turnaround from "./views/turnaround.js";
import * as webhooks from "./views/webhooks.js";
import { clockTime, span } from "./words.js";

/** What was learned changes slowly, and is long. */
const TURNAROUND_EVERY = 60_000;

/** What is on the page, of one token. */
const NOBODYS = { api: null, stop: null, rounds: null, status: null, savings: null, lastSeen: "", heardAt: 0, turnaroundAt: -Infinity };
const board = { ...NOBODYS };

start();

function start() {
  const choose = () => board.rounds?.now();
  appearance.start();
  actions.start({ api: () => board.api, status: () => board.status, seen, changed: choose });
  savings.start(requests.narrow);
  present.start(showOldest);
  requests.start(choose);
  webhooks.start(actions, choose);
  sheet.start(actions);
  byId("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    connect(byId("token").value.trim());
    byId("token").value = "";
  });
  byId("sign-out").addEventListener("click", () => {
    session.forget();
    signIn("");
  });
  byId("period").addEventListener("change", choose);
  byId("csv").addEventListener("click", (event) => {
    const { since } = savings.asked(period(), now());
    actions.download({ since }, `offpeak-ledger-${since.slice(0, 10)}.csv`, event.currentTarget);
  });
  addEventListener("hashchange", () => {
    const token = session.fromAddress();
    if (token) connect(token);
    sheet.open(board.api);
  });
  document.addEventListener("visibilitychange", () => board.rounds?.soon());
  setInterval(everySecond, 1_000);
  const token = session.fromAddress() ?? session.kept();
  if (token) connect(token);
  else signIn("");
}

function connect(token) {
  leave();
  session.keep(token);
  const api = new Api(token);
  const stop = new AbortController();
  Object.assign(board, { api, stop, rounds: new Rounds(() => load(api)) });
  connection("waiting", "Connecting…");
  follow(api, { status: (status) => seen(status, api), heard, asking, resting, lost, refused }, stop.signal);
}

/** Nothing of this token's is asked for any more, and no answer on its way is shown. */
function leave() {
  board.stop?.abort();
  board.rounds?.stop();
  Object.assign(board, NOBODYS);
}

function signIn(why) {
  leave();
  delete byId("board").dataset.loaded;
  byId("board").hidden = true;
  byId("sign-out").hidden = true;
  byId("sections").hidden = true;
  byId("banner").hidden = true;
  byId("sign-in").hidden = false;
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  say(byId("token-error"), why);
  byId("token").setAttribute("aria-invalid", String(why !== ""));
  connection("off", "Not connected");
  document.title = "Offpeak";
  byId("token").focus();
}

function refused() {
  session.forget();
  signIn("The server does not know this token. Is it the one of this server’s data directory?");
}

/** A status came: the server is there, and takes the token. */
function seen(status, api) {
  if (api !== board.api) return;
  setClock(status.now);
  const first = board.status === null || byId("board").hidden;
  board.status = status;
  const asked = byId("sign-in").contains(document.activeElement);
  byId("sign-in").hidden = true;
  byId("board").hidden = false;
  if (asked) byId("main").focus();
  byId("sign-out").hidden = false;
  byId("sections").hidden = false;
  board.heardAt = now();
  document.title = status.paused ? "Paused · Offpeak" : "Offpeak";
  present.show(status);
  present.warn(status, board.savings);
  totals.hint(status);
  deadlines.showScopes(status);
  webhooks.showCounts(status);
  const { now: _, live: __, ...rest } = status;
  const changed = JSON.stringify(rest, (key, value) => (key === "age_seconds" ? undefined : value));
  if (changed !== board.lastSeen) board.rounds.soon();
  board.lastSeen = changed;
  if (first) {
    sheet.open(api);
    const section = location.hash.length > 1 && document.querySelector(`section[id="${CSS.escape(location.hash.slice(1))}"]`);
    if (section) section.scrollIntoView();
  }
}

/** The stream said something, be it that nothing has changed. */
function heard() {
  there("Live");
}

function asking() {
  there("Asked now and then");
}

/** What is shown holds until now. */
function there(text) {
  if (!byId("banner").hidden) announce("The server answers again.");
  byId("banner").hidden = true;
  board.heardAt = now();
  connection("on", text);
  say(byId("connection-time"), clockTime(board.heardAt));
}

function resting() {
  connection("waiting", "Resting until somebody looks");
}

function lost(error, wait) {
  const since = board.status ? `What is shown is from ${clockTime(board.heardAt)}. ` : "";
  const why = error instanceof Refused ? `The server answers ${error.status}: ${error.message}` : "The server does not answer.";
  say(byId("banner"), `${why} ${since}It is asked again in ${span(wait / 1000)}.`);
  byId("banner").hidden = false;
  connection("lost", "No connection");
  document.title = "No connection · Offpeak";
}

function connection(state, text) {
  byId("connection").dataset.state = state;
  say(byId("connection-text"), text);
  if (state !== "on") say(byId("connection-time"), "");
}

const period = () => byId("period").querySelector("input:checked").value;

/** Each part is shown as soon as it comes, and one that fails leaves the others. */
async function load(api) {
  const [asked, at] = [period(), now()];
  const part = async (answer, show) => {
    const found = await answer;
    if (api === board.api) show(found);
  };
  const parts = [
    part(api.get("savings", savings.asked(asked, at)), (sums) => {
      board.savings = sums;
      totals.show(sums);
      savings.show(sums, asked, at);
      deadlines.show(sums);
      present.warn(board.status, sums);
    }),
    part(api.get("batches", { limit: "100" }), (open) => batches.show(open.data)),
    part(requests.ask(api), requests.show),
    part(requests.askFailures(api), requests.showFailures),
    part(webhooks.ask(api), webhooks.show),
    sheet.refresh(api),
  ];
  if (at - board.turnaroundAt >= TURNAROUND_EVERY) {
    parts.push(part(api.get("turnaround"), (learned) => {
      board.turnaroundAt = at;
      turnaround.show(learned);
    }));
  }
  const failures = (await Promise.allSettled(parts)).filter((one) => one.status === "rejected");
  if (api !== board.api) return;
  byId("board").dataset.loaded = asked;
  if (failures.length) failed(failures[0].reason);
}

function failed(error) {
  if (error instanceof Refused && error.status === 401) refused();
  else if (error instanceof Refused) announce(`Some numbers could not be had: ${error.message}`);
  // Who does not answer is told by the stream of events.
}

function everySecond() {
  tick();
  board.rounds?.tick();
}

/** The request that has waited for longest or, where it was packed meanwhile, all that wait. */
async function showOldest() {
  const { api, status } = board;
  const before = new Date(Date.parse(status.oldest_queued_at) + 1).toISOString();
  const found = await api.get("requests", { status: "queued", created_before: before, limit: "1" }).catch(() => null);
  if (api !== board.api) return;
  if (found?.data.length) location.hash = `request=${encodeURIComponent(found.data[0].id)}`;
  else requests.pick("queued");
}
