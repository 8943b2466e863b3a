// The table of sessions: filter, order, pages. Only the rows of one page are in the document.

import { Pages, byId, count, make, reconcile, setAttribute, setText } from "/dom.js";
import { scopeState, showLimits, use } from "/sections.js";

const ROWS = 25;
let pages;
let rows = [];
let chosen = null;
let choose = () => {};

/** Connects the inputs. `onChoose(name)` is called with the session to draw. */
export function start(onChoose) {
  choose = onChoose;
  pages = new Pages(byId("sessions-pages"), ROWS, "sessions", draw);
  byId("filter").addEventListener("input", () => {
    pages.page = 0;
    draw();
  });
  byId("order").addEventListener("change", () => {
    pages.page = 0;
    draw();
  });
}

/** Level and words: a session is withheld by its own switch, by a group's or by the host's. */
function sessionState(session, scope, byName) {
  const others = ["host", ...(session.groups ?? []).map((name) => `group/${name}`)];
  const tripped = others.filter((name) => byName.get(name)?.tripped);
  if (scope?.tripped || tripped.length === 0) return scope ? scopeState(scope) : ["unknown", "counted only"];
  return ["bad", `TRIPPED by ${tripped.join(", ")}`];
}

export function showSessions(state, rates) {
  const byName = new Map(state.status.scopes.map((scope) => [scope.scope, scope]));
  // The undeclared connections are no session of the policy: they come last.
  const isDeclared = (session) => session.name !== "undeclared";
  const { sessions } = state.status;
  const ordered = [...sessions.filter(isDeclared), ...sessions.filter((session) => !isDeclared(session))];
  rows = ordered.map((session) => {
    const scope = byName.get(`session/${session.name}`);
    const [level, text] = sessionState(session, scope, byName);
    const limits = scope?.limits ?? [];
    const messages = session.messages;
    const others = ["interest", "query", "admin"].reduce((all, kind) => all + (messages[kind]?.passed ?? 0), 0);
    return {
      name: session.name, level, text, limits, isTripped: scope?.tripped ?? false, use: Math.max(0, ...limits.map(use)),
      rate: rates.of(session.name, "order"), orders: messages.order.passed,
      withheld: Object.values(messages).reduce((all, verdicts) => all + verdicts.withheld, 0),
      cancels: messages.cancel.passed, others, live: session.connections, fenced: session.fenced,
      desyncs: session.desyncs, blind: session.blind,
    };
  });
  draw();
}

/** The session to draw first: the one nearest to a limit. */
export function nearest() {
  return rows.reduce((best, row) => (!best || row.use > best.use ? row : best), null)?.name ?? null;
}

/** The first session whose own switch is tripped; null if there is none. */
export function firstTripped() {
  return rows.find((row) => row.isTripped)?.name ?? null;
}

/** Marks the session that is drawn. */
export function mark(name) {
  chosen = name;
  draw();
}

const ORDERS = {
  configured: () => 0,
  state: (a, b) => (b.level === "bad") - (a.level === "bad") || (b.level === "warn") - (a.level === "warn"),
  use: (a, b) => b.use - a.use,
  rate: (a, b) => (b.rate ?? -1) - (a.rate ?? -1) || b.orders - a.orders,
};

function draw() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const matches = (row) => words.every((word) => row.name.toLowerCase().includes(word) || row.text.toLowerCase().includes(word));
  const found = rows.filter(matches);
  // The sort is stable, so that equal sessions stay as configured.
  if (byId("order").value !== "configured") found.sort(ORDERS[byId("order").value]);
  byId("sessions-none").hidden = found.length > 0 || rows.length === 0;
  reconcile(byId("sessions"), pages.cut(found), (row) => row.name, build);
}

function build(first) {
  const pick = make("button", { type: "button", class: "pick", text: first.name, title: "Draw the last 15 minutes of this session" });
  pick.addEventListener("click", () => choose(first.name));
  const words = make("span");
  const state = make("td", { role: "cell", class: "state" }, make("span", { class: "mark", "aria-hidden": "true" }), words);
  const limits = make("div", { class: "limits" });
  const numbers = ["Orders/s", "Orders", "Withheld", "Cancels", "Other", "Live", "Fenced", "Desyncs"]
    .map((label) => make("td", { role: "cell", class: "n", "data-label": label }));
  const element = make("tr", { role: "row" }, make("td", { role: "cell", class: "name" }, pick), state,
    make("td", { role: "cell", class: "wide" }, limits), ...numbers);
  const update = (row) => {
    setAttribute(element, "data-chosen", String(row.name === chosen));
    setAttribute(pick, "aria-pressed", String(row.name === chosen));
    setAttribute(state, "data-level", row.level);
    setText(words, row.text);
    if (row.limits.length) showLimits(limits, row.limits);
    else setText(limits, "no limit of its own");
    const values = [row.rate, row.orders, row.withheld, row.cancels, row.others, row.live, row.fenced, row.desyncs];
    values.forEach((value, index) => {
      const blind = index === 7 && row.blind > 0 ? ` (${count(row.blind)} blind)` : "";
      setText(numbers[index], value === null ? "–" : `${count(value)}${blind}`);
      setAttribute(numbers[index], "class", value ? "n" : "n zero");
    });
  };
  return { element, update };
}
