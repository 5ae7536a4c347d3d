// Dead letters, and sending them again.

import { byId, h, nothing, numeric, relative, requestLink, rows, say, td } from "../dom.js";
import { Listing } from "../listing.js";
import { count, plural } from "../words.js";

/** Endpoints that have a button. */
const MOST = 5;

let listing, act;

/**
 * `can.redeliver(id, button)` sends one again, `can.redeliverAll(target)` those of an
 * endpoint; `changed()` is called where older ones are wanted.
 */
export function start(can, changed) {
  act = can;
  listing = new Listing(byId("more-letters"), changed);
}

export const ask = (api) => listing.ask(api, "webhooks", { status: "dead", limit: "50" });

export function show(all) {
  const body = byId("letter-rows");
  say(byId("webhooks-heading"), all.data.length ? `Dead letters (${count(all.data.length)}${all.has_more ? " or more" : ""})` : "Dead letters");
  listing.shown(all);
  showEndpoints(all);
  if (all.data.length === 0) return nothing(body, 6, "None: every webhook was taken, or is still being tried.");
  rows(body, all.data, (letter) => letter.request_id, (letter) => h("tr", {},
    h("th", { scope: "row" }, requestLink(letter.request_id)),
    h("td", { class: "name", title: letter.target }, letter.target),
    td(relative(letter.given_up_at)),
    numeric(count(letter.tries)),
    h("td", { class: "why" }, letter.last_error),
    numeric(h("button", {
      type: "button", class: "redeliver", "data-request": letter.request_id,
      "aria-label": `Send again: the webhook of request ${letter.request_id}`,
      onclick: (event) => act.redeliver(letter.request_id, event.currentTarget),
    }, "Send again"))));
}

/** Endpoints with more than one. */
function showEndpoints({ data, has_more: more }) {
  const counts = new Map();
  for (const { target } of data) counts.set(target, (counts.get(target) ?? 0) + 1);
  const many = [...counts].filter(([, number]) => number > 1).slice(0, MOST);
  const list = byId("endpoints");
  const seen = JSON.stringify([many, more]);
  if (list.dataset.seen === seen) return;
  list.dataset.seen = seen;
  list.replaceChildren(...many.map(([target, number]) => h("button", {
    type: "button", title: target, onclick: () => act.redeliverAll(target),
  }, `Send all ${more ? "" : `${count(number)} `}of ${target} again…`)));
}

/** How many wait, as far as they are counted. */
export function showCounts({ delivery }) {
  if (!delivery) return;
  const waiting = delivery.pending ? `${plural(delivery.pending, "delivery", "deliveries")} wait or are being tried. ` : "";
  say(byId("delivery-sub"), `${waiting}Sending a dead letter again turns its endpoint on.`);
}
