// The operators' page: who is asked, when, and what is shown of the answers.

import * as actions from "./actions.js";
import { Api, Refused } from "./api.js";
import * as appearance from "./appearance.js";
import { announce } from "./dialogs.js";
import { byId, now, say, setClock, tick } from "./dom.js";
import { follow } from "./live.js";
import * as session from "./session.js";
import * as batches from "./views/batches.js";
import * as deadlines from "./views/deadlines.js";
import * as present from "./views/now.js";
import * as request from "./views/request.js";
import * as requests from "./views/requests.js";
import * as savings from "./views/savings.js";
import * as totals from "./views/totals.js";
import * as turnaround from "./views/turnaround.js";
import * as webhooks from "./views/webhooks.js";
import { clockTime, span } from "./words.js";

/** Numbers are asked for anew this often, and sooner where the status changes. */
const REFRESH_EVERY = 10_000;
/** But no sooner than this after the last time, nor than ten times what that took. */
const REFRESH_GAP = 1_000;
const PAGE = 20;

/** What is on the page, of one token. */
const board = { api: null, stop: null, status: null, savings: null, pages: 1, loading: false, chosen: false, due: 0, timer: null, lastSeen: "" };

start();

function start() {
  appearance.start();
  actions.start({ api: () => board.api, status: () => board.status, seen, changed: choose });
  savings.start();
  present.start();
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
  byId("which").addEventListener("change", () => {
    board.pages = 1;
    choose();
  });
  byId("more-requests").addEventListener("click", () => {
    board.pages += 1;
    choose();
  });
  byId("find").addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = `request=${encodeURIComponent(byId("find-id").value.trim())}`;
  });
  byId("request-close").addEventListener("click", () => byId("request").close());
  byId("request").addEventListener("close", () => {
    if (request.named()) history.replaceState(null, "", location.pathname + location.search);
  });
  addEventListener("hashchange", () => {
    const token = session.fromAddress();
    if (token) connect(token);
    openNamed();
  });
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  setInterval(everySecond, 1_000);
  const token = session.fromAddress() ?? session.kept();
  if (token) connect(token);
  else signIn("");
}

function connect(token) {
  session.keep(token);
  board.stop?.abort();
  board.stop = new AbortController();
  board.api = new Api(token);
  board.lastSeen = "";
  connection("waiting", "Connecting…");
  follow(board.api, { status: seen, lost, refused }, board.stop.signal);
}

function signIn(why) {
  board.stop?.abort();
  clearTimeout(board.timer);
  Object.assign(board, { api: null, status: null, savings: null, timer: null });
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
  byId("token").focus();
}

function refused() {
  session.forget();
  signIn("The server does not know this token. Is it the one of this server’s data directory?");
}

/** A status came: the server is there, and takes the token. */
function seen(status) {
  setClock(status.now);
  const first = board.status === null || byId("board").hidden;
  board.status = status;
  const asked = byId("sign-in").contains(document.activeElement);
  byId("sign-in").hidden = true;
  byId("board").hidden = false;
  if (asked) byId("main").focus();
  byId("sign-out").hidden = false;
  byId("sections").hidden = false;
  if (!byId("banner").hidden) announce("The server answers again.");
  byId("banner").hidden = true;
  connection("on", "Live");
  document.title = status.paused ? "Paused · Offpeak" : "Offpeak";
  present.show(status);
  present.warn(status, board.savings);
  deadlines.showScopes(status);
  webhooks.showCounts(status);
  const { now: _, live: __, ...rest } = status;
  const changed = JSON.stringify(rest, (key, value) => (key === "age_seconds" ? undefined : value));
  if (changed !== board.lastSeen) refresh();
  board.lastSeen = changed;
  if (first) {
    openNamed();
    if (location.hash.length > 1 && !request.named()) document.querySelector(`[id="${CSS.escape(location.hash.slice(1))}"]`)?.scrollIntoView();
  }
}

function lost(error, wait) {
  const since = board.status ? `What is shown is from ${clockTime(board.status.now)}. ` : "";
  const why = error instanceof Refused ? `The server answers ${error.status}: ${error.message}` : "The server does not answer.";
  say(byId("banner"), `${why} ${since}It is asked again in ${span(wait / 1000)}.`);
  byId("banner").hidden = false;
  connection("lost", "No connection");
  document.title = "No connection · Offpeak";
}

