// SPDX-License-Identifier: Apache-2.0
"use strict";

// Everything shown is set as text or as a number in an attribute, never as HTML: image ids and
// owners are whatever users made them.

const POLL_MS = 1000;
const SLOW_MS = 5000;
const SVG = "http://www.w3.org/2000/svg";

const byId = (id) => document.getElementById(id);

// -- building

function el(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children.filter((child) => child !== null));
  return node;
}

function svg(name, attributes, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children.filter((child) => child !== null));
  return node;
}

// Replace an element's content only when what it is made from has changed, so that text can be
// selected and what was opened stays open.
const drawn = new Map();
function draw(id, data, make) {
  const key = JSON.stringify(data);
  if (drawn.get(id) === key) return;
  drawn.set(id, key);
  byId(id).replaceChildren(...[make(data)].flat());
}

function say(id, text) {
  const node = byId(id);
  if (node.textContent !== text) node.textContent = text;
}

function badge(kind, text) {
  const sign = { good: "✓", warn: "!", bad: "✕" }[kind];
  return el("span", { class: `badge ${kind}` }, el("span", { "aria-hidden": "true" }, sign), text);
}

// -- words

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const brief = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
const fine = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 2 });

const number = (n) => whole.format(n);
const short = (n) => (n < 100000 ? whole.format(n) : brief.format(n));
const images = (n) => `${number(n)} ${n === 1 ? "image" : "images"}`;

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
  let unit = 0;
  while (n >= 1023.5 && unit < units.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return `${unit && n < 100 ? n.toPrecision(n < 10 ? 2 : 3) : whole.format(n)} ${units[unit]}`;
}

function span(seconds) {
  const s = Math.max(0, seconds);
  if (s < 1) return `${fine.format(s)} s`;
  if (s < 9.95) return `${s.toFixed(1).replace(/\.0$/, "")} s`;
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 36 * 3600) return `${(s / 3600).toFixed(1).replace(/\.0$/, "")} h`;
  return `${(s / 86400).toFixed(1).replace(/\.0$/, "")} d`;
}

const ago = (age) => (age < 1 ? "just now" : `${span(Math.round(age))} ago`);

const rate = (perSecond) => `${perSecond >= 10 ? whole.format(perSecond) : fine.format(perSecond)}/s`;

function clock(seconds, withSeconds) {
  const options = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  if (withSeconds) options.second = "2-digit";
  return new Date(seconds * 1000).toLocaleTimeString("en-US", options);
}

function day(seconds) {
  return new Date(seconds * 1000).toLocaleDateString("en-US", { month: "short", day: "numeric" });
}

const WORDS = {
  connection: "connection lost",
  client: "its client reports an error",
  refused: "access refused",
  io_error: "input or output error",
  read_only_file_system: "file system is read-only",
  backend: "backend error",
  undecipherable: "cannot be decrypted",
  store_not_enabled: "store not enabled",
  store_not_loaded: "store did not load",
  store_cannot_delete: "store cannot delete",
  store_ambiguous: "which store is not clear",
  bad_url: "URL the store does not understand",
  in_use: "in use by clones",
  has_snapshot: "has snapshots",
  not_found: "not found",
  no_write_access: "store may not be written to",
  missing_directory: "directory is missing",
  missing_subdirectory: "directory below the store's is missing",
  empty_directory: "directory is empty",
  bad_store_configuration: "store's configuration",
  unexpected: "unexpected answer",
  "not_a_file": "no regular file",
  immutable: "may not be changed",
};
// A sentence stays as it is: it may name a path.
const reason = (code) => WORDS[code] || (code.includes(" ") ? code : code.replaceAll("_", " "));
const storeName = (name) => name || "no store";
const inStore = (name) => (name ? ` in ${name}` : "");

// -- the parts of the page

