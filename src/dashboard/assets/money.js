// Money comes as exact decimal dollars in text, and is added as whole picodollars.

const SCALE = 1_000_000_000_000n;
const DECIMALS = 12;

/** Picodollars of a text such as "0.001215". Throws where it is no amount. */
export function pico(text) {
  const parts = /^(-?)(\d+)(?:\.(\d{1,12}))?$/.exec(text);
  if (!parts) throw new TypeError(`not an amount in dollars: ${text}`);
  const amount = BigInt(parts[2] + (parts[3] ?? "").padEnd(DECIMALS, "0"));
  return parts[1] ? -amount : amount;
}

/** For drawing only. */
export const drawn = (text) => Number(text);

/** All digits, for a tooltip: "$1,234.500012". */
export function exact(text) {
  const [whole, decimals] = text.replace("-", "").split(".");
  return `${text.startsWith("-") ? "−" : ""}$${grouped(whole)}.${decimals ?? "00"}`;
}

/** Rounded for people. What is not zero is never shown as zero. */
export function dollars(text, decimals = decimalsFor([text])) {
  const amount = pico(text);
  const shown = rounded(abs(amount), decimals);
  const sign = amount < 0n ? "−" : "";
  if (shown === 0n && amount !== 0n) return `${sign}<$${(0.1 ** decimals).toFixed(decimals)}`;
  const digits = shown.toString().padStart(decimals + 1, "0");
  const whole = digits.slice(0, -decimals);
  return `${sign}$${grouped(whole)}.${digits.slice(-decimals)}`;
}

/**
 * The decimals of amounts that stand together: cents, or where none of them reaches a
 * dollar, as many as show three digits of the largest. Asked for once, not for each.
 */
export function decimalsFor(amounts) {
  let most = 0n;
  for (const text of amounts) {
    const amount = abs(pico(text));
    if (amount > most) most = amount;
  }
  if (most === 0n || most >= SCALE) return 2;
  const zeros = DECIMALS - most.toString().length;
  return Math.min(zeros + 3, DECIMALS);
}

/** As many more as it takes until what is shown of `parts` adds up to what is shown of `whole`. */
export function decimalsThatAdd(parts, whole) {
  let decimals = decimalsFor([...parts, whole]);
  const shown = (text) => rounded(pico(text), decimals);
  const differs = () => parts.reduce((sum, part) => sum + shown(part), 0n) !== shown(whole);
  while (decimals < DECIMALS && differs()) decimals += 1;
  return decimals;
}

/** `part` of `whole` in tenths of a percent, rounded; null of nothing. */
export function permille(part, whole) {
  const [above, below] = [pico(part), pico(whole)];
  if (below <= 0n) return null;
  const share = Number(divide(abs(above) * 1000n, below));
  return above < 0n ? -share : share;
}

/** In units of the last of so many decimals, halves away from zero. */
function rounded(amount, decimals) {
  const units = divide(abs(amount), 10n ** BigInt(DECIMALS - decimals));
  return amount < 0n ? -units : units;
}

const abs = (amount) => (amount < 0n ? -amount : amount);
const divide = (amount, unit) => (amount + unit / 2n) / unit;
const grouped = (digits) => digits.replace(/\B(?=(\d{3})+$)/g, ",");
