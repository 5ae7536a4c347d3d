// What waits and runs now, and what is wrong now.

import { Spark } from "../charts.js";
import { byId, h, relative, say } from "../dom.js";
import { few } from "../groups.js";
import { count, plural } from "../words.js";

let sparks = null;

/** `oldest()` is called where somebody wants to see what has waited for longest. */
export function start(oldest) {
  byId("now-oldest").addEventListener("click", (event) => event.target.closest("button") && oldest());
  sparks = {};
  for (const name of ["queued", "in-batches", "live", "batches"]) sparks[name] = new Spark(byId(`spark-${name}`));
}

export function show(status) {
  const at = Date.parse(status.now);
  const { queued, in_batches: inBatches, live } = status.requests;
  for (const [name, number] of [["queued", queued], ["in-batches", inBatches], ["live", live], ["batches", status.open_batches]]) {
    say(byId(`now-${name}`), count(number));
    sparks[name].add(at, number);
  }
  instant(byId("now-oldest"), status.oldest_queued_at, (time) => h("button", { type: "button", class: "named", "aria-describedby": "oldest-label" }, time));
  instant(byId("now-earliest"), status.earliest_deadline);

  const paused = status.paused;
  byId("running").dataset.state = paused ? "paused" : "running";
  say(byId("running"), paused ? "Paused: nothing is packed or submitted" : "Packing and submitting");
  byId("pause").hidden = paused;
  byId("resume").hidden = !paused;
}

function instant(holder, time, within = (shown) => shown) {
  if (holder.dataset.at === String(time)) return;
  holder.dataset.at = String(time);
  holder.replaceChildren(time ? within(relative(time)) : h("span", { class: "none" }, "none"));
}

/** What an operator should know before reading numbers. */
export function warn(status, savings) {
  const found = [];
  if (status.paused) found.push("Paused: nothing is packed or submitted. What would be late still runs live, at full price. A restart ends the pause.");
  if (status.upstream_warning) found.push(status.upstream_warning);
  for (const key of status.refused_keys) {
    found.push(["The provider refuses the key ", h("span", { class: "id" }, key.credential.slice(0, 8)), ` with 401, and ${plural(key.open_requests, "request")} of its tenant wait. It is tried again `, relative(key.tried_again_at), "."]);
  }
  if (status.rescue_budgets_spent > 0) {
    found.push(`${plural(status.rescue_budgets_spent, "tenant")} ${status.rescue_budgets_spent === 1 ? "has" : "have"} no rescue budget left: work that would be late stays in its cheap lane until it is renewed.`);
  }
  const unpriced = (savings?.by_model ?? []).filter((row) => row.unpriced > 0);
  if (unpriced.length) {
    const names = few(unpriced.map((row) => row.model ?? "others"));
    found.push(`No price is known for ${names}: these answers are counted in tokens, and are in no sum of money here.`);
  }
  const list = byId("warning-list");
  const seen = JSON.stringify([status.paused, status.upstream_warning, status.refused_keys, status.rescue_budgets_spent, unpriced.map((row) => row.model)]);
  byId("warnings").hidden = found.length === 0;
  if (list.dataset.seen === seen) return;
  list.dataset.seen = seen;
  list.replaceChildren(...found.map((text) => h("li", {}, ...[text].flat())));
}
