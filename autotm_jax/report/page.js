"use strict";

const element = (id) => document.getElementById(id);
const data = JSON.parse(element("data").textContent);
const last = data.segments.length - 1;
const duration = Math.max(data.begins.at(-1), data.before.begins.at(-1));

const LARGEST = 10;
const FLIGHTS = 3;
const UNITS = [["GiB", 2 ** 30, 2], ["MiB", 2 ** 20, 1], ["KiB", 2 ** 10, 1]];

const values = data.held.map(
  ([value, nbytes, aval, source, short, way, layer, role, spans]) => ({
    value, nbytes, layer, role,
    aval: data.texts[aval],
    source: data.texts[source],
    short: data.texts[short],
    way: data.ways[way],
    spans: merged(spans),
  }),
);

const state = {
  segment: data.peak,
  pinned: false,
  sort: "total",
  falling: true,
  ways: new Set(data.ways),
  open: new Set(),
};

/* Numbers, words, and spans [first, end). */

function number(value, digits = 0) {
  const both = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return value.toLocaleString("en", both);
}

function bytes(nbytes) {
  const [unit, size, digits] = UNITS.find((u) => nbytes >= u[1]) ?? ["B", 1, 0];
  return `${number(nbytes / size, digits)} ${unit}`;
}

function milliseconds(nanoseconds) {
  return `${number(nanoseconds / 1e6, nanoseconds < 1e6 ? 4 : 2)} ms`;
}

function plural(count, word) {
  return `${number(count)} ${word}${count === 1 ? "" : "s"}`;
}

function rangesText(spans) {
  const range = ([a, end]) => (a === end - 1 ? `${a}` : `${a}\u2013${end - 1}`);
  return spans.map(range).join(", ");
}

function merged(spans) {
  const out = [];
  for (const [first, end] of [...spans].sort((a, b) => a[0] - b[0])) {
    const before = out.at(-1);
    if (before && first <= before[1]) before[1] = Math.max(before[1], end);
    else out.push([first, end]);
  }
  return out;
}

function isIn([first, end], segment) {
  return first <= segment && segment < end;
}

function isAt(value, segment) {
  return value.spans.some((span) => isIn(span, segment));
}

/* Elements. Texts come from users: they are set as text, never as HTML. */

