// What was learned of how long things take, beside what was believed.

import { ranges } from "../charts.js";
import { byId, h, nothing, numeric, rows, td } from "../dom.js";
import { span } from "../words.js";

const WORDS = {
  "whole-batch": "batch, to its last line",
  cancel: "cancelling a batch",
  "flex-refused": "flex calls refused",
  "finished-in-cancel": "lines that end while a cancel runs",
  calls: "calls a second",
};

export function show(answer) {
  const body = byId("turnaround-rows");
  if (answer.data.length === 0) return nothing(body, 10, "Nothing has been learned yet.");
  rows(body, answer.data, (item) => `${item.organization ?? item.credential} ${item.model} ${item.what}`, row);
}

function row(item) {
  const whose = item.organization ?? item.credential ?? "";
  return h("tr", {},
    h("th", { scope: "row" }, WORDS[item.what] ?? item.what),
    h("td", { class: "name", title: `${whose} · ${item.model}` }, item.model, h("span", { class: "under" }, whose)),
    numeric(item.seen.toFixed(item.seen < 10 ? 1 : 0)),
    ...cells(item));
}

function cells({ learned, prior }) {
  if ("share" in learned || "per_second" in learned) {
    const told = (one) => ("share" in one ? ratio(one.share) : `${one.per_second.toFixed(1)}/s`);
    return [h("td", { class: "num" }, told(learned)), td("", ""), td("", ""), td("", ""), h("td", { class: "num prior" }, told(prior)), td("", ""), td("", "")];
  }
  const time = (seconds) => (seconds === null ? h("span", { class: "none", title: "fewer ever end" }, "–") : span(seconds));
  return [
    numeric(time(learned.p50)), numeric(time(learned.p90)), numeric(time(learned.p99)), numeric(ratio(learned.never)),
    td(time(prior.p50), "num prior"), td(time(prior.p90), "num prior"), td(ranges(learned, prior), "ranged"),
  ];
}

function ratio(share) {
  const hundredths = share * 100;
  if (hundredths === 0) return "0 %";
  return hundredths < 0.1 ? "<0.1 %" : `${hundredths.toFixed(hundredths < 10 ? 1 : 0)} %`;
}
