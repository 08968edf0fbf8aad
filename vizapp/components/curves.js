// Curves over a common axis, with their values where it is pointed at; the arrow keys walk along it.
// data: {x: base64 float32, series: [{name, y: base64 float32}], label, axis}. Places without a value (NaN) leave a gap.

const COLOURS = ["var(--st-primary-color)", "var(--st-blue-color)", "var(--st-green-color)", "var(--st-violet-color)", "var(--st-yellow-color)", "var(--st-gray-color)", "#c99a86", "#86b5b8"];
const [WIDE, HIGH, LEFT, RIGHT, TOP, BOTTOM] = [720, 260, 54, 10, 10, 38];

function drawn(name, parent, places) {
  const made = parent.appendChild(document.createElementNS(SVG, name));
  for (const [key, value] of Object.entries(places)) made.setAttribute(key, value);
  return made;
}

// Round numbers from low to high, about `count`.
function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough), first = Math.ceil(low / step) * step;
  return Array.from({ length: Math.floor((high - first) / step + 1e-9) + 1 }, (_, n) => first + n * step);
}

export default function (component) {
  const { data, parentElement } = component;
  const root = parentElement.querySelector(".root");
  if (!data) return;
  root.replaceChildren();
  const x = floats(data.x), lines = data.series.map((one) => floats(one.y));
  const range = (values, zero) => {
    const known = values.filter(Number.isFinite), low = Math.min(...known, ...zero), high = Math.max(...known, ...zero);
    return high > low ? [low, high] : [low - 0.5, high + 0.5];
  };
  const [left, right] = range([...x], []), [low, high] = range(lines.flatMap((line) => [...line]), [0]);
  const across = (value) => LEFT + (value - left) / (right - left) * (WIDE - LEFT - RIGHT);
  const down = (value) => HIGH - BOTTOM - (value - low) / (high - low) * (HIGH - TOP - BOTTOM);

  const chart = element("div", "chart", root), svg = drawn("svg", chart, { viewBox: `0 0 ${WIDE} ${HIGH}` });
  for (const value of ticks(low, high, 4)) {
    drawn("line", svg, { x1: LEFT, x2: WIDE - RIGHT, y1: down(value), y2: down(value), class: Math.abs(value) < 1e-12 ? "zero" : "" });
    drawn("text", svg, { x: LEFT - 8, y: down(value) + 4, class: "low" }).textContent = Number(value.toPrecision(6));
  }
  for (const value of ticks(left, right, 8)) drawn("text", svg, { x: across(value), y: HIGH - BOTTOM + 18, class: "along" }).textContent = Number(value.toPrecision(6));
  if (data.axis) drawn("text", svg, { x: (LEFT + WIDE - RIGHT) / 2, y: HIGH - 4, class: "along" }).textContent = data.axis;
  lines.forEach((line, n) => {
    const points = [...line].map((value, place) => (Number.isFinite(value) ? `${place && Number.isFinite(line[place - 1]) ? "L" : "M"}${across(x[place])} ${down(value)}` : ""));
    drawn("path", svg, { d: points.join("") }).style.stroke = COLOURS[n % COLOURS.length];
  });
  const at = drawn("line", svg, { y1: TOP, y2: HIGH - BOTTOM, class: "at" });
  const place = element("div", "place", root), keys = element("div", "keys", root);
  const values = data.series.map((one, n) => {
    const key = element("div", "key", keys);
    element("i", "", key).style.background = COLOURS[n % COLOURS.length];
    element("span", "", key, one.name);
    return element("b", "", key);
  });
  const show = (index) => {
    at.style.visibility = index === null ? "hidden" : "visible";
    place.textContent = index === null ? "Hover over the curves to read their values" : `${data.axis || "at"} ${short(x[index])}`;
    values.forEach((value, n) => { value.textContent = index === null ? "" : short(lines[n][index]); });
    if (index !== null) for (const end of ["x1", "x2"]) at.setAttribute(end, across(x[index]));
  };
  show(root.__cursor ?? null);
  chart.onpointermove = (event) => {
    const box = svg.getBoundingClientRect(), point = (event.clientX - box.left) / box.width * WIDE;
    show(x.reduce((best, value, n) => Math.abs(across(value) - point) < Math.abs(across(x[best]) - point) ? n : best, 0));
  };
  chart.onpointerleave = () => show(root.__cursor ?? null);
  walk(chart, root, `${data.label}: ${x.length} places`, {
    start: () => 0,
    next: (index, [rows, columns]) => within(index + columns - rows, x.length),
    show,
    words: () => [place.textContent, ...data.series.map((one, n) => `${one.name} ${values[n].textContent}`)].join(", "),
  });
}
