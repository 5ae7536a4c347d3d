// A list that is asked for page by page, and grows by one where somebody wants older ones.

import { count } from "./words.js";

/** The server looks at so many requests for a page, and then says that there are more. */
const LOOKED_AT = 1_000;

export class Listing {
  #more;
  #pages = 1;

  /** `more` is the button for older ones; `changed` is called when it was pressed. */
  constructor(more, changed) {
    this.#more = more;
    more.addEventListener("click", () => {
      this.#pages += 1;
      changed();
    });
  }

  /** Something else is listed now. */
  restart() {
    this.#pages = 1;
  }

  /** All pages that were asked for, as one. */
  async ask(api, path, parameters) {
    const all = { data: [], has_more: true, next: null, pages: 0 };
    while (all.pages < this.#pages && all.has_more) {
      const { data, has_more, next } = await api.get(path, { ...parameters, after: all.next });
      all.data.push(...data);
      Object.assign(all, { has_more, next, pages: all.pages + 1 });
    }
    return all;
  }

  shown(all) {
    this.#more.hidden = !all.has_more;
  }
}

/** Why a list is empty: of a long one only so many were looked at. */
export const none = (all, words) => (all.has_more ? `None among the last ${count(all.pages * LOOKED_AT)}${words}.` : "None.");
