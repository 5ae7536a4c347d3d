// Bars over time on uPlot, and the small drawings that need no library.

import { svg } from "./dom.js";
import uPlot from "./vendor/uPlot.esm.js";

const HEIGHT = 240;
/** Seconds between two labels: hours, days, weeks, and as good as months. */
const STEPS = [1, 2, 3, 6, 12].map((hours) => hours * 3_600).concat([1, 2, 4, 7, 14, 30, 90, 365].map((days) => days * 86_400));
const UTC_DAY = new Intl.DateTimeFormat("en-US", { month: "short", day: "numeric", timeZone: "UTC" });
const UTC_HOUR = new Intl.DateTimeFormat("en-US", { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone: "UTC" });

/**
 * What was paid within what it would have cost, a bar a time. `pointed(index or null)`
 * is told which bar the pointer is at.
 */
export class PaidAndSaved {
  #holder;
  #pointed;
  #plot = null;
  #data = [[], [], []];
  #step = 86_400;

  constructor(holder, pointed) {
    this.#holder = holder;
    this.#pointed = pointed;
    new ResizeObserver(() => this.#plot?.setSize(this.#size())).observe(holder);
    // Colours are read when it is made.
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.repaint());
    document.addEventListener("theme", () => this.repaint());
  }

  /** Times in seconds, and dollars as they are drawn. `step`: seconds between two times. */
  show(times, standard, paid, step) {
    this.#data = [times, standard, paid];
    const same = this.#plot && this.#step === step;
    this.#step = step;
    if (same) this.#plot.setData(this.#data);
    else this.repaint();
  }

  repaint() {
    this.#plot?.destroy();
    this.#plot = null;
    this.#holder.replaceChildren();
    if (this.#data[0].length === 0) return;
    this.#plot = new uPlot(this.#options(), this.#data, this.#holder);
  }

  #size() {
    return { width: Math.max(this.#holder.clientWidth, 200), height: HEIGHT };
  }

  #options() {
    const colour = resolver(this.#holder);
    const bars = (radius) => uPlot.paths.bars({ size: [0.72, 44], radius });
    const half = this.#step / 2;
    const axis = {
      stroke: colour("--muted"),
      font: `12px ${getComputedStyle(this.#holder).fontFamily}`,
      ticks: { show: false },
    };
    return {
      ...this.#size(),
      legend: { show: false },
      padding: [8, 4, 0, 0],
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      scales: {
        x: { range: (_, least, most) => [least - half, most + half] },
        y: { range: (_, least, most) => [Math.min(0, least), most > 0 ? most * 1.06 : 1] },
      },
      axes: [
        { ...axis, grid: { show: false }, size: 26, space: 64, incrs: STEPS, values: (_, splits, __, ___, step) => splits.map((at) => axisTime(at, step)) },
        { ...axis, grid: { stroke: colour("--line"), width: 1 }, size: 64, space: 44, values: (_, splits) => splits.map(axisDollars(splits)) },
      ],
      series: [
        {},
        { fill: colour("--saved"), width: 0, points: { show: false }, paths: bars(0.1) },
        { fill: colour("--paid"), width: 0, points: { show: false }, paths: bars(0) },
      ],
      hooks: { setCursor: [(plot) => this.#pointed(plot.cursor.left < 0 ? null : (plot.cursor.idx ?? null))] },
    };
  }
}

/** A colour of the style sheet, as a canvas takes it. */
function resolver(holder) {
  const probe = holder.appendChild(document.createElement("i"));
  return (name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };
}

function axisTime(seconds, step) {
  const date = new Date(seconds * 1000);
  return step < 86_400 && seconds % 86_400 !== 0 ? UTC_HOUR.format(date) : UTC_DAY.format(date);
}

/** With the decimals that tell the splits apart. */
function axisDollars(splits) {
  const step = splits.length > 1 ? splits[1] - splits[0] : 1;
  const [, behind = ""] = step.toFixed(12).replace(/0+$/, "").split(".");
  const format = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD", minimumFractionDigits: behind.length, maximumFractionDigits: behind.length });
  return (at) => format.format(at);
}

/** The last few minutes of a number, as a line. */
export class Spark {
  #samples = [];
  #line = svg("polyline", { fill: "none", "vector-effect": "non-scaling-stroke" });

  constructor(holder) {
    holder.replaceChildren(svg("svg", { viewBox: "0 0 100 24", preserveAspectRatio: "none" }, this.#line));
  }

  add(at, number) {
    const last = this.#samples.at(-1);
    if (last && last[1] === number && this.#samples.length > 1 && this.#samples.at(-2)[1] === number) last[0] = at;
    else this.#samples.push([at, number]);
    while (this.#samples[0][0] < at - 600_000 || this.#samples.length > 600) this.#samples.shift();
    const [first] = this.#samples[0];
    const most = Math.max(1, ...this.#samples.map(([, value]) => value));
    const x = (time) => (at === first ? 100 : ((time - first) / (at - first)) * 100);
    const y = (value) => 22 - (value / most) * 20;
    const points = [];
    for (const [index, [time, value]] of this.#samples.entries()) {
      if (index > 0) points.push([x(time), y(this.#samples[index - 1][1])]);
      points.push([x(time), y(value)]);
    }
    if (at === first) points.unshift([0, y(number)]);
    this.#line.setAttribute("points", points.map((point) => point.map((part) => part.toFixed(1)).join()).join(" "));
  }
}

const DAY = 86_400;
/** Where so many seconds are on a scale from one to a day. */
const place = (seconds) => (Math.log(Math.min(Math.max(seconds, 1), DAY)) / Math.log(DAY)) * 100;

/** From the median to nine of ten: what was learned above what was believed. */
export function ranges(learned, prior) {
  const picture = svg("svg", { class: "range", viewBox: "0 0 100 14", preserveAspectRatio: "none", "aria-hidden": "true" });
  for (const share of [0, 1 / 3, 2 / 3, 1]) {
    const at = [0, place(60), place(3600), 100][Math.round(share * 3)];
    picture.append(svg("line", { class: "rule", x1: at, x2: at, y1: 0, y2: 14, "vector-effect": "non-scaling-stroke" }));
  }
  for (const [name, time, y] of [["prior", prior, 10], ["learned", learned, 4]]) {
    if (time?.p50 === null || time?.p50 === undefined) continue;
    const from = place(time.p50);
    const to = time.p90 === null ? 100 : place(time.p90);
    picture.append(svg("rect", { class: name, x: from, y: y - 2, width: Math.max(to - from, 1), height: 4, rx: 1 }));
  }
  return picture;
}
