// Light or dark: as the system has it, until somebody chooses.

import { byId, say } from "./dom.js";

/** Makes the button do what it says. A choice is kept, and told as the event `theme`. */
export function start() {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const current = () => root.dataset.theme ?? (dark.matches ? "dark" : "light");
  const label = () => say(byId("theme"), current() === "dark" ? "Light" : "Dark");
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = current() === "dark" ? "light" : "dark";
    localStorage.setItem("offpeak-theme", root.dataset.theme);
    document.dispatchEvent(new Event("theme"));
    label();
  });
  dark.addEventListener("change", label);
  label();
}
