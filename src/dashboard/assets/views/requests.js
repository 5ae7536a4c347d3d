// Requests of all tenants that ended, and those of them that failed.

import { byId, h, money, nothing, numeric, relative, requestLink, rows, say, td } from "../dom.js";
import { count, short, span } from "../words.js";

export const TONES = { succeeded: "good", failed: "bad", cancelled: "warn", queued: "", in_progress: "" };

export function show(page) {
  const body = byId("request-rows");
  if (page.data.length === 0) nothing(body, 10, "None yet.");
  else rows(body, page.data, (request) => request.id, row);
  byId("more-requests").hidden = !page.has_more;
}

function row(request) {
  const among = [request.cost_usd, request.saved_usd].filter((amount) => amount !== null && amount !== undefined);
  return h("tr", {},
    h("th", { scope: "row" }, requestLink(request.id)),
    td(relative(request.finished_at ?? request.admitted_at)),
    td(status(request)),
    h("td", { class: "name", title: `${request.model} · ${request.endpoint}` }, request.model),
    tag(request),
    h("td", { class: "name", title: request.tenant }, request.tenant_name ?? h("span", { class: "id" }, short(request.tenant ?? "–"))),
    h("td", { title: request.reason }, request.lane),
    td(left(request)),
    numeric(money(request.cost_usd, among)), numeric(money(request.saved_usd, among)));
}

export function showFailures(page) {
  const body = byId("failure-rows");
  say(byId("failures-heading"), page.data.length ? `Recent failures (${count(page.data.length)}${page.has_more ? " or more" : ""})` : "Recent failures");
  if (page.data.length === 0) return nothing(body, 7, "None.");
  rows(body, page.data, (request) => request.id, (request) => h("tr", {},
    h("th", { scope: "row" }, requestLink(request.id)),
    td(relative(request.finished_at)),
    h("td", { class: "name", title: request.model }, request.model),
    tag(request),
    td(h("span", { class: "chip bad" }, request.status_code ? String(request.status_code) : request.status)),
    td(request.lane),
    h("td", { class: "why" }, request.error && h("span", { class: "error" }, request.error), h("span", {}, request.reason))));
}

export function status(request) {
  return h("span", { class: `chip ${TONES[request.status] ?? ""}` }, request.status.replace("_", " "));
}

const tag = (request) => (request.tag === null ? td(h("span", { class: "none" }, "–")) : h("td", { class: "name", title: request.tag }, request.tag));

/** What was left until the deadline when it ended. */
function left(request) {
  if (!request.finished_at) return h("span", { class: "none" }, "–");
  const seconds = (Date.parse(request.deadline) - Date.parse(request.finished_at)) / 1000;
  if (seconds < 0) return h("span", { class: "chip bad" }, `${span(-seconds)} late`);
  return span(seconds);
}