function attention(s) {
  const list = [];
  const add = (kind, label, text) => list.push([kind, label, text]);
  if (!s.registry.answers)
    add("bad", "Registry away", "Glance's database does not answer, or takes no changes: the log says which. Nothing is claimed meanwhile; what is deleted already is written down when it is back.");
  for (const store of s.stores) {
    if (store.fault)
      add("bad", "Store not usable", `${storeName(store.name)}: ${store.fault}. Its images are parked.`);
    else if (store.breaker === "blown")
      add("bad", "Store paused", `${storeName(store.name)}: ${store.reason}. Repair it and send the agents SIGHUP.`);
    else if (store.breaker !== "closed")
      add("warn", "Store failing", `${storeName(store.name)} does not work (${reason(store.reason)}). Its images wait; evscrub probes it until it works.`);
    else if (store.owners_stopped)
      add("warn", "Some images wait", `${storeName(store.name)}: images of ${store.owners_stopped} ${store.owners_stopped === 1 ? "project" : "projects"} fail, one after another. Those of others go on; the log names them.`);
  }
  if (s.damaged.total)
    add("bad", "Damaged", `${images(s.damaged.total)} only a person can judge. They are left alone; see below.`);
  if (s.parked.total)
    add("warn", "Parked", `${images(s.parked.total)} only an operator can help; see below.`);
  if (!s.bus.joined)
    add("warn", "Bus not joined", "No notification is heard. Sweeps of the registry find what is due, up to an interval late.");
  if (s.bus.missed)
    add("warn", "Missed by the bus", `${images(s.bus.missed)} came by a sweep although the bus should have told this agent, or another that was late.`);
  for (const item of sharingNeeds(s.sharing)) add("warn", ...item);
  if (s.queue.oldest_due_age > 300)
    add("warn", "Behind", `An image has been due for ${span(s.queue.oldest_due_age)}.`);
  if (!s.sweep.count) add("warn", "Starting", "The first sweep of the registry is under way.");
  if (!list.length) add("good", "All is well", "Nothing needs you.");
  return list;
}

const agents = (n) => `${number(n)} ${n === 1 ? "agent consumes" : "agents consume"} from the bus`;
const members = (n) => `${number(n)} ${n === 1 ? "member" : "members"}`;
const waitsForShare = (group) => group !== null && group.part === 0;

// What of sharing limits with other agents an operator should know.
function sharingNeeds({ group, consumers, is_alone }) {
  const list = [];
  if (is_alone)
    list.push(["Each agent by itself", `${agents(consumers)}, and each has its rates for itself: together they may send ${number(consumers)} times as much. Set [coordination] backend_url for all of them, or divide the rates by their number.`]);
  if (group === null) return list;
  const uses = waitsForShare(group) ? "Nothing is scrubbed until it does." : `This agent uses ${group.share} of the limits meanwhile.`;
  if (group.state === "joining")
    list.push(["Coordinator not reached", `It has not answered since the agent started. ${uses}`]);
  else if (group.state === "coordinator away")
    list.push(["Coordinator away", `It answered ${ago(group.contact_age)} for the last time. ${uses}`]);
  else if (waitsForShare(group))
    list.push(["Waiting for a share", "Nothing is scrubbed until the other members have made room in the limits."]);
  if (group.state === "member" && consumers !== null && group.size < consumers)
    list.push(["Fewer members", `The group has ${members(group.size)}, but ${agents(consumers)}: evscrub check names likely causes.`]);
  if (group.members.some((one) => one.is_present && one.share === null))
    list.push(["Unknown share", "A member publishes no share that this release can read, so the others use none beside it."]);
  return list;
}

function share(text, limits) {
  if (text === null) return "not readable";
  if (text === "0") return "none yet";
  const [part, whole] = text.split("/").map(Number);
  return limits.rate ? `${text}, ${rate(limits.rate * part / (whole || 1))}` : text;
}

