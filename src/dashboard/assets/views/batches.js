// Batches in flight, and those that ended of late.

import { age, byId, h, nothing, numeric, relative, rows, td } from "../dom.js";
import { count, plural, short, span } from "../words.js";

const TONES = { cancelling: "warn", lost: "bad", submitted: "good", settled: "", abandoned: "" };

export function show(batches) {
  const body = byId("batch-rows");
  if (batches.length === 0) return nothing(body, 10, "No batch is open.");
  rows(body, batches, (batch) => batch.id, row, { see: ({ age_seconds, ...batch }) => JSON.stringify(batch) });
}

function row(batch) {
  // Of one that has ended, what it answered; else what the provider says.
  const done = (batch.ended_at ? batch.answered_lines : batch.finished_lines) ?? null;
  return h("tr", { class: batch.ended_at ? "ended" : "" },
    h("th", { scope: "row" }, h("span", { class: "id", title: batch.id }, `…${batch.id.slice(-8)}`)),
    td([h("span", { class: `chip ${TONES[batch.state] ?? ""}` }, batch.state)]),
    h("td", { class: "name", title: `${batch.model} · ${batch.endpoint} · tenant ${batch.tenant}` }, batch.model, h("span", { class: "under" }, batch.endpoint.replace("/v1/", ""))),
    td(progress(batch, done), "barred"),
    h("td", { class: "num", title: plural(batch.bytes, "byte") }, count(batch.lines)),
    td(batch.ended_at ? h("span", { title: batch.ended_at }, span((Date.parse(batch.ended_at) - Date.parse(batch.created_at)) / 1000)) : age(batch.created_at)),
    td(batch.ended_at ? h("span", {}, "ended ", relative(batch.ended_at)) : relative(batch.earliest_deadline)),
    h("td", { title: batch.provider_id }, batch.provider_status ?? h("span", { class: "none" }, "–"), batch.provider_id && h("span", { class: "under id" }, short(batch.provider_id))),
    numeric(count(batch.tries)),
    h("td", { class: "why" }, batch.last_error && h("span", { class: "error" }, batch.last_error), h("span", {}, batch.reason), batch.left && h("span", { class: "under" }, "left: ", batch.left)));
}

function progress(batch, done) {
  if (done === null) return h("span", { class: "none" }, batch.ended_at ? "–" : batch.provider_id ? "not told yet" : "not at the provider yet");
  const words = `${count(done)} of ${count(batch.lines)}`;
  return h("span", { class: "progress" },
    h("progress", { max: Math.max(batch.lines, 1), value: done, "aria-label": `${words} lines answered` }),
    h("span", { "aria-hidden": true }, batch.lines ? `${Math.floor((done / batch.lines) * 100)} %` : ""));
}