function make(tag, text, className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

function button(text, onClick) {
  const made = make("button", text);
  made.type = "button";
  made.addEventListener("click", onClick);
  return made;
}

function figure([label, text, remark = ""]) {
  const made = make("div", "");
  made.append(make("dt", label), make("dd", text, "figure"));
  if (remark) made.append(make("dd", remark, "remark"));
  return made;
}

function fillHead() {
  document.title = `Plan: ${data.title}`;
  element("title").textContent = data.title;
  const machine = data.machine && ` for ${data.machine}`;
  element("machine").textContent = `A plan${machine}. Times and bytes are modelled.`;
  element("figures").append(...data.figures.map(figure));
  element("summary").textContent = data.summary;
  element("legend-budget").hidden = data.budget === null;
}

/* The chart. */

const svg = document.querySelector("#chart svg");
const LEFT = 64, RIGHT = 8;
const DEVICE = { top: 40, height: 210 };
const HOST = { top: 284, height: 64 };
const LANES = { top: 382, height: 18, names: ["compute", "stalled", "D2H", "H2D"] };
const BOTTOM = LANES.top + LANES.names.length * LANES.height;
const chart = { right: 0, here: null };

function draw(tag, attributes, text = "") {
  // The namespace is that of the element that is there.
  const made = document.createElementNS(svg.namespaceURI, tag);
  Object.entries(attributes).forEach((attribute) => made.setAttribute(...attribute));
  made.textContent = text;
  svg.append(made);
  return made;
}

function line(x1, y1, x2, y2, className = "") {
  draw("line", { x1, y1, x2, y2, class: className });
}

function label(x, y, text, anchor = "middle", className = "") {
  draw("text", { x, y, "text-anchor": anchor, class: className }, text);
}

function xOf(time) {
  return LEFT + ((chart.right - LEFT) * time) / duration;
}

function yOf(size, place, most) {
  return place.top + place.height * (1 - size / most);
}

function ticks(most, count) {
  const rough = most / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((n) => n * power >= rough);
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  const steps = Array.from({ length: Math.floor(most / step) + 1 }, (_, n) => n * step);
  return steps.map((at) => [at, number(at, digits)]);
}

function drawScale(name, place, nameY, most, count) {
  const [unit, size] = UNITS.find((u) => most >= u[1]) ?? ["B", 1];
  label(LEFT, nameY, `${name}, ${unit}`, "start", "name");
  for (const [at, text] of ticks(most / size, count)) {
    const y = yOf(at * size, place, most);
    line(LEFT, y, chart.right, y);
    label(LEFT - 6, y + 4, text, "end");
  }
}

function drawArea({ begins }, sizes, place, most, className) {
  const steps = sizes.map((size, k) => {
    const y = yOf(size, place, most).toFixed(2);
    return `V${y}H${xOf(begins[k + 1]).toFixed(2)}`;
  });
  const bottom = yOf(0, place, most);
  const d = `M${xOf(begins[0])} ${bottom}${steps.join("")}V${bottom}Z`;
  draw("path", { d, class: `area ${className}` });
}

function drawMemory() {
  const sizes = [...data.device, ...data.before.device, data.budget ?? 0];
  const most = 1.04 * sizes.reduce((a, b) => Math.max(a, b));
  drawScale("Device memory", DEVICE, 12, most, 5);
  drawArea(data.before, data.before.device, DEVICE, most, "before");
  drawArea(data, data.device, DEVICE, most, "planned");
  const y = yOf(data.budget, DEVICE, most);
  if (data.budget !== null) line(LEFT, y, chart.right, y, "budget");
  const mostOnHost = 1.04 * data.host.reduce((a, b) => Math.max(a, b), 1);
  drawScale("Host memory", HOST, HOST.top - 10, mostOnHost, 2);
  drawArea(data, data.host, HOST, mostOnHost, "host");
}

function drawPhases() {
  for (const [phase, first, end] of data.phases) {
    const begin = xOf(data.begins[first]), until = xOf(data.begins[end]);
    if (first) line(begin, DEVICE.top - 18, begin, BOTTOM, "border");
    // What is too narrow for its name is named where it is pointed at.
    const isWide = until - begin > 7 * phase.length + 8;
    if (isWide) label((begin + until) / 2, DEVICE.top - 8, phase);
  }
}

function drawBars(bars, name, className, share) {
  const height = LANES.height * share;
  const row = LANES.names.indexOf(name) + (1 - share) / 2;
  const path = bars.map(([begin, end]) => {
    const x = xOf(begin), width = Math.max(0.5, xOf(end) - x).toFixed(2);
    const top = LANES.top + LANES.height * row;
    return `M${x.toFixed(2)} ${top}h${width}v${height}h-${width}z`;
  });
  draw("path", { d: path.join(""), class: `${name} ${className}` });
}

function stalls(busy) {
  const begins = [...busy.map((span) => span[0]), data.begins.at(-1)];
  const gaps = begins.map((begin, n) => [n ? busy[n - 1][1] : 0, begin]);
  // A nanosecond may come from rounding.
  return gaps.filter(([end, begin]) => begin - end > 1);
}

function drawLanes() {
  label(LEFT, LANES.top - 10, "Timeline", "start", "name");
  LANES.names.forEach((name, row) => {
    label(LEFT - 6, LANES.top + LANES.height * (row + 0.5) + 4, name, "end");
  });
  const busy = merged(data.compute);
  drawBars(busy, "compute", "", 0.7);
  drawBars(stalls(busy), "stalled", "", 0.7);
  for (const name of ["D2H", "H2D"]) {
    const bars = (waits) =>
      data.copies.filter((copy) => copy[0] === name && copy[5] === waits);
    const times = (waits) => merged(bars(waits).map((copy) => copy.slice(2, 4)));
    drawBars(times(0), name, "beside", 0.6);
    drawBars(times(1), name, "", 0.85);
  }
}

function drawTime() {
  line(LEFT, BOTTOM, chart.right, BOTTOM);
  for (const [at, text] of ticks(duration / 1e6, Math.max(4, chart.right / 110))) {
    const x = xOf(at * 1e6);
    line(x, BOTTOM, x, BOTTOM + 4);
    label(x, BOTTOM + 17, text);
  }
  label((LEFT + chart.right) / 2, BOTTOM + 34, "Time, ms");
}

function drawChart() {
  chart.right = element("chart").clientWidth - RIGHT;
  svg.replaceChildren();
  svg.setAttribute("height", BOTTOM + 40);
  drawMemory();
  drawLanes();
  drawPhases();
  drawTime();
  const y = DEVICE.top - 4;
  chart.here = draw("rect", { y, height: BOTTOM - y });
  markSegment();
}

function markSegment() {
  const [x, end] = data.begins.slice(state.segment, state.segment + 2).map(xOf);
  chart.here.setAttribute("x", x);
  chart.here.setAttribute("width", Math.max(1, end - x));
  chart.here.setAttribute("class", state.pinned ? "here pinned" : "here");
}

function segmentAt(event) {
  const x = event.clientX - svg.getBoundingClientRect().left;
  const time = ((x - LEFT) / (chart.right - LEFT)) * duration;
  const next = data.begins.findIndex((begin) => begin > time);
  return next === -1 ? last : Math.max(0, next - 1);
}

/* What is alive at a segment. */

function flightText(segment) {
  const [begin, end] = data.begins.slice(segment, segment + 2);
  const copies = data.copies.filter((copy) => copy[2] < end && copy[3] > begin);
  const shown = copies.slice(0, FLIGHTS);
  const named = shown.map(([lane, text]) => `${lane} ${data.texts[text]}`);
  if (copies.length > FLIGHTS) named.push(`and ${copies.length - FLIGHTS} more`);
  return copies.length ? `In flight: ${named.join("; ")}.` : "Nothing is copied.";
}

function aliveRow(value) {
  const row = make("tr", ""), what = make("td", `${value.aval} `);
  what.append(make("span", value.short, "quiet"));
  what.title = value.source;
  row.append(make("td", bytes(value.nbytes), "number"), what, make("td", value.way));
  return row;
}

function workspaceRow(segment) {
  const row = make("tr", ""), what = make("td", "workspace of ");
  const nbytes = data.workspace[segment];
  what.append(make("span", data.texts[data.segments[segment]], "quiet"));
  row.append(make("td", bytes(nbytes), "number"), what, make("td", ""));
  return nbytes ? [row] : [];
}

function fillPanel() {
  const k = state.segment;
  const phases = data.phases.filter(([, ...span]) => isIn(span, k));
  const parts = [`Segment ${k} of ${last + 1}`, ...phases.map(([phase]) => phase)];
  if (k === data.peak) parts.push("peak");
  const title = parts.join(", ");
  const does = data.texts[data.segments[k]];
  const alive = values.filter((value) => isAt(value, k));
  const largest = alive.slice(0, LARGEST);
  const facts = [
    ["begins at", milliseconds(data.begins[k])],
    ["takes, with waits", milliseconds(data.begins[k + 1] - data.begins[k])],
    ["device", bytes(data.device[k])],
    ["host", bytes(data.host[k])],
  ];
  element("segment").textContent = title;
  element("does").textContent = does;
  element("facts").replaceChildren(...facts.map(figure));
  element("flight").textContent = flightText(k);
  element("alive-title").textContent =
    `The largest ${largest.length} of ${plural(alive.length, "value")} alive:`;
  element("alive").replaceChildren(...largest.map(aliveRow));
  element("workspace").replaceChildren(...workspaceRow(k));
  element("chart").setAttribute("aria-valuenow", k);
  element("chart").setAttribute("aria-valuetext", `${title}: ${does}`);
}

function fillPin() {
  const only = element("alive-only");
  element("pin").setAttribute("aria-pressed", state.pinned);
  element("pin").textContent = state.pinned ? "Pinned" : "Pin";
  only.disabled = !state.pinned;
  only.checked &&= state.pinned;
  element("alive-only-text").textContent = state.pinned
    ? `Only what is alive at segment ${state.segment}`
    : "Only what is alive at the pinned segment (none is)";
  fillTable();
}

function show(segment, pinned) {
  const isAboutPin = pinned || state.pinned;
  state.segment = Math.min(Math.max(segment, 0), last);
  state.pinned = pinned;
  fillPanel();
  markSegment();
  if (isAboutPin) fillPin();
}

function onMove(event) {
  const segment = segmentAt(event);
  if (!state.pinned && segment !== state.segment) show(segment, false);
}

function onClick(event) {
  const segment = segmentAt(event);
  show(segment, !(state.pinned && segment === state.segment));
}

function onKey(event) {
  const { segment, pinned } = state;
  const moves = { ArrowLeft: segment - 1, ArrowRight: segment + 1, Home: 0, End: last };
  if (event.key in moves) show(moves[event.key], pinned);
  else if (event.key === "Enter" || event.key === " ") show(segment, !pinned);
  else if (event.key === "Escape") show(segment, false);
  else return;
  event.preventDefault();
}

function watchChart() {
  const target = element("chart");
  target.setAttribute("aria-valuemax", last);
  target.addEventListener("pointermove", onMove);
  target.addEventListener("click", onClick);
  target.addEventListener("keydown", onKey);
  element("pin").addEventListener("click", () => show(state.segment, !state.pinned));
  new ResizeObserver(drawChart).observe(target);
}

/* The table. A row is made of one value, or of several that are alike. */

const columns = [
  { name: "Count", key: "count", text: (row) => number(row.count), right: true },
  { name: "Size", key: "nbytes", text: (row) => bytes(row.nbytes), right: true },
  { name: "Total", key: "total", text: (row) => bytes(row.total), right: true },
  { name: "Value", key: "aval", text: (row) => row.aval },
  { name: "Source line", key: "short", text: (row) => row.short },
  { name: "Layer", key: "layer", text: (row) => rangesText(row.layers) },
  { name: "Decision", key: "way", text: (row) => row.way },
  { name: "On the device", key: "first", text: spansText },
  { name: "Role", key: "role", text: (row) => row.role },
].filter(({ key }) => key !== "layer" || values.some(({ layer }) => layer !== null));

function spansText({ spans, count, first, end }) {
  if (!spans.length) return "never";
  if (spans.length === 1 && first === 0 && end > last) return "always";
  return count > 1 ? `within ${rangesText([[first, end]])}` : rangesText(spans);
}

function rowOf(members, key) {
  const spans = merged(members.flatMap((value) => value.spans));
  const layers = members.map((value) => value.layer).filter((layer) => layer !== null);
  return {
    ...members[0],
    key, members, spans,
    count: members.length,
    total: members[0].nbytes * members.length,
    short: common(members.map((value) => value.short)),
    source: common(members.map((value) => value.source)),
    layers: merged(layers.map((layer) => [layer, layer + 1])),
    layer: layers.length ? Math.min(...layers) : Infinity,
    first: spans[0]?.[0] ?? Infinity,
    end: spans.at(-1)?.[1],
  };
}

// Paths into arguments that differ by nothing but these are alike.
const INDEX = /\[\d+\]/g;

function common(texts) {
  const found = texts.map((text) => text.match(INDEX) ?? []);
  let n = 0;
  return texts[0].replace(INDEX, (index) => {
    const isShared = found.every((indices) => indices[n] === index);
    n += 1;
    return isShared ? index : "[*]";
  });
}

function grouped(chosen) {
  const groups = new Map();
  for (const value of chosen) {
    const { nbytes, aval, way, role } = value;
    const source = value.source.replace(INDEX, "[*]");
    const key = [nbytes, aval, source, way, role].join("\n");
    groups.set(key, [...(groups.get(key) ?? []), value]);
  }
  return [...groups].map(([key, members]) => rowOf(members, key));
}

function isChosen(value, words) {
  if (!state.ways.has(value.way)) return false;
  if (element("alive-only").checked && !isAt(value, state.segment)) return false;
  const text = `${value.aval} ${value.short} ${value.source}`;
  return text.toLowerCase().includes(words);
}

function compare(a, b) {
  const x = a[state.sort], y = b[state.sort];
  const order = (x > y) - (x < y);
  return (state.falling ? -order : order) || b.total - a.total;
}

function toggle(set, key) {
  if (!set.delete(key)) set.add(key);
  fillTable();
}

function opener(row) {
  const isOpen = state.open.has(row.key);
  const buttons = () => [...element("values").querySelectorAll("td button")];
  const made = button(`${isOpen ? "\u2212" : "+"} ${number(row.count)}`, () => {
    const place = buttons().indexOf(made);
    toggle(state.open, row.key);
    buttons()[place].focus();
  });
  made.setAttribute("aria-expanded", isOpen);
  made.setAttribute("aria-label", `${plural(row.count, "value")} from ${row.short}`);
  return made;
}

function rowElement(row, className) {
  const made = make("tr", "", className);
  for (const column of columns) {
    const cell = make("td", column.text(row), column.right ? "number" : "");
    if (column.key === "short") {
      cell.title = row.source;
      cell.className = "source";
    }
    made.append(cell);
  }
  if (row.count > 1) made.cells[0].replaceChildren(opener(row));
  return made;
}

function rowElements(row) {
  const isOpen = row.count > 1 && state.open.has(row.key);
  const members = isOpen ? row.members.map((value) => rowOf([value], "")) : [];
  const below = members.sort(compare).map((member) => rowElement(member, "member"));
  return [rowElement(row, ""), ...below];
}

function fillTable() {
  const words = element("search").value.trim().toLowerCase();
  const chosen = values.filter((value) => isChosen(value, words));
  const rows = grouped(chosen).sort(compare);
  const total = bytes(chosen.reduce((sum, value) => sum + value.nbytes, 0));
  const counted = `${number(chosen.length)} of ${plural(values.length, "value")}`;
  element("values").tBodies[0].replaceChildren(...rows.flatMap(rowElements));
  const inRows = plural(rows.length, "row");
  element("count").textContent = `${counted} in ${inRows}, ${total}`;
  columns.forEach((column, n) => {
    const head = element("values").tHead.rows[0].cells[n];
    if (column.key !== state.sort) head.removeAttribute("aria-sort");
    else head.setAttribute("aria-sort", state.falling ? "descending" : "ascending");
  });
}

function sortBy(column) {
  // What is large is asked for first, and names from A on.
  const falling = ["count", "nbytes", "total"].includes(column.key);
  state.falling = state.sort === column.key ? !state.falling : falling;
  state.sort = column.key;
  fillTable();
}

function headCell(column) {
  const made = make("th", "", column.right ? "number" : "");
  made.scope = "col";
  made.append(button(column.name, () => sortBy(column)));
  return made;
}

function wayBox(way) {
  const made = make("label", ""), box = make("input", "");
  box.type = "checkbox";
  box.checked = true;
  box.addEventListener("change", () => toggle(state.ways, way));
  made.append(box, way);
  return made;
}

function watchTable() {
  element("values").tHead.rows[0].append(...columns.map(headCell));
  const taken = data.ways.filter((way) => values.some((value) => value.way === way));
  element("ways").append(...taken.map(wayBox));
  element("search").addEventListener("input", fillTable);
  element("alive-only").addEventListener("change", fillTable);
}

fillHead();
drawChart();
fillPanel();
watchTable();
fillPin();
watchChart();
