// Requests of all tenants, and the failed ones of them with their reasons.

import { Refused } from "../api.js";
import { byId, h, money, nothing, numeric, relative, requestLink, rows, say, td } from "../dom.js";
import { Listing, none } from "../listing.js";
import { decimalsFor } from "../money.js";
import { count, short, span } from "../words.js";

const TONES = { succeeded: "good", failed: "bad", cancelled: "warn", queued: "", in_progress: "" };
/** Of requests that have not ended; they are listed as they were admitted. */
const OPEN = ["queued", "in_progress"];
const FILTERS = ["tag", "model", "tenant"];

let listing, failing;
let changed = null;

/** `told()` is called where something else is to be listed. */
export function start(told) {
  changed = told;
  listing = new Listing(byId("more-requests"), changed);
  failing = new Listing(byId("more-failures"), changed);
  byId("which").addEventListener("change", restart);
  const filter = byId("filter");
  filter.addEventListener("submit", (event) => event.preventDefault());
  filter.addEventListener("change", restart);
  // Its fields are empty only after the event.
  filter.addEventListener("reset", () => setTimeout(restart));
}

/** Lists the requests of one tag, model or tenant, and of no other filter. */
export function narrow(by, value) {
  for (const name of FILTERS) byId(`filter-${name}`).value = name === by ? value : "";
  restart();
  turnTo(byId(`filter-${by}`));
}

/** Lists those of one status, of no filter. */
export function pick(status) {
  for (const name of FILTERS) byId(`filter-${name}`).value = "";
  const choice = byId("which").querySelector(`input[value="${status}"]`);
  choice.checked = true;
  restart();
  turnTo(choice);
}

function turnTo(element) {
  byId("requests").scrollIntoView();
  element.focus({ preventScroll: true });
}

function restart() {
  listing.restart();
  byId("filter-clear").hidden = !FILTERS.some(filtered);
  changed();
}

const chosen = () => byId("which").querySelector("input:checked").value;
const filtered = (name) => byId(`filter-${name}`).value.trim();

/** The list as it is chosen; a filter that the server does not understand is said there. */
export async function ask(api) {
  const status = chosen();
  const filters = Object.fromEntries(FILTERS.map((name) => [name, filtered(name)]));
  try {
    return { status, ...(await listing.ask(api, "requests", { status, ...filters, limit: "20" })) };
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 400) throw error;
    return { status, refused: error.message, data: [], has_more: false };
  }
}

export function show(all) {
  const open = OPEN.includes(all.status);
  const body = byId("request-rows");
  say(byId("filter-error"), all.refused ?? "");
  say(byId("request-when"), open ? "Admitted" : "Ended");
  say(byId("request-left"), open ? "Deadline" : "Time left");
  if (all.data.length === 0) nothing(body, 10, none(all, open ? " admitted" : " that ended"));
  else rows(body, all.data, (request) => request.id, row);
  listing.shown(all);
}

function row(request) {
  const decimals = decimalsFor([request.cost_usd, request.saved_usd].filter((amount) => amount !== null && amount !== undefined));
  return h("tr", {},
    h("th", { scope: "row" }, requestLink(request.id)),
    td(relative(request.finished_at ?? request.admitted_at)),
    td(status(request)),
    h("td", { class: "name", title: `${request.model} · ${request.endpoint}` }, request.model),
    tag(request),
    h("td", { class: "name", title: request.tenant }, request.tenant_name ?? h("span", { class: "id" }, short(request.tenant ?? "–"))),
    h("td", { title: request.reason }, request.lane),
    td(left(request)),
    numeric(money(request.cost_usd, decimals)), numeric(money(request.saved_usd, decimals)));
}

export const askFailures = (api) => failing.ask(api, "requests", { status: "failed", limit: "10" });

export function showFailures(all) {
  const body = byId("failure-rows");
  say(byId("failures-heading"), all.data.length ? `Recent failures (${count(all.data.length)}${all.has_more ? " or more" : ""})` : "Recent failures");
  failing.shown(all);
  if (all.data.length === 0) return nothing(body, 7, none(all, " that ended"));
  rows(body, all.data, (request) => request.id, (request) => h("tr", {},
    h("th", { scope: "row" }, requestLink(request.id)),
    td(relative(request.finished_at)),
    h("td", { class: "name", title: request.model }, request.model),
    tag(request),
    td(h("span", { class: "chip bad" }, request.status_code ? String(request.status_code) : request.status)),
    td(request.lane),
    h("td", { class: "why" }, request.reason)));
}

export function status(request) {
  return h("span", { class: `chip ${TONES[request.status] ?? ""}` }, request.status.replace("_", " "));
}

const tag = (request) => (request.tag === null ? td(h("span", { class: "none" }, "–")) : h("td", { class: "name", title: request.tag }, request.tag));

/** What was left until the deadline when it ended, or when that is. */
function left(request) {
  if (!request.finished_at) return relative(request.deadline);
  const seconds = (Date.parse(request.deadline) - Date.parse(request.finished_at)) / 1000;
  if (seconds < 0) return h("span", { class: "chip bad" }, `${span(-seconds)} late`);
  return span(seconds);
}