// The rows of the group's members, as text.
function groupRows({ group, limits }) {
  return group.members.map((one) => {
    const [, host, pid] = /^(.*):(\d+):[^:]*$/.exec(one.id) || [null, one.id, null];
    const seen = one.is_present ? ago(Math.round(one.age)) : `left; seen ${ago(one.age)}`;
    return [host, pid, one.is_self, one.is_present, share(one.share, limits), seen];
  });
}

function groupTable(rows) {
  if (!rows.length) return empty("The coordinator has not answered yet.");
  return table(["Agent", "Share", "Last seen"], rows.map(([host, pid, isSelf, isPresent, part, seen]) => [
    el("span", { class: isPresent ? "" : "muted" }, pid === null ? host : `${host}, process ${pid}`, isSelf ? el("b", {}, " (this agent)") : ""),
    isPresent ? part : "–",
    seen,
  ]));
}

function groupNote({ group, consumers }) {
  const state = { joining: "joining", "coordinator away": "coordinator away" }[group.state];
  return [group.name, state, members(group.size), consumers === null ? null : agents(consumers)].filter(Boolean).join("; ");
}

const attentionItems = (list) =>
  list.map(([kind, label, text]) => el("li", { class: kind }, badge(kind, label), el("p", {}, text)));

function tiles(s) {
  const q = s.queue;
  const list = [
    ["Pending", s.space ? short(s.space.total.images) : "…", s.space ? `in the registry, ${ago(s.space.age)}` : "the registry is being asked"],
    ["Waiting", short(q.waiting), "not due yet, in this agent's memory"],
    ["Due", short(q.ready + q.taken - q.in_work), q.oldest_due_age >= 1 ? `oldest for ${span(q.oldest_due_age)}` : "none is late"],
    ["In work", short(q.in_work), q.in_work ? `longest for ${span(q.longest_in_work)}` : `up to ${s.settings.concurrency} at a time`],
    ["Scrubbed", short(s.done.images), `${bytes(s.done.bytes)} freed since the start`],
    ["Retries", short(s.done.retries), s.done.leases_lost ? `${number(s.done.leases_lost)} claims lost` : "no claim lost"],
  ];
  return list;
}

const tileItems = (list) =>
  list.map(([name, value, note]) =>
    el("div", {}, el("dt", {}, name), el("dd", { class: "value" }, value), el("dd", { class: "note" }, note)));

const empty = (text) => el("p", { class: "empty" }, text);

function frame(id) {
  const box = byId(id).getBoundingClientRect();
  return { width: Math.max(240, Math.round(box.width)), height: Math.max(100, Math.round(box.height)) };
}

// A picture of bars, with the numbers for those who cannot see it in its label and in each title.
function bars(size, label, entries, ticks, peakLabel) {
  const top = 18, bottom = 22;
  const height = size.height - top - bottom;
  const step = size.width / entries.length;
  const peak = Math.max(1, ...entries.map((entry) => entry.count));
  const picture = svg("svg", { viewBox: `0 0 ${size.width} ${size.height}`, role: "img", "aria-label": label });
  picture.append(svg("line", { class: "grid", x1: 0, x2: size.width, y1: top, y2: top }));
  picture.append(svg("text", { x: size.width, y: top - 6, "text-anchor": "end" }, peakLabel(peak)));
  entries.forEach((entry, i) => {
    const tall = entry.count ? Math.max(2, (entry.count / peak) * height) : 0;
    const gap = Math.min(3, step * 0.2);
    const group = svg("g", {}, svg("title", {}, entry.title),
      svg("rect", { class: "slot", x: i * step, width: step, y: top, height }),
      svg("rect", {
        class: `bar ${entry.kind || ""}`, x: i * step + gap / 2, width: Math.max(1, step - gap),
        y: top + height - tall, height: tall, rx: Math.min(2, step / 4),
      }));
    picture.append(group);
  });
  picture.append(svg("line", { class: "axis", x1: 0, x2: size.width, y1: top + height, y2: top + height }));
  for (const [at, text, anchor] of ticks)
    picture.append(svg("text", { x: at, y: size.height - 6, "text-anchor": anchor }, text));
  return picture;
}

