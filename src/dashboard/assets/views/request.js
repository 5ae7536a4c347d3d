// One request: its facts and its timeline, in a sheet that `#request=op_…` opens.

import { byId, h, money, relative } from "../dom.js";
import { decimalsFor } from "../money.js";
import { clockTime, count, localTime, span } from "../words.js";
import { status } from "./requests.js";

const EVENTS = {
  admitted: "Admitted", packed: "Packed into a batch", submitted: "Submitted to the provider", rescued: "Rescued",
  attempt_started: "Call began", attempt_ended: "Call ended", answered: "Answered", failed: "Failed", cancelled: "Cancelled",
  delivered: "Webhook delivered", delivery_failed: "Webhook not taken", dead_letter: "Webhook given up",
};
const TONES = { answered: "good", delivered: "good", failed: "bad", dead_letter: "bad", rescued: "warn", delivery_failed: "warn", cancelled: "warn" };

/** The id in the address, if there is one. */
export const named = () => new URLSearchParams(location.hash.slice(1)).get("request");

let act = null;

/** `can.redeliver(id, button)`, `can.cancel(id)` and `can.copy(text)`. */
export function start(can) {
  act = can;
}

export function show(request) {
  byId("request-body").replaceChildren(...[
    h("p", { class: "id whole" }, request.id),
    h("p", { class: "chips" }, status(request), request.late && h("span", { class: "chip bad" }, "late"), h("span", { class: "chip" }, request.lane), h("span", { class: "chip" }, request.guarantee)),
    buttons(request),
    h("h3", {}, "Timeline"),
    timeline(request),
    h("h3", {}, "Facts"),
    facts(request),
  ].filter(Boolean));
}

export function trouble(id, text) {
  byId("request-body").replaceChildren(h("p", { class: "id whole" }, id), h("p", { class: "error", role: "alert" }, text));
}

function buttons(request) {
  const all = [];
  // Browsers have one for pages of HTTPS and of this machine only.
  if (navigator.clipboard) all.push(h("button", { type: "button", onclick: () => act.copy(request.id) }, "Copy id"));
  if (request.webhook && request.finished_at) all.push(h("button", { type: "button", onclick: (event) => act.redeliver(request.id, event.currentTarget) }, "Send webhook again"));
  if (!request.finished_at) all.push(h("button", { type: "button", onclick: () => act.cancel(request.id) }, "Cancel request…"));
  return all.length ? h("p", { class: "actions" }, all) : null;
}

function timeline(request) {
  const events = request.timeline ?? [];
  if (events.length === 0) return h("p", { class: "none" }, "Nothing is known of its way.");
  const began = Date.parse(request.admitted_at);
  const days = new Set(events.filter((event) => event.at).map((event) => new Date(event.at).toDateString()));
  const told = days.size > 1 ? localTime : clockTime;
  const when = (at) => (at === null
    ? h("p", { class: "when" }, h("span", { title: "when it was is not written down" }, "–"))
    : h("p", { class: "when" }, h("time", { datetime: at, title: at }, told(at)), h("span", {}, `+${span((Date.parse(at) - began) / 1000)}`)));
  return h("ol", { class: "timeline" }, events.map((event) => h("li", { class: TONES[event.event] ?? "" },
    when(event.at),
    h("p", { class: "what" }, h("strong", {}, EVENTS[event.event] ?? event.event), event.lane && h("span", { class: "chip" }, event.lane),
      event.cost_usd && money(event.cost_usd)),
    event.reason && h("p", { class: "why" }, event.reason),
    (event.batch_id || event.provider_id) && h("p", { class: "id" }, [event.batch_id, event.provider_id].filter(Boolean).join(" · ")))));
}

function facts(request) {
  const usage = request.usage;
  const decimals = decimalsFor([request.cost_usd, request.standard_usd, request.saved_usd].filter((amount) => amount));
  const found = [
    ["Model", request.model], ["Endpoint", request.endpoint], ["Tag", request.tag], ["Tenant", tenant(request)],
    ["Admitted", instant(request.admitted_at)], ["Deadline", instant(request.deadline)], ["Ended", request.finished_at && instant(request.finished_at)],
    ["If late", request.on_late], ["Status code", request.status_code && String(request.status_code)],
    ["Provider’s request", request.provider_request_id],
    ["Tokens", usage && `${count(usage.input_tokens)} in (${count(usage.cached_tokens)} cached), ${count(usage.output_tokens)} out`],
    ["Cost", request.cost_usd && money(request.cost_usd, decimals)], ["Would have cost", request.standard_usd && money(request.standard_usd, decimals)],
    ["Saved", request.saved_usd && money(request.saved_usd, decimals)], [request.cost_usd ? "Paid twice" : "Paid for nothing", request.also_paid_usd && money(request.also_paid_usd)],
    ["Webhook", request.webhook && h("span", {}, request.webhook.target, h("span", { class: "under" }, hook(request.webhook)))],
    ["Reason", request.reason],
  ];
  return h("dl", { class: "facts" }, found.filter(([, value]) => value).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

function tenant({ tenant: id, tenant_name: name }) {
  return h("span", {}, name ?? null, h("span", { class: name ? "under id" : "id" }, id ?? "–"));
}

const instant = (at) => h("span", {}, localTime(at), " ", h("span", { class: "none" }, "("), relative(at), h("span", { class: "none" }, ")"));

function hook(webhook) {
  const error = webhook.last_error ? `: ${webhook.last_error}` : "";
  return `${webhook.status}, ${webhook.tries === 1 ? "1 try" : `${webhook.tries} tries`}${error}`;
}
