// What the page knows, and who wants to hear of a change.

export class Store {
  #listeners = [];

  constructor(values) {
    Object.assign(this, values);
  }

  /** Calls `heard` at once, and whenever one of the keys is set. */
  on(keys, heard) {
    this.#listeners.push({keys: new Set(keys), heard});
    heard();
  }

  /** Sets several values, then tells those who listen to any, once each. */
  set(values) {
    Object.assign(this, values);
    const changed = Object.keys(values);
    for (const {keys, heard} of this.#listeners) {
      if (changed.some((key) => keys.has(key))) heard();
    }
  }
}

/** A function that runs `work` once before the next picture is drawn. */
export function beforeNextFrame(work) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      work();
    });
  };
}