// An agent holds what its sweeps and its notifications brought; the registry has all there is.
function nothingHere(s) {
  const fill = "What is deleted in Glance from now on appears here until it is due.";
  if (!s.space) return "This agent holds no image that waits. The registry is being asked…";
  if (s.space.later)
    return `Nothing falls due here within ${span(s.settings.horizon)}. ${images(s.space.later)} in the registry ${s.space.later === 1 ? "falls" : "fall"} due later; agents take them in by then.`;
  if (s.space.total.images > s.space.total.held) return "This agent holds no image that waits. Those pending in the registry are in work, or come with the next sweep.";
  return `Nothing waits. ${fill}`;
}

function due(s, size) {
  const { start, width, counts } = s.forecast;
  const total = counts.reduce((sum, n) => sum + n, 0);
  if (!total) return empty(nothingHere(s));
  const withSeconds = width < 60;
  const end = start + width * counts.length;
  const days = end - start > 86400;
  const name = (t) => (days ? `${day(t)} ${clock(t)}` : clock(t, withSeconds));
  const entries = counts.map((count, i) => ({
    count, title: `${name(start + i * width)} to ${name(start + (i + 1) * width)}: ${images(count)}`,
  }));
  const fits = Math.max(2, Math.min(7, Math.floor(size.width / 110)));
  const every = Math.max(1, Math.ceil(counts.length / fits));
  const ticks = [];
  const step = size.width / counts.length;
  for (let i = 0; i < counts.length; i += every) {
    if (i && size.width - i * step < 70) break;
    ticks.push([i * step, i ? name(start + i * width) : "now", "start"]);
  }
  const most = counts.indexOf(Math.max(...counts));
  const label = `${images(total)} due, or due for another try, from ${name(start)} to ${name(end)}; most, ${number(counts[most])}, at ${name(start + most * width)}`;
  return bars(size, label, entries, ticks, (peak) => `${images(peak)} in ${span(width)}`);
}

