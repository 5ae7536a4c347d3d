// The sums of the period.

import { byId, money, say } from "../dom.js";
import { few } from "../groups.js";
import { decimalsThatAdd, permille } from "../money.js";
import { count, percent, plural, share } from "../words.js";
import { known as knownSlack, onTime } from "./deadlines.js";

export function show(savings) {
  const total = savings.total;
  const decimals = decimalsThatAdd([total.paid_usd, total.saved_usd], total.standard_usd);
  byId("saved").replaceChildren(money(total.saved_usd.replace(/^-/, ""), decimals));
  say(byId("saved-label"), total.saved_usd.startsWith("-") ? "Paid more than ordinary calls cost" : "Saved");
  const saved = permille(total.saved_usd, total.standard_usd);
  say(byId("saved-share"), saved === null ? "" : percent(Math.abs(saved)));
  byId("paid").replaceChildren(money(total.paid_usd, decimals));
  byId("standard").replaceChildren(money(total.standard_usd, decimals));
  const paid = permille(total.paid_usd, total.standard_usd);
  byId("split").style.setProperty("--paid-share", `${Math.min(paid ?? 0, 1000) / 10}%`);
  byId("split").dataset.empty = paid === null;

  const ended = total.requests - total.succeeded;
  say(byId("total-requests"), count(total.requests));
  say(byId("total-requests-note"), ended ? `${count(ended)} without an answer` : total.requests ? "all answered" : "none yet");
  byId("first").hidden = total.requests > 0;
  say(byId("total-on-time"), share(onTime(total.slack), knownSlack(total.slack)));
  say(byId("total-on-time-note"), `${count(onTime(total.slack))} of ${plural(knownSlack(total.slack), "answer")}`);
  figure("late", total.late, "bad");
  figure("rescued", total.rescued, "");
  byId("total-rescued-note").replaceChildren("from batches, for ", money(total.rescue_paid_usd));
  figure("paid-twice", total.paid_twice, "warn");
  figure("unaccounted", total.unaccounted, "warn");
  figure("unpriced", total.unpriced, "warn");
  const unpriced = savings.by_model.filter((row) => row.unpriced > 0).map((row) => row.model ?? "others");
  say(byId("total-unpriced-note"), unpriced.length ? few(unpriced) : "no model without a price");

  const { input_tokens: input, output_tokens: output, cached_tokens: cached } = total.usage;
  say(byId("total-tokens"), compact(input + output));
  byId("total-tokens").title = `${count(input)} in (${count(cached)} of them cached), ${count(output)} out`;
  say(byId("total-tokens-note"), `${compact(input)} in, ${compact(output)} out`);

  const assumptions = savings.assumptions ?? [];
  byId("assumptions").hidden = assumptions.length === 0;
  const list = byId("assumption-list");
  if (list.children.length !== assumptions.length) {
    list.replaceChildren(...assumptions.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  }
}

/** The base URL of a first call, where callers are known to be served. */
export function hint({ base_url: base, operators_apart: apart }) {
  const known = base ?? (apart ? null : new URL("..", document.baseURI).href.replace(/\/$/, ""));
  say(byId("first-url"), `${known ?? "http://HOST:PORT"}/within/6h/v1`);
  byId("first-where").hidden = known !== null;
}

function figure(name, number, tone) {
  const element = byId(`total-${name}`);
  say(element, count(number));
  element.dataset.tone = number > 0 ? tone : "";
}

const COMPACT = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 3 });
const compact = (number) => COMPACT.format(number);
