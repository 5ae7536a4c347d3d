// Dead letters, and sending them again.

import { byId, h, nothing, numeric, relative, requestLink, rows, say, td } from "../dom.js";
import { Listing } from "../listing.js";
import { count, plural } from "../words.js";

let listing, redeliver;

/** `act(id, button)` sends one again; `changed()` is called where older ones are wanted. */
export function start(act, changed) {
  redeliver = act;
  listing = new Listing(byId("more-letters"), changed);
}

export const ask = (api) => listing.ask(api, "webhooks", { status: "dead", limit: "50" });

export function show(all) {
  const body = byId("letter-rows");
  say(byId("webhooks-heading"), all.data.length ? `Dead letters (${count(all.data.length)}${all.has_more ? " or more" : ""})` : "Dead letters");
  listing.shown(all);
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
      onclick: (event) => redeliver(letter.request_id, event.currentTarget),
    }, "Send again"))));
}

/** How many wait, as far as they are counted. */
export function showCounts({ delivery }) {
  if (!delivery) return;
  const waiting = delivery.pending ? `${plural(delivery.pending, "delivery", "deliveries")} wait or are being tried. ` : "";
  say(byId("delivery-sub"), `${waiting}Sending a dead letter again turns its endpoint on.`);
}
