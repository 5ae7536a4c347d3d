// When the numbers are asked for: soon after a change, one round at a time.

/** Between two rounds; ten times what the last one took, where that is more. */
const GAP = 1_000;
/** Without a change. */
const EVERY = 10_000;

export class Rounds {
  #load;
  #timer = null;
  /** No round that nobody asked for begins before this. */
  #due = 0;
  #running = false;
  /** What came while a round ran, which may have missed it. */
  #again = null;
  #stopped = false;

  /** `load` asks for everything once. */
  constructor(load) {
    this.#load = load;
  }

  /** Something is another than it was. */
  soon() {
    if (this.#stopped || document.hidden || this.#timer !== null) return;
    if (this.#running) this.#again ??= () => this.soon();
    else this.#timer = setTimeout(() => this.#run(), Math.max(0, this.#due - performance.now()));
  }

  /** Somebody chose what to see, and does not wait for it. */
  now() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#due = 0;
    if (this.#running) this.#again = () => this.now();
    else this.soon();
  }

  /** For a clock that calls it every second. */
  tick() {
    if (performance.now() - this.#due > EVERY) this.soon();
  }

  stop() {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  async #run() {
    this.#timer = null;
    this.#running = true;
    const began = performance.now();
    await this.#load();
    this.#running = false;
    const ended = performance.now();
    this.#due = ended + Math.max(GAP, (ended - began) * 10);
    const again = this.#again;
    this.#again = null;
    again?.();
  }
}