function pace(s, size) {
  const points = s.history.points;
  if (points.length < 2) return empty("A first point comes in a few seconds.");
  const top = 18, bottom = 22, height = size.height - top - bottom;
  const values = points.map((point) => point[1] / s.history.step);
  const peak = Math.max(1 / s.history.step, ...values);
  const spanned = 120;
  const x = (i) => size.width - ((points.length - 1 - i) / (spanned - 1)) * size.width;
  const y = (value) => top + height - (value / peak) * height;
  const path = values.map((value, i) => `${i ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const last = values[values.length - 1];
  return svg("svg", {
    viewBox: `0 0 ${size.width} ${size.height}`, role: "img",
    "aria-label": `Images scrubbed a second over the last ten minutes: now ${rate(last)}, at most ${rate(peak)}`,
  },
    svg("line", { class: "grid", x1: 0, x2: size.width, y1: top, y2: top }),
    svg("text", { x: size.width, y: top - 6, "text-anchor": "end" }, rate(peak)),
    svg("path", { class: "area", d: `${path}L${size.width} ${top + height}L${x(0).toFixed(1)} ${top + height}Z` }),
    svg("path", { class: "line", d: path }),
    svg("line", { class: "axis", x1: 0, x2: size.width, y1: top + height, y2: top + height }),
    svg("text", { x: 0, y: size.height - 6 }, "10 min ago"),
    svg("text", { x: size.width / 2, y: size.height - 6, "text-anchor": "middle" }, "5 min"),
    svg("text", { x: size.width, y: size.height - 6, "text-anchor": "end" }, "now"));
}

// The buckets of the metric, drawn together where a glance needs no finer ones.
const LATE_EDGES = [0.5, 1, 5, 10, 60, 300, 3600, Infinity];

function lateness(s, size) {
  const { bounds, counts } = s.lateness;
  const total = counts.reduce((sum, n) => sum + n, 0);
  if (!total) return empty("Nothing is scrubbed yet.");
  const entries = LATE_EDGES.map((edge, i) => ({
    count: 0, kind: i > 4 ? "warn" : "",
    from: i ? LATE_EDGES[i - 1] : 0, name: edge === Infinity ? "more" : span(edge).replace("60 s", "1 min"),
  }));
  counts.forEach((count, i) => {
    const bound = i < bounds.length ? bounds[i] : Infinity;
    entries[LATE_EDGES.findIndex((edge) => bound <= edge)].count += count;
  });
  for (const entry of entries)
    entry.title = `${entry.name === "more" ? `more than ${span(entry.from)}` : `up to ${entry.name}`}: ${images(entry.count)}`;
  const step = size.width / entries.length;
  const narrow = step < 48;
  const ticks = entries.map((entry, i) =>
    [(i + 0.5) * step, entry.name === "more" ? entry.name : (narrow ? entry.name.replace(" ", "").replace("min", "m") : `≤ ${entry.name}`), "middle"]);
  const label = `How late images were scrubbed. ${entries.filter((entry) => entry.count).map((entry) => entry.title).join("; ")}`;
  return bars(size, label, entries, ticks, (peak) => images(peak));
}

function meter(label, text, part, capPart) {
  const fill = el("div", { class: "fill" });
  fill.style.width = `${Math.min(100, Math.max(0, part * 100))}%`;
  const track = el("div", { class: "track", "aria-hidden": "true" }, fill);
  if (capPart > 0) {
    const cap = el("div", { class: "cap" });
    cap.style.width = `${Math.min(100, capPart * 100)}%`;
    track.append(cap);
  }
  return el("div", { class: "meter" }, el("div", { class: "label" }, el("span", {}, label), el("span", {}, text)), track);
}

// A store's deletes a second over the last ten seconds, from what it had deleted at each poll.
const deletes = new Map();
function follow(s) {
  for (const store of s.stores) {
    const seen = deletes.get(store.name) || [];
    seen.push([s.now, store.gone]);
    while (seen.length > 2 && s.now - seen[1][0] >= 10) seen.shift();
    deletes.set(store.name, seen);
  }
}

function perSecond(store) {
  const seen = deletes.get(store.name) || [];
  if (seen.length < 2) return store.running ? store.per_second : 0;
  const [from, to] = [seen[0], seen[seen.length - 1]];
  return to[0] > from[0] ? Math.max(0, to[1] - from[1]) / (to[0] - from[0]) : 0;
}

function storeState(store) {
  if (store.fault) return ["bad", "not usable", `${store.fault}; loaded again every minute, and at SIGHUP`];
  if (store.breaker === "blown") return ["bad", "paused", `${store.reason}. Repair it and send SIGHUP.`];
  if (store.breaker === "open") return ["bad", "failing", `${reason(store.reason)}; probed until it works`];
  if (store.breaker === "probing") return ["warn", "probing", `${reason(store.reason)}; one request decides`];
  if (store.owners_stopped) return ["warn", "in part", "some projects' images wait; the log names them"];
  if (store.provable === false)
    return ["warn", "cannot be proven", "it lacks an image's data, and has no active image that tells whether it is the right store"];
  if (store.slowed) return ["warn", "slowed", "the store showed signs of overload; its pace recovers by itself"];
  return ["good", "working", ""];
}

function storeCard(store) {
  if (!store.name) {
    return el("article", { class: "store" },
      el("div", { class: "title" }, el("h3", {}, "No store of this configuration"), badge("warn", "not usable")),
      el("p", { class: "why" }, "Images whose store is not enabled, or whose location cannot be read. They are parked."));
  }
  const [kind, state, why] = storeState(store);
  const most = store.most_concurrent;
  const now = perSecond(store);
  let rateText = store.rate ? `${rate(now)} of ${rate(store.rate)}` : `${rate(now)}, no limit`;
  if (store.most_rate && store.rate < store.most_rate) rateText += ` (allowed ${rate(store.most_rate)})`;
  const rateMost = store.most_rate || store.rate;
  return el("article", { class: "store" },
    el("div", { class: "title" }, el("h3", {}, store.name), badge(kind, state)),
    why ? el("p", { class: "why" }, why) : null,
    el("div", { class: "meters" },
      meter("At a time", store.concurrent < most ? `${store.running} of ${store.concurrent} (allowed ${most})` : `${store.running} of ${most}`,
        store.running / most, 1 - store.concurrent / most),
      meter("Deletes", rateText, rateMost ? now / rateMost : 0, store.most_rate ? 1 - store.rate / store.most_rate : 0)),
    el("dl", { class: "numbers" },
      el("div", {}, el("dt", {}, "Due"), el("dd", {}, short(store.ready + store.claimed))),
      el("div", {}, el("dt", {}, "Deleted"), el("dd", {}, short(store.gone))),
      store.not_found ? el("div", {}, el("dt", {}, "Not found"), el("dd", {}, short(store.not_found))) : null,
      el("div", {}, el("dt", {}, "Freed"), el("dd", {}, bytes(store.bytes))),
      el("div", {}, el("dt", {}, "Pending"), el("dd", {}, store.pending_bytes === null ? "…" : bytes(store.pending_bytes)))));
}

function table(names, rows) {
  return el("table", { class: "cards" },
    el("thead", {}, el("tr", {}, ...names.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, ...rows.map((row) =>
      el("tr", {}, ...row.map((cell, i) => el("td", { "data-name": names[i] }, cell))))));
}

const code = (text) => el("code", {}, text === null || text === "" ? "–" : String(text));

// What was opened is opened again after the part is drawn anew.
const opened = new Set();
function folded(key, title, content) {
  const node = el("details", {}, el("summary", {}, title), content);
  node.open = opened.has(key);
  node.addEventListener("toggle", () => (node.open ? opened.add(key) : opened.delete(key)));
  return node;
}

function group(kind, label, title, hint, key, names, rows, total) {
  const more = total > rows.length ? ` (the first ${number(rows.length)})` : "";
  return el("div", { class: "group" },
    el("div", { class: "title" }, badge(kind, label), el("h3", {}, title)),
    hint ? el("p", { class: "hint" }, hint) : null,
    rows.length ? folded(key, `Show images${more}`, table(names, rows)) : null);
}

// What waits in a store that nothing, or but a probe, is deleted from.
const shut = (s) => s.stores.filter((store) => store.name && store.breaker !== "closed");
const waitingIn = (store) => store.ready + store.claimed;

function stuck(s) {
  const groups = [];
  for (const store of shut(s)) {
    const paused = store.breaker === "blown";
    groups.push(group(paused ? "bad" : "warn", paused ? "paused" : "failing",
      `${images(waitingIn(store))}${inStore(store.name)}: ${reason(store.reason)}`,
      paused ? "Nothing is deleted there. Repair it and send the agents SIGHUP." : "evscrub probes the store until it works; evscrub retry --store probes it at once.",
      "", [], [], 0));
  }
  if (s.damaged.total) {
    groups.push(group("bad", "damaged", images(s.damaged.total),
      "Never touched. Look at the image; if it should live, evscrub restore brings it back.", "damaged",
      ["Image", "Why"], s.damaged.shown.map((image) => [code(image.id), image.reason]), s.damaged.total));
  }
  for (const [what, kind, list] of [["parked", "warn", s.parked], ["in use", "warn", s.in_use]]) {
    const byReason = new Map();
    for (const image of list.shown) {
      const key = JSON.stringify([image.store, image.reason, what === "parked" ? image.detail : ""]);
      if (!byReason.has(key)) byReason.set(key, []);
      byReason.get(key).push(image);
    }
    for (const [key, members] of byReason) {
      const first = members[0];
      const whole = byReason.size === 1 ? list.total : members.length;
      groups.push(group(kind, what, `${images(whole)}${inStore(first.store)}: ${reason(first.reason)}`,
        what === "parked" ? first.detail : "The store will not delete them yet. They are tried again, rarely.",
        what + key, ["Image", "Owner", "Tries"],
        members.map((image) => [code(image.id), code(image.owner), number(image.tries)]), whole));
    }
  }
  for (const item of s.retrying) {
    groups.push(group("warn", "retried", `${images(item.images)}${inStore(item.store)}: ${reason(item.reason)}`, "", "", [], [], 0));
  }
  return groups.length ? groups : empty("Nothing is parked, damaged or retried.");
}

function space(s) {
  if (!s) return empty("The registry is being asked…");
  if (!s.owners.length) return empty("Nothing is pending in the registry.");
  const most = Math.max(1, s.owners[0].bytes);
  const list = s.owners.map((owner) => {
    const fill = el("div", { class: "fill" });
    fill.style.width = `${(owner.bytes / most) * 100}%`;
    const held = owner.held ? `, ${number(owner.held)} held` : "";
    return el("div", { class: "owner" },
      el("div", { class: "label" }, el("span", {}, code(owner.owner)),
        el("span", {}, el("b", {}, bytes(owner.bytes)), ` in ${images(owner.images)}${held}`)),
      el("div", { class: "track", "aria-hidden": "true" }, fill));
  });
  const named = s.owners.reduce((sum, owner) => sum + owner.bytes, 0);
  if (s.total.bytes > named) list.push(el("p", { class: "muted" }, `Others: ${bytes(s.total.bytes - named)}`));
  return list;
}

// The limits that an agent keeps to, and those of its group where they differ.
function limits({ settings, sharing: { group, limits } }) {
  const part = (name, words) =>
    settings[name] === limits[name] || waitsForShare(group)
      ? words(limits[name]) : `${words(settings[name])} (${group.share} of ${words(limits[name])})`;
  const list = [
    part("concurrency", (n) => `${n} at a time`),
    limits.rate ? part("rate", rate) : "no rate limit",
    limits.owner_rate ? `${part("owner_rate", rate)} an owner` : "",
  ].filter(Boolean).join(", ");
  return waitsForShare(group) ? `no share yet of ${list}` : list;
}

function facts(s) {
  const b = s.bus, w = s.sweep, ahead = s.registry.clock_ahead;
  return [
    ["Bus", b.joined ? `joined; ${b.received ? `${number(b.received)} notifications, the last ${ago(b.last_age)}` : "no notification yet"}` : "not joined"],
    ["Malformed", number(b.malformed)],
    ...(s.done.finished ? [["Finished", `${images(s.done.finished)} without a delete: shared data, another's store, or no location left`]] : []),
    ["Missed by bus", number(b.missed)],
    ["Sweeps", w.count ? `${number(w.count)}; the last ${ago(w.last_age)} found ${images(w.last_found)} in ${span(w.last_seconds)}` : "the first is under way"],
    ["Registry", s.registry.answers ? "answers" : "does not answer"],
    ["Clocks", Math.abs(ahead) < 2 ? "agree with the database's" : `this host's is ${span(Math.abs(ahead))} ${ahead > 0 ? "ahead of" : "behind"} the database's`],
    ["Data is kept", span(s.settings.scrub_time)],
    ["Limits", limits(s)],
    ...(s.sharing.group ? [] : [["Agents", `each by itself${s.sharing.consumers === null ? "" : `; ${agents(s.sharing.consumers)}`}`]]),
    ["Memory", `${short(s.queue.waiting + s.queue.awaiting_retry + s.queue.ready)} of ${short(s.queue.capacity)} images${s.queue.dropped ? `; ${short(s.queue.dropped)} left to later sweeps` : ""}`],
  ];
}

