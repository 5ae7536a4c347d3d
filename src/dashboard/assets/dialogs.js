// Asking before something is done.

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
