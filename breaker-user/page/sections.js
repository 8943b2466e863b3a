// The sections of the page except sessions and charts: what is wrong, figures, scopes, events, failures, attestation.

import { Pages, byId, count, make, prose, reconcile, setAttribute, setText, timeOfDay } from "/dom.js";

/** Most entries in the list of what is wrong. */
const PROBLEMS = 20;
/** Share of a limit from which its bar is marked. */
const NEAR = 0.8;

/** What is wrong, the worst first: `level`, `kind`, `place`, `found` and `todo`. */
export function problems(state) {
  const { status } = state;
  const open = status.enforced.problems.filter((problem) => problem.open);
  const other = status.enforced.problems.filter((problem) => !problem.open);
  const todo = ({ what, where, cure }) => (what === "disarmed" ? `\`breaker arm ${where} --reason "…"\`` : cure);
  const entry = (level) => (problem) => ({
    level, kind: problem.what, place: problem.where, found: problem.found, todo: todo(problem),
  });
  const trips = status.scopes.filter((scope) => scope.tripped).map((scope) => ({
    level: "bad", kind: "tripped", place: scope.scope, found: tripText(scope),
    todo: scope.causes.every((cause) => cause === "fleet")
      ? "`breaker fleet status` shows who tripped it and why; `breaker fleet reset` lifts it"
      : `stop the sender, then \`breaker reset ${scope.scope} --reason "…"\``,
  }));
  return [...open.map(entry("bad")), ...trips, ...other.map(entry("warn")), ...warnings(status)];
}

/** The warnings that nobody has acknowledged, one entry a scope. */
function warnings(status) {
  const scopes = new Map();
  for (const { scope, limit, level, used, since } of status.warnings) {
    const text = `${count(used)} in the window of ${limit}, warning level ${level} since ${timeOfDay(since)} UTC`;
    scopes.set(scope, [...(scopes.get(scope) ?? []), text]);
  }
  return [...scopes].map(([scope, found]) => ({
    level: "warn", kind: "warned", place: scope, found: found.join("; "),
    todo: `look into it, then \`breaker ack ${scope} --reason "…"\``,
  }));
}

function tripText(scope) {
  const trip = scope.last_trip;
  if (!trip) return `cause ${scope.causes.join(", ")}`;
  const why = trip.limit ? `${count(trip.used)} in the window of ${trip.limit}` : trip.cause;
  const causes = scope.causes.join(", ");
  return `cause ${causes}: ${why}, by session/${trip.session} at ${timeOfDay(trip.at)} UTC`;
}

/** The state in words, and its level. */
export function verdict(state, found) {
  const { enforced, scopes } = state.status;
  const tripped = scopes.filter((scope) => scope.tripped).length;
  const isOpen = enforced.problems.some((problem) => problem.open);
  const words = [];
  if (isOpen) words.push("NOT IN FORCE");
  if (tripped) words.push(tripped === 1 ? "TRIPPED: 1 scope" : `TRIPPED: ${count(tripped)} scopes`);
  if (words.length) return { level: "bad", text: words.join(", ") };
  // A warning changes nothing that is in force.
  const faults = found.filter(({ kind }) => kind !== "warned").length;
  if (faults) return { level: "warn", text: `In force, ${faults === 1 ? "1 problem" : `${count(faults)} problems`}` };
  return { level: "good", text: "Armed and passing" };
}

export function showVerdict({ level, text }) {
  setAttribute(byId("verdict"), "data-level", level);
  setText(byId("verdict-text"), text);
}

