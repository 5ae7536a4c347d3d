// Savings by model, tag, tenant or lane, in the order of a table and no more than it holds.

import { decimalsFor, drawn } from "./money.js";

/** Rows that a table holds. */
export const MOST = 200;

/**
 * The dearest first, and last the sum of those that the server does not tell one by one;
 * with the decimals of all that are shown.
 */
export function ranked(groups) {
  const order = (one, other) => Boolean(one.others) - Boolean(other.others)
    || drawn(other.standard_usd) - drawn(one.standard_usd)
    || other.requests - one.requests;
  const rows = groups.toSorted(order);
  const decimals = decimalsFor(rows.slice(0, MOST).flatMap((row) => [row.paid_usd, row.saved_usd]));
  return { rows, decimals };
}

/** The first of many names, for a sentence. */
export function few(names, most = 5) {
  const shown = names.slice(0, most).join(", ");
  return names.length > most ? `${shown} and ${names.length - most} more` : shown;
}
