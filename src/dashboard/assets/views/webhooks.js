// Dead letters, and sending them again.

import { byId, h, nothing, numeric, relative, requestLink, rows, say, td } from "../dom.js";
import { count, plural } from "../words.js";

export function show(page, redeliver) {
  const body = byId("letter-rows");
  say(byId("webhooks-heading"), page.data.length ? `Dead letters (${count(page.data.length)}${page.has_more ? " or more" : ""})` : "Dead letters");
  if (page.data.length === 0) return nothing(body, 6, "None: every webhook was taken, or is still being tried.");
  rows(body, page.data, (letter) => letter.request_id, (letter) => h("tr", {},
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
