// Asking before something is done, and saying that it was.

import { byId, say } from "./dom.js";

/**
 * Asks, and runs `act` on a yes; what that returns is said. It stays open, with the
 * reason, where `act` fails.
 */
export function ask({ title, text, yes, act }) {
  const dialog = byId("ask");
  const [accept, decline] = [byId("ask-yes"), byId("ask-no")];
  say(byId("ask-title"), title);
  say(byId("ask-text"), text);
  say(byId("ask-error"), "");
  say(accept, yes);
  accept.disabled = false;
  accept.onclick = async () => {
    accept.disabled = true;
    try {
      const done = await act();
      dialog.close();
      announce(done);
    } catch (error) {
      say(byId("ask-error"), error.message);
      accept.disabled = false;
    }
  };
  decline.onclick = () => dialog.close();
  dialog.showModal();
  decline.focus();
}

/** To who hears the page, and for a moment to who sees it. */
export function announce(text) {
  // Behind a modal dialog it would be neither heard nor seen.
  const top = [...document.querySelectorAll("dialog[open]")].at(-1) ?? document.body;
  const said = top.querySelector(":scope > .said");
  hush();
  say(said, text);
  requestAnimationFrame(() => said.classList.add("shown"));
  clearTimeout(announce.timer);
  announce.timer = setTimeout(hush, 6_000);
}

function hush() {
  for (const said of document.querySelectorAll(".said.shown")) said.classList.remove("shown");
}