export function showProblems(found, notes) {
  const shown = found.slice(0, PROBLEMS);
  if (found.length === 0) {
    shown.push({
      level: "good", kind: "nothing", place: "",
      found: "The program is attached, first in its chain and pinned. Every scope is armed and passes.",
    });
  } else if (found.length > PROBLEMS) {
    const more = found.length - PROBLEMS;
    shown.push({ level: "warn", kind: "more", place: "", found: `${count(more)} more: run \`breaker status\`` });
  }
  reconcile(byId("problems"), shown, (item) => `${item.kind} ${item.place}`, () => {
    const kind = make("span", { text: "" });
    const label = make("p", { class: "kind" }, make("span", { class: "mark", "aria-hidden": "true" }), kind);
    const [place, text, todo] = [make("span", { class: "place" }), make("span"), make("p", { class: "todo" })];
    const element = make("li", {}, label, make("div", {}, make("p", {}, place, text), todo));
    let before;
    const update = (item) => {
      const now = JSON.stringify(item);
      if (now === before) return;
      before = now;
      setAttribute(element, "data-level", item.level);
      setAttribute(label, "data-level", item.level);
      setText(kind, item.kind.toUpperCase());
      setText(place, item.place);
      text.replaceChildren(item.place ? " " : "", ...prose(item.found));
      todo.replaceChildren(...(item.todo ? ["To do: ", ...prose(item.todo)] : []));
    };
    return { element, update };
  });
  reconcile(byId("notes"), notes, (note) => note, (note) => {
    return { element: make("li", {}, "Note: ", ...prose(note)), update() {} };
  });
}

/** The share of a limit that is used, 0 to 1 or more. A ratio has no share. */
export const use = (limit) => (limit.per_fill ? 0 : limit.used / Math.max(limit.max, 1));

/** The limit in words. */
export function limitWords(limit) {
  if (limit.per_fill) return `${limit.class}, ${limit.per_fill} a fill`;
  return limit.per === "total" ? `${limit.class} in all` : `${limit.class} / ${limit.per}`;
}

/** Fills a cell with bars of limits. */
export function showLimits(cell, limits) {
  reconcile(cell, limits, (limit) => `${limit.class} ${limit.per} ${limit.per_fill}`, (first) => {
    const [fill, tick] = [make("i"), make("u")];
    const [used, max, peak] = [make("b"), make("span"), make("span", { class: "peak" })];
    const element = make("div", { class: "limit" },
      make("span", { class: "what", text: limitWords(first) }),
      make("span", { class: "gauge", "aria-hidden": "true" }, fill, tick),
      make("span", { class: "used" }, used, max), peak);
    const update = (limit) => {
      const share = use(limit);
      setAttribute(element, "data-use", share >= 1 ? "over" : share >= NEAR ? "near" : "below");
      fill.style.width = `${Math.min(share, 1) * 100}%`;
      const top = limit.per_fill ? 0 : Math.min(limit.peak / Math.max(limit.max, 1), 1);
      tick.style.left = `calc(${top * 100}% - 1px)`;
      tick.hidden = top === 0;
      setText(used, count(limit.used));
      setText(max, limit.per_fill ? ` (from ${count(limit.max)})` : ` / ${count(limit.max)}`);
      setText(peak, `peak ${count(limit.peak)}`);
    };
    return { element, update };
  });
}

export function showFigures(state, rates) {
  const { sessions, scopes } = state.status;
  const sum = (value) => sessions.reduce((all, session) => all + value(session), 0);
  const rate = (value) => (rates.known ? count(Math.round(rates.sum(value))) : "–");
  setText(byId("fig-orders"), rate("order"));
  setText(byId("fig-withheld"), rate("withheld"));
  setText(byId("fig-live"), count(sum((session) => session.connections)));
  setText(byId("fig-fenced"), count(sum((session) => session.fenced)));
  byId("fig-tripped").replaceChildren(count(scopes.filter((scope) => scope.tripped).length),
    make("small", { text: ` of ${count(scopes.length)}` }));
  let nearest = null;
  for (const scope of scopes) {
    for (const limit of scope.limits) {
      if (!nearest || use(limit) > use(nearest.limit)) nearest = { scope, limit };
    }
  }
  const shown = nearest
    ? [`${Math.floor(use(nearest.limit) * 100)} % `, make("small", { text: `${nearest.scope.scope}, ${limitWords(nearest.limit)}` })]
    : ["none"];
  byId("fig-nearest").replaceChildren(...shown);
}

let scopePages;
let shownScopes = [];

/** Host and groups. The limits of sessions are in the table of sessions. */
export function showScopes(state) {
  shownScopes = state.status.scopes.filter((scope) => !scope.scope.startsWith("session/"));
  scopePages ??= new Pages(byId("scopes-pages"), 12, "groups", drawScopes);
  drawScopes();
}

