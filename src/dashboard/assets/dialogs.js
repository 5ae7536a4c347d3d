// Asking before something is done, and saying that it was.

import { byId, say } from "./dom.js";

/** Asks, and runs `act` on a yes. It stays open, with the reason, where `act` fails. */
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
      await act();
      dialog.close();
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
  const said = byId("said");
  say(said, text);
  said.classList.remove("shown");
  requestAnimationFrame(() => said.classList.add("shown"));
  clearTimeout(announce.timer);
  announce.timer = setTimeout(() => said.classList.remove("shown"), 6_000);
}