const factItems = (list) => list.flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)]);

// -- all of it

function show(s) {
  say("who", `${s.agent.version} on ${s.agent.host}, process ${s.agent.pid}`);
  const needs = attention(s);
  document.title = needs[0][0] === "good" ? "evscrub" : `(${needs.length}) evscrub`;
  draw("attention-list", needs, attentionItems);
  draw("tiles", tiles(s), tileItems);

  const dueSize = frame("due-chart"), paceSize = frame("pace-chart"), lateSize = frame("late-chart");
  const { waiting, awaiting_retry: failed } = s.queue;
  const later = s.space && s.space.later
    ? `${number(s.space.later)} in the registry due in more than ${span(s.settings.horizon)}` : "";
  const here = waiting ? `${number(waiting)} waiting in this agent's memory` : "";
  const again = failed ? `${number(failed)} failed, shown at their next try` : "";
  say("due-note", [here, again, later].filter(Boolean).join("; "));
  draw("due-chart", [s.forecast, dueSize, s.space && { ...s.space, age: 0 }], () => due(s, dueSize));
  const points = s.history.points;
  const recent = points.slice(-12);
  const lately = recent.reduce((sum, point) => sum + point[1], 0) / Math.max(1, recent.length * s.history.step);
  const freed = points.reduce((sum, point) => sum + point[2], 0);
  say("pace-note", points.length > 1 ? `${rate(lately)} over the last minute, ${bytes(freed)} in ten minutes` : "");
  draw("pace-chart", [points, paceSize], () => pace(s, paceSize));
  const late = s.lateness;
  say("late-note", late.latest ? `latest ${number(late.latest)}: median ${span(late.median)}, 95 % ${span(late.p95)}, most ${span(late.most)}` : "");
  draw("late-chart", [late.counts, lateSize], () => lateness(s, lateSize));

  follow(s);
  // By name, so that each stays where it was; what has no store comes last.
  const stores = s.stores.filter((store) => store.name || store.troubled)
    .sort((a, b) => !a.name - !b.name || (a.name < b.name ? -1 : 1));
  draw("stores", [stores, stores.map(perSecond)], ([stores]) => stores.length
    ? stores.map(storeCard) : empty("No store was asked for anything yet."));

  const { group } = s.sharing;
  byId("group").hidden = group === null;
  say("group-note", group === null ? "" : groupNote(s.sharing));
  draw("group-body", group === null ? [] : groupRows(s.sharing), groupTable);

  const stuckCount = s.parked.total + s.damaged.total + s.in_use.total
    + shut(s).reduce((sum, store) => sum + waitingIn(store), 0);
  say("stuck-note", stuckCount ? images(stuckCount) : "");
  const shutNow = shut(s).map((store) => [store.name, store.breaker, store.reason, waitingIn(store)]);
  draw("stuck-body", [s.parked, s.in_use, s.damaged, s.retrying, shutNow], () => stuck(s));
  say("space-note", s.space ? `${bytes(s.space.total.bytes)} in ${images(s.space.total.images)} pending${s.space.total.held ? `, ${number(s.space.total.held)} held` : ""}; read ${ago(s.space.age)}` : "");
  draw("space-body", s.space && { ...s.space, age: 0 }, () => space(s.space));
  draw("facts", facts(s), factItems);
}

let answeredAt = 0;
function alive(yes) {
  byId("live").classList.toggle("gone", !yes);
  document.body.classList.toggle("gone", !yes && answeredAt > 0);
  if (yes) say("live-text", "live");
  else if (!answeredAt) say("live-text", "The agent does not answer");
  else say("live-text", `The agent has not answered since ${clock(answeredAt / 1000, true)}`);
}

async function poll() {
  let pause = POLL_MS;
  try {
    const answer = await fetch("status", { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error(answer.status);
    show(await answer.json());
    answeredAt = Date.now();
    alive(true);
  } catch {
    alive(false);
    pause = SLOW_MS;
  }
  setTimeout(poll, document.hidden ? SLOW_MS : pause);
}

poll();
