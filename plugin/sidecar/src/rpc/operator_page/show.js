// How things look: elements made of text, never of markup, and words for amounts, times and states.

/**
 * Letters that turn the direction of writing, or take no room: what others write is not to change what stands beside it, nor to look
 * like something else. Joiners and selectors of variants are left, for words and signs are spelled with them.
 */
const STEERS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u17b4\u17b5\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\u{e0000}-\u{e007f}]/gu;

/** A text with those made visible. */
function visible(child) {
  const code = (letter) => `\\u{${letter.codePointAt(0).toString(16)}}`;
  return typeof child === "string" ? child.replace(STEERS, code) : child;
}

/** An element. Texts become text nodes, whatever they hold, and values of attributes are made visible like them. */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : visible(String(value)));
  }
  element.append(...nodes(children));
  return element;
}

/** What may stand in an element, of what is given for it. */
function nodes(children) {
  return children.flat(Infinity).filter((child) => child !== undefined && child !== false).map(visible);
}

/**
 * Puts these in the place of what a container has. Where the focus was within, it stays on what has the same key; of many of them on
 * the one with as many behind it, for lists grow at their head.
 */
export function fill(container, ...children) {
  const key = container.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  const same = () => [...container.querySelectorAll("[data-key]")].filter((element) => element.dataset.key === key).reverse();
  const at = key === undefined ? -1 : same().indexOf(document.activeElement);
  container.replaceChildren(...nodes(children));
  if (at >= 0) (same()[at] ?? same()[0])?.focus({ preventScroll: true });
}

/** Since when something in a container is selected. */
const selected = new WeakMap();

/** How long who copies by hand is not disturbed, in milliseconds. */
const COPIES_MS = 20_000;

function is_being_copied(container) {
  const selection = getSelection();
  if (selection.isCollapsed || !selection.containsNode(container, true)) {
    selected.delete(container);
    return false;
  }
  const since = selected.get(container) ?? Date.now();
  selected.set(container, since);
  return Date.now() - since < COPIES_MS;
}

/** The same, and nothing where it looks so already: what is selected, or was spoken, is left as it is. */
export function refill(container, ...children) {
  const wanted = document.createElement("div");
  wanted.append(...nodes(children));
  if (is_being_copied(container)) return;
  const is_shown = wanted.childNodes.length === container.childNodes.length &&
    [...wanted.childNodes].every((child, at) => child.isEqualNode(container.childNodes[at]));
  if (!is_shown) fill(container, [...wanted.childNodes]);
}

const NUMBER = new Intl.NumberFormat("en");

export function number(value) {
  return NUMBER.format(value);
}

/** An amount in words: satoshi, with millisatoshi behind the point. */
export function sat_text(msat) {
  const rest = msat % 1000;
  return `${number((msat - rest) / 1000)}${rest === 0 ? "" : `.${String(rest).padStart(3, "0")}`} sat`;
}

/** An amount. */
export function sat(msat) {
  const [digits, unit] = sat_text(msat).split(" ");
  return el("span", { class: "amount" }, digits, el("span", { class: "unit" }, " ", unit));
}

/** An amount that is whole satoshi. */
export function whole_sat(amount) {
  return sat(amount * 1000);
}

export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let value = count;
  while (value >= 1024 && units.length > 1) {
    value /= 1024;
    units.shift();
  }
  return `${value < 10 && units[0] !== "B" ? value.toFixed(1) : Math.round(value)} ${units[0]}`;
}

/** A span of time. */
export function span(secs) {
  const steps = [
    [86_400, "d"],
    [3600, "h"],
    [60, "min"],
  ];
  for (const [size, unit] of steps) if (secs >= size) return `${Math.floor(secs / size)} ${unit}`;
  return `${Math.max(0, Math.floor(secs))} s`;
}

/** A moment: the clock for today, the date before. */
export function moment(unix) {
  const date = new Date(unix * 1000);
  const iso = date.toISOString();
  const local = new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString();
  const is_today = date.toDateString() === new Date().toDateString();
  const words = is_today ? local.slice(11, 19) : local.slice(0, 10);
  return el("time", { datetime: iso, title: `${local.slice(0, 10)} ${local.slice(11, 19)}` }, words);
}