function drawScopes() {
  reconcile(byId("scopes"), scopePages.cut(shownScopes), (scope) => scope.scope, (first) => {
    const [state, limits] = [make("span"), make("div", { class: "limits" })];
    const epoch = make("td", { role: "cell", class: "n", "data-label": "Epoch" });
    const word = make("td", { role: "cell", class: "state" }, make("span", { class: "mark", "aria-hidden": "true" }), state);
    const element = make("tr", { role: "row" }, make("td", { role: "cell", class: "name", text: first.scope }), word,
      make("td", { role: "cell", class: "wide" }, limits), epoch);
    const update = (scope) => {
      const [level, text] = scopeState(scope);
      setAttribute(word, "data-level", level);
      setText(state, text);
      if (scope.limits.length) showLimits(limits, scope.limits);
      else setText(limits, "no limit");
      setText(epoch, count(scope.epoch));
    };
    return { element, update };
  });
}

/** Level and words of a scope's switch. */
export function scopeState(scope) {
  const armed = scope.armed ? "" : ", DISARMED";
  if (scope.tripped) return ["bad", `TRIPPED: ${scope.causes.join(", ")}${armed}`];
  return scope.armed ? ["good", "passing"] : ["warn", "passing, DISARMED"];
}

const BAD_EVENTS = new Set(["tripped", "tampered", "link_lost", "displaced", "events_lost", "table_full", "probe_failed", "reattach_failed"]);

export function showEvents(events) {
  reconcile(byId("events"), events, (event) => event.seq, (event) => {
    const level = BAD_EVENTS.has(event.kind) ? "bad" : "plain";
    const who = event.actor.via === "kernel" ? "by the kernel" : `by ${event.actor.user} (${event.actor.via})`;
    const figures = Object.entries(event.counts ?? {}).filter(([, value]) => value !== null && value !== "" && `session/${value}` !== event.scope)
      .map(([name, value]) => `${name.replaceAll("_", " ")} ${typeof value === "object" ? JSON.stringify(value) : value}`);
    const rest = [event.cause && `cause ${event.cause}`, who, event.reason && `“${event.reason}”`, ...figures]
      .filter(Boolean).join(", ");
    const element = make("li", { "data-level": level },
      make("time", { datetime: event.time, title: event.time, text: timeOfDay(event.time) }),
      make("span", { class: "kind", text: event.kind.replaceAll("_", " ") }),
      make("span", { class: "more" }, make("b", { text: event.scope ?? "" }), event.scope ? " " : "", rest));
    return { element, update() {} };
  });
}

export function showPairs(list, pairs) {
  reconcile(list, pairs, ([name]) => name, ([name]) => {
    const value = make("dd");
    let before;
    const update = ([, text, mono]) => {
      if (text === before) return;
      before = text;
      if (mono) value.className = "mono";
      value.replaceChildren(...prose(text));
    };
    return { element: make("div", {}, make("dt", {}, ...prose(name)), value), update };
  });
}

export function showAttestation(state) {
  const { breaker, policy, agent, interfaces, state: file } = state.status;
  const { binary } = state;
  const attached = interfaces.map((found) => [
    `${found.name} (${found.mode}, ${found.hook})`,
    `${found.attached ? "attached" : "DETACHED"}, ${found.first ? "first in its chain" : "NOT FIRST: another program decides before it"}, ${found.pinned ? "pinned" : "UNPINNED"}`,
  ]);
  showPairs(byId("attest"), [
    ["Policy", policy.name],
    ["Policy, SHA-256", policy.sha256, true],
    ["Program tag", breaker.program_tag, true],
    ["Loaded by", `breaker ${breaker.version} (${breaker.git}), layout ${breaker.abi}, at ${breaker.loaded_at}`],
    ["Agent", binary ? `breaker ${binary.version} (${binary.git})` : "its binary is being hashed"],
    ["Agent's binary, SHA-256", binary?.sha256 ?? "–", true],
    ["Kernel object in it, SHA-256", binary?.object_sha256 ?? "–", true],
    ["Heartbeat", `${agent.heartbeat_age_ms ?? "–"} ms ago`],
    ["State file", `${file.path}: ${file.ok ? "in order" : `NOT IN ORDER: ${file.found}`}`],
    ...attached,
  ]);
}
