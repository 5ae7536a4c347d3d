// The sheet of one request, which `#request=op_…` opens.

import { byId } from "./dom.js";
import * as request from "./views/request.js";

/** `act` is what can be done to a request. */
export function start(act) {
  const sheet = byId("request");
  byId("find").addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = `request=${encodeURIComponent(byId("find-id").value.trim())}`;
  });
  byId("request-close").addEventListener("click", () => sheet.close());
  sheet.addEventListener("close", () => {
    if (request.named()) history.replaceState(null, "", location.pathname + location.search);
  });
  request.start(act);
}

/** Shows the request that the address names, if it names one. */
export async function open(api) {
  const id = request.named();
  const sheet = byId("request");
  if (!id || !api) return;
  delete sheet.dataset.seen;
  if (!sheet.open) {
    byId("request-body").replaceChildren();
    sheet.showModal();
  }
  try {
    show(id, await asked(api, id));
  } catch (error) {
    if (request.named() === id) request.trouble(id, error.message);
  }
}

/** Asks anew for what is shown; what cannot be had leaves it as it is. */
export async function refresh(api) {
  const id = request.named();
  if (!id || !byId("request").open) return;
  const found = await asked(api, id).catch(() => null);
  if (found) show(id, found);
}

const asked = (api, id) => api.get(`requests/${encodeURIComponent(id)}`);

function show(id, found) {
  const sheet = byId("request");
  const seen = JSON.stringify(found);
  if (!sheet.open || request.named() !== id || sheet.dataset.seen === seen) return;
  const focused = byId("request-body").contains(document.activeElement);
  sheet.dataset.seen = seen;
  request.show(found);
  if (focused) byId("request-title").focus();
}
