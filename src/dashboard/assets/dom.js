// Elements from data. Text is text: nothing here reads markup, whatever a caller named its tag.

import { dollars, exact } from "./money.js";
import { count, localTime, span } from "./words.js";

export const byId = (id) => document.getElementById(id);

/** An element; `on…` are listeners, `style` an object, other properties attributes. */
export function h(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [rule, text] of Object.entries(value)) element.style.setProperty(rule, text);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function svg(name, properties = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(properties)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Replaces an element's text only where it differs, so that a selection stays. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** An amount, rounded, with all its digits for who points at it. */
export function money(text, decimals) {
  if (text === null || text === undefined) return h("span", { class: "none", title: "no price is known" }, "–");
  return h("data", { value: text, title: exact(text) }, dollars(text, decimals));
}

export const td = (content, kind) => h("td", { class: kind }, content ?? "–");
export const numeric = (content) => td(content, "num");

/**
 * Makes the rows of a table body those of the first `most` items, and one that counts
 * the others. A row stays as it is while what `see` tells of its item does; one that is
 * made anew gives its focus on.
 */
export function rows(body, items, key, make, { see = JSON.stringify, most = Infinity } = {}) {
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  const wanted = items.slice(0, most).map((item) => {
    const name = String(key(item));
    const seen = see(item);
    const old = known.get(name);
    if (old?.dataset.seen === seen) return old;
    const row = make(item);
    row.dataset.key = name;
    row.dataset.seen = seen;
    if (old) focused(old, row);
    return row;
  });
  if (items.length > most) wanted.push(instead(wanted[0].cells.length, `and ${count(items.length - most)} more`));
  const same = wanted.length === body.rows.length && wanted.every((row, at) => row === body.rows[at]);
  if (!same) {
    const active = document.activeElement;
    body.replaceChildren(...wanted);
    if (body.contains(active)) active.focus({ preventScroll: true });
  }
  for (const row of wanted) row.takeFocus?.();
}

function focused(old, row) {
  if (!old.contains(document.activeElement)) return;
  const all = [...old.querySelectorAll("a, button")];
  const at = all.indexOf(document.activeElement);
  row.takeFocus = () => {
    delete row.takeFocus;
    row.querySelectorAll("a, button")[at]?.focus({ preventScroll: true });
  };
}

/** One row that says why there is none. */
export function nothing(body, columns, text) {
  body.replaceChildren(instead(columns, text));
}

const instead = (columns, text) => h("tr", { class: "nothing" }, h("td", { colspan: columns }, text));

// The server's clock, as far as its answers tell it.
let skew = 0;

export function setClock(serverNow) {
  skew = Date.parse(serverNow) - Date.now();
}

export const now = () => Date.now() + skew;

/** How long ago, or until when; kept true by `tick`. */
export function relative(instant) {
  if (!instant) return h("span", { class: "none" }, "–");
  const element = h("time", { datetime: instant, title: `${localTime(instant)} (${instant})`, "data-relative": true });
  tell(element);
  return element;
}

/** For how long it has been; kept true by `tick`. */
export function age(instant) {
  const element = h("time", { datetime: instant, title: `since ${localTime(instant)} (${instant})`, "data-age": true });
  tell(element);
  return element;
}

/** Makes all relative times and ages true again. */
export function tick() {
  for (const element of document.querySelectorAll("time[data-relative], time[data-age]")) tell(element);
}

function tell(element) {
  const seconds = (Date.parse(element.dateTime) - now()) / 1000;
  if ("age" in element.dataset) say(element, span(Math.round(-seconds)));
  else say(element, Math.abs(seconds) < 1 ? "now" : seconds < 0 ? `${span(Math.round(-seconds))} ago` : `in ${span(Math.round(seconds))}`);
}

/** A link to a request's timeline. */
export function requestLink(id) {
  return h("a", { class: "id", href: `#request=${encodeURIComponent(id)}`, title: id }, `…${id.slice(-8)}`);
}