/** A long name, cut in its middle; a click copies the whole. */
export function id(name, what) {
  const short = name.length > 20 ? `${name.slice(0, 8)}…${name.slice(-6)}` : name;
  const spoken = `${short}, ${what} ${name}, copy`;
  const shown = { type: "button", class: "id", title: name, "aria-label": spoken, "data-key": `${what} ${name}` };
  const button = el("button", shown, short);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(name);
      button.classList.add("copied");
      setTimeout(() => button.classList.remove("copied"), 1200);
    } catch {
      // A browser that does not let it, as over HTTP by a name: the whole name is selected, to be copied by hand.
      button.textContent = name;
      getSelection()?.selectAllChildren(button);
    }
  });
  return button;
}

/** Words in which long names are cut as elsewhere. */
export function prose(text) {
  return String(text)
    .split(/([0-9a-f]{40,})/)
    .map((part, at) => (at % 2 === 0 ? part : id(part, "name")));
}

/** A state, as a word with a colour. */
export function pill(words, tone) {
  return el("span", { class: `pill ${tone}` }, words);
}

/** `snake_case` as words. */
export function words(text) {
  return String(text).replaceAll("_", " ");
}

/** A refusal or a fault, with what to do. */
export function problem(error) {
  const message = String(error?.message ?? error);
  const stop = /[.!?]$/.test(message) ? "" : ".";
  return [el("strong", {}, message, stop), error?.hint && el("span", { class: "hint" }, " ", error.hint)];
}

/** Names with their values. */
export function facts(...rows) {
  const shown = rows.filter((row) => row && row[1] !== undefined && row[1] !== false);
  return el(
    "dl",
    { class: "facts" },
    shown.map(([name, ...value]) => el("div", {}, el("dt", {}, name), el("dd", {}, ...value))),
  );
}

/**
 * A table. On a narrow screen its rows become blocks, in which each cell says its column; the roles keep it a table for those
 * who listen. A column is a name and a class.
 */
export function table(caption, columns, rows) {
  const head = columns.map(([name, kind]) => el("th", { scope: "col", role: "columnheader", class: kind }, name));
  const line = (cells) =>
    el(
      "tr",
      { role: "row" },
      cells.map((cell, at) => {
        const content = Array.isArray(cell) ? cell : [cell];
        const is_empty = content.every((part) => part === undefined || part === false || part === "");
        const kind = `${columns[at][1] ?? ""}${is_empty ? " empty" : ""}`;
        return el("td", { role: "cell", class: kind, "data-label": columns[at][0] }, el("span", {}, content));
      }),
    );
  return el(
    "table",
    { role: "table" },
    el("caption", {}, caption),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, head)),
    el("tbody", { role: "rowgroup" }, rows.map(line)),
  );
}

/**
 * A balance: ours from the left, the peer's from the right, and between them what is in flight. The strong part of each is what
 * one payment could move now.
 */
export function bar({ capacity_msat, local_msat, spendable_msat, remote_msat, receivable_msat }) {
  const flight_msat = Math.max(0, capacity_msat - local_msat - remote_msat);
  const spendable = Math.min(spendable_msat, local_msat);
  const receivable = Math.min(receivable_msat, remote_msat);
  const parts = [
    ["ours", spendable],
    ["ours kept", local_msat - spendable],
    ["flight", flight_msat],
    ["theirs kept", remote_msat - receivable],
    ["theirs", receivable],
  ];
  const label =
    `Of ${sat_text(capacity_msat)} ours are ${sat_text(local_msat)}, of which ${sat_text(spendable_msat)} can be sent now; ` +
    `theirs ${sat_text(remote_msat)}, of which ${sat_text(receivable_msat)} can be received now` +
    (flight_msat === 0 ? "" : `; in flight or in fees ${sat_text(flight_msat)}`);
  const element = el("div", { class: "bar", role: "img", "aria-label": label });
  for (const [kind, msat] of parts) {
    if (msat <= 0 || capacity_msat <= 0) continue;
    const part = el("span", { class: kind });
    part.style.width = `${(100 * msat) / capacity_msat}%`;
    element.append(part);
  }
  return element;
}
