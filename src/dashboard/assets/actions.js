// What an operator does: each is asked first, but sending a webhook again, which harms nobody.

import { announce, ask } from "./dialogs.js";
import { byId } from "./dom.js";
import { plural } from "./words.js";

let page = null;

/**
 * `here.api()` and `here.status()` are those of the moment; `here.seen(status, api)` is
 * told the answer, and `here.changed()` that something is another than it was.
 */
export function start(here) {
  page = here;
  byId("pause").addEventListener("click", pause);
  byId("resume").addEventListener("click", resume);
  byId("flush").addEventListener("click", flush);
}

function pause() {
  const waiting = page.status().requests.queued;
  ask({
    title: "Pause packing and submitting?",
    text: `No batch is begun until you resume; ${waiting} wait in the queue now. Batches at the provider go on, and what would be late still runs live, at full price.`,
    yes: "Pause",
    act: () => operate("pause", "Paused."),
  });
}

function resume() {
  ask({ title: "Resume?", text: "What waits is packed and submitted again.", yes: "Resume", act: () => operate("resume", "Resumed.") });
}

function flush() {
  ask({
    title: "Flush the queue?",
    text: "All that waits is packed now, rather than after the linger. Batches may be smaller for it.",
    yes: "Flush",
    act: () => operate("flush", "All that waits is being packed."),
  });
}

async function operate(what, done) {
  const api = page.api();
  page.seen(await api.post(what), api);
  return done;
}

/** By `button`, which takes no other press meanwhile. */
export async function redeliver(id, button) {
  button.disabled = true;
  try {
    await page.api().post(`requests/${encodeURIComponent(id)}/redeliver`);
    announce(`The webhook of ${id} is being sent again.`);
  } catch (error) {
    announce(`It was not sent again: ${error.message}`);
    button.disabled = false;
  }
  page.changed();
}

/** All dead letters of an endpoint, of every tenant. */
export function redeliverAll(target) {
  ask({
    title: "Send all of this endpoint again?",
    text: `${target} gets every webhook that was given up, one after the other.`,
    yes: "Send all again",
    act: async () => {
      const api = page.api();
      let [sent, after] = [0, null];
      do {
        const letters = await api.get("webhooks", { status: "dead", limit: "100", after });
        for (const letter of letters.data.filter((it) => it.target === target)) {
          await api.post(`requests/${encodeURIComponent(letter.request_id)}/redeliver?tenant=${encodeURIComponent(letter.tenant)}`);
          sent += 1;
        }
        after = letters.next;
      } while (after);
      page.changed();
      return `${plural(sent, "webhook")} ${sent === 1 ? "is" : "are"} being sent again.`;
    },
  });
}

/** The rows of the ledger, as a file of the browser's. */
export async function download(query, name, button) {
  button.disabled = true;
  try {
    const href = URL.createObjectURL(await page.api().file("ledger", { format: "csv", ...query }));
    Object.assign(document.createElement("a"), { href, download: name }).click();
    // The browser has begun to read it by then.
    setTimeout(() => URL.revokeObjectURL(href), 60_000);
  } catch (error) {
    announce(`There is no file: ${error.message}`);
  }
  button.disabled = false;
}

export async function copy(text) {
  await navigator.clipboard.writeText(text);
  announce("Copied.");
}

export function cancel(id) {
  ask({
    title: "Cancel this request?",
    text: "Its caller is told 410. A line that the provider has begun may still be billed.",
    yes: "Cancel it",
    act: async () => {
      await page.api().post(`requests/${encodeURIComponent(id)}/cancel`);
      page.changed();
      return `${id} is cancelled.`;
    },
  });
}