function connection(state, text) {
  byId("connection").dataset.state = state;
  say(byId("connection-text"), text);
  say(byId("connection-time"), state === "on" ? clockTime(board.status.now) : "");
}

/** Asks for the numbers anew, soon; once, however often it is called. */
function refresh() {
  if (!board.api || document.hidden || board.timer) return;
  board.timer = setTimeout(update, Math.max(0, board.due - performance.now()));
}

/** Somebody chose what to see, and does not wait for it. */
function choose() {
  board.due = 0;
  board.chosen = true;
  clearTimeout(board.timer);
  board.timer = null;
  refresh();
}

async function update() {
  board.timer = null;
  if (board.loading) return;
  board.loading = true;
  board.chosen = false;
  const { api } = board;
  const began = performance.now();
  await load(api).catch(failed);
  board.loading = false;
  const ended = performance.now();
  board.due = ended + Math.max(REFRESH_GAP, (ended - began) * 10);
  if (board.chosen || api !== board.api) choose();
}

/** Each part is shown as soon as it comes, and one that fails leaves the others. */
async function load(api) {
  const [period, which] = [chosen("period"), chosen("which")];
  const at = now();
  const part = async (answer, show) => {
    const found = await answer;
    if (api === board.api) show(found);
  };
  const parts = [
    part(api.get("savings", savings.asked(period, at)), (sums) => {
      board.savings = sums;
      totals.show(sums);
      savings.show(sums, period, at);
      deadlines.show(sums);
      present.warn(board.status, sums);
    }),
    part(api.get("batches", { limit: "100" }), (open) => batches.show(open.data)),
    part(listed(api, { status: which }, board.pages), requests.show),
    part(api.get("requests", { status: "failed", limit: "10" }), requests.showFailures),
    part(api.get("webhooks", { status: "dead", limit: "50" }), (letters) => webhooks.show(letters, actions.redeliver)),
    part(api.get("turnaround"), turnaround.show),
  ];
  if (request.named() && byId("request").open) {
    const id = request.named();
    parts.push(part(api.get(`requests/${encodeURIComponent(id)}`).catch(() => null), (found) => {
      const changed = found && id === request.named() && JSON.stringify(found) !== byId("request").dataset.seen;
      if (changed) showRequest(found);
    }));
  }
  const failures = (await Promise.allSettled(parts)).filter((one) => one.status === "rejected");
  if (api !== board.api) return;
  byId("board").dataset.loaded = period;
  if (failures.length) throw failures[0].reason;
}

const chosen = (name) => byId(name).querySelector("input:checked").value;

/** So many pages, as one. */
async function listed(api, filter, pages) {
  const all = { data: [], has_more: true, next: null };
  for (let page = 0; page < pages && all.has_more; page += 1) {
    const { data, has_more, next } = await api.get("requests", { ...filter, limit: String(PAGE), after: all.next });
    all.data.push(...data);
    Object.assign(all, { has_more, next });
  }
  return all;
}

function failed(error) {
  if (error instanceof Refused && error.status === 401) refused();
  else if (error instanceof Refused) announce(`Some numbers could not be had: ${error.message}`);
  // Who does not answer is told by the stream of events.
}

function everySecond() {
  tick();
  if (board.api && !document.hidden && performance.now() - board.due > REFRESH_EVERY) refresh();
}

async function openNamed() {
  const id = request.named();
  const sheet = byId("request");
  if (!id || !board.api) return;
  if (!sheet.open) {
    byId("request-body").replaceChildren();
    sheet.showModal();
  }
  try {
    const found = await board.api.get(`requests/${encodeURIComponent(id)}`);
    if (request.named() === id) showRequest(found);
  } catch (error) {
    request.trouble(id, error.message);
  }
}

function showRequest(found) {
  const focused = byId("request-body").contains(document.activeElement);
  byId("request").dataset.seen = JSON.stringify(found);
  request.show(found, actions);
  if (focused) byId("request-title").focus();
}
