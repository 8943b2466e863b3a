// Builds and updates elements. Text is always set as text, never as markup.

export const byId = (id) => document.getElementById(id);

/** Makes an element. `attributes.text` is its text; every other attribute is set as it is. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Sets a text only if it differs, so that a selection in it stays. */
export function setText(element, text) {
  const value = String(text);
  if (element.textContent !== value) element.textContent = value;
}

/** Sets an attribute only if it differs. */
export function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** Shows one entry for each item, in their order. An entry is kept while its key stays: focus and selection stay too.
 *  `build(item)` returns the element and a function that updates it. */
export function reconcile(parent, items, keyOf, build) {
  const known = (parent.entriesByKey ??= new Map());
  const seen = new Set();
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    seen.add(key);
    let entry = known.get(key);
    if (!entry) known.set(key, (entry = build(item)));
    entry.update(item);
    if (entry.element === place) place = place.nextElementSibling;
    else parent.insertBefore(entry.element, place);
  }
  for (const [key, entry] of known) {
    if (!seen.has(key)) {
      entry.element.remove();
      known.delete(key);
    }
  }
}

/** Text with commands between backticks, as nodes. */
export function prose(text) {
  return String(text).split("`").map((part, index) => (index % 2 ? make("code", { text: part }) : part));
}

const NUMBER = new Intl.NumberFormat("en");
/** A number with separators. */
export const count = (value) => NUMBER.format(value);

/** The time of day of an RFC 3339 time, UTC. */
export const timeOfDay = (time) => time.slice(11, 19);

/** Buttons for pages of a table: returns the items of the current page. */
export class Pages {
  constructor(container, size, name, changed) {
    this.size = size;
    this.page = 0;
    this.container = container;
    this.text = make("span");
    const button = (label, step) => {
      const made = make("button", { type: "button", text: label, "aria-label": `${label} ${name}` });
      made.addEventListener("click", () => {
        this.page += step;
        changed();
      });
      return made;
    };
    this.previous = button("Previous", -1);
    this.next = button("Next", 1);
  }

  cut(items) {
    const last = Math.max(0, Math.ceil(items.length / this.size) - 1);
    this.page = Math.min(Math.max(this.page, 0), last);
    const start = this.page * this.size;
    const end = Math.min(start + this.size, items.length);
    if (last === 0) this.container.replaceChildren();
    else {
      if (!this.container.firstChild) this.container.append(this.text, this.previous, this.next);
      setText(this.text, `${count(start + 1)}–${count(end)} of ${count(items.length)}`);
      this.previous.disabled = this.page === 0;
      this.next.disabled = this.page === last;
    }
    return items.slice(start, end);
  }
}
