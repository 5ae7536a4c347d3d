// Numbers, spans and instants for people.

const COUNT = new Intl.NumberFormat("en-US");

export const count = (number) => COUNT.format(number);
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** Of tenths of a percent. */
export const percent = (permille) => (permille === null ? "–" : `${(permille / 10).toFixed(1).replace("-", "−")} %`);

/** A share that is only whole where nothing is missing: rounded down, and never to 0 of something. */
export function share(part, whole) {
  if (whole === 0) return "–";
  if (part > 0 && part * 1000 < whole) return "<0.1 %";
  return part === whole ? "100 %" : percent(Math.floor((part * 1000) / whole));
}

/** "45s", "3m 51s", "2h 35m", "4d 2h". */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (seconds > 0 && seconds < 10) return `${Number(seconds.toPrecision(2))}s`;
  const units = [["d", 86_400], ["h", 3_600], ["m", 60], ["s", 1]];
  const first = units.findIndex(([, length]) => whole >= length);
  if (first < 0) return "0s";
  const [unit, length] = units[first];
  const big = `${Math.floor(whole / length)}${unit}`;
  const next = units[first + 1];
  const rest = next ? Math.floor((whole % length) / next[1]) : 0;
  return rest ? `${big} ${rest}${next[0]}` : big;
}

const LOCAL = new Intl.DateTimeFormat(undefined, {
  month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const CLOCK = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});

export const localTime = (instant) => LOCAL.format(new Date(instant));
export const clockTime = (instant) => CLOCK.format(new Date(instant));

/** The beginning of a fingerprint or id tells a few apart. */
export const short = (id) => (id.length > 14 ? `${id.slice(0, 12)}…` : id);
