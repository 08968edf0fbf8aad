// A photo that is deleted or inserted pixel by pixel in the order of a map, and the curves of several maps: dragging along the curve draws the photo at that
// share of its pixels, without asking the server. data: {photo, blurred, size: [height, width], steps: base64 bytes, of each pixel in reading order the
// first share in percent at which it is changed, inserts: whether it begins with the blurred photo, lines: [{item, title, note, plain, colour: of CSS or "",
// values: [a number per percent] or null}], chosen: item, at: percent, low, high: of the axis, share: whether values are probabilities, done: [text before,
// text behind the share], name: of the value, label}
// The percent is sent when the drag ends: trigger "share". A click on the name of a line sends its item: trigger "chosen".

const LAST = 100;

// The bytes [H W 4] of a picture.
async function read(address, width, height) {
  const image = new Image();
  image.src = address;
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width, height }), pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(image, 0, 0, width, height);
  return pen.getImageData(0, 0, width, height);
}

function build(root) {
  const both = element("div", "both", root), left = element("div", "", both), right = element("div", "", both);
  element("canvas", "", element("div", "picture", left));
  const words = element("p", "words", left);
  const chart = element("div", "chart", right);
  const svg = chart.appendChild(document.createElementNS(SVG, "svg"));
  svg.setAttribute("viewBox", "0 0 100 100");
  svg.setAttribute("preserveAspectRatio", "none");
  const slider = element("input", "", element("label", "", right));
  Object.assign(slider, { type: "range", min: 0, max: LAST, step: 1 });
  return { picture: left.firstChild, canvas: left.querySelector("canvas"), words, chart, svg, slider, legend: element("div", "legend", right) };
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".root");
  if (!data) return;
  const made = (root.__made ??= build(root)), { picture, canvas, words, chart, svg, slider, legend } = made, [height, width] = data.size;
  if (root.__asked !== data.at && !root.__drags) root.__at = root.__asked = data.at;  // else what is shown is the person's
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.className = width < 64 ? "coarse" : "";
  canvas.setAttribute("role", "img");
  picture.style.aspectRatio = `${width} / ${height}`;
  slider.setAttribute("aria-label", data.label);

  const steps = unpacked(data.steps), pen = canvas.getContext("2d"), wanted = data.photo + data.blurred;
  const span = data.high - data.low || 1, high = (value) => (value - data.low) / span;
  const chosen = data.lines.find((line) => line.item === data.chosen), told = (value) => (data.share ? percent(value) : short(value));
  const paint = () => {
    if (root.__of !== wanted || !root.__pixels) return;
    const [whole, blurred] = root.__pixels, [before, after] = data.inserts ? [blurred, whole] : [whole, blurred];
    const from = new Uint32Array(before.data.buffer), to = new Uint32Array(after.data.buffer), shown = pen.createImageData(width, height);
    const pixels = new Uint32Array(shown.data.buffer);
    for (let n = 0; n < pixels.length; n++) pixels[n] = steps[n] <= root.__at ? to[n] : from[n];
    pen.putImageData(shown, 0, 0);
  };
  if (root.__of !== wanted) {
    root.__of = wanted;
    root.__pixels = null;
    Promise.all([data.photo, data.blurred].map((one) => read(one, width, height))).then((pixels) => {
      if (root.__of !== wanted) return;
      root.__pixels = pixels;
      root.__paint();
    });
  }
  root.__paint = paint;

  const path = (className, points) => {
    const drawn = svg.appendChild(document.createElementNS(SVG, "path"));
    drawn.setAttribute("class", className);
    drawn.setAttribute("d", "M" + points.map(([x, y]) => `${x.toFixed(2)} ${y.toFixed(2)}`).join("L"));
    return drawn;
  };
  svg.replaceChildren();
  chart.style.setProperty("--line", chosen?.colour || "var(--st-text-color)");
  for (const old of chart.querySelectorAll("span, i")) old.remove();
  path("axis", [[0, 0], [0, 100], [100, 100]]);
  const points = (values) => values.map((value, place) => [place * 100 / (values.length - 1), 100 * (1 - high(value))]);
  const shown = data.lines.filter((line) => line.values);
  for (const line of [...shown.filter((one) => one !== chosen), ...shown.filter((one) => one === chosen)]) {
    if (line === chosen) path("area", [[0, 100], ...points(line.values), [100, 100]]);
    const drawn = path(line === chosen ? "chosen" : line.plain ? "plain" : "", points(line.values));
    if (line.colour) drawn.style.stroke = line.colour;
    if (line.item === "edges") drawn.classList.add("dotted");
    drawn.appendChild(document.createElementNS(SVG, "title")).textContent = line.title;
  }
  for (const value of [data.low, (data.low + data.high) / 2, data.high]) element("span", "up", chart, data.share ? `${Math.round(100 * value)} %` : short(value)).style.top = `${100 * (1 - high(value))}%`;
  for (const share of [0, 50, 100]) element("span", share === 100 ? "along last" : "along", chart, share === 100 ? "100 % of the pixels" : `${share} %`).style.left = `${share}%`;
  const cursor = element("i", "", chart), value = (place) => (chosen?.values ? chosen.values[within(place, chosen.values.length)] : null);
  const say_it = () => {
    const now = value(root.__at), start = value(0);
    cursor.style.left = `${root.__at}%`;
    cursor.hidden = now === null;
    cursor.style.setProperty("--high", now === null ? 0 : within(high(now), 2));
    slider.value = root.__at;
    const sentence = `${data.done[0]} ${root.__at} % ${data.done[1]}` + (now === null ? "" : ` ${data.name}: ${told(start)} → ${told(now)}.`);
    words.textContent = sentence;
    canvas.setAttribute("aria-label", sentence);
    slider.setAttribute("aria-valuetext", sentence);
    paint();
  };
  const send = () => setTriggerValue("share", (root.__asked = root.__at));
  slider.oninput = () => { root.__at = Number(slider.value); say_it(); };
  slider.onchange = send;
  const drag = (event) => {
    const box = chart.getBoundingClientRect();
    root.__at = within(Math.round((event.clientX - box.left) / box.width * LAST), LAST + 1);
    root.__say();
  };
  root.__say = say_it;
  root.__send = send;
  chart.onpointerdown = (event) => {
    if (event.button) return;
    chart.setPointerCapture(event.pointerId);
    root.__drags = true;
    drag(event);
  };
  chart.onpointermove = (event) => { if (root.__drags) drag(event); };
  chart.onpointerup = chart.onpointercancel = () => {
    if (!root.__drags) return;
    root.__drags = false;
    root.__send();
  };

  legend.replaceChildren();
  for (const line of data.lines) {
    const on = line === chosen, button = element("button", `${line.plain ? "plain" : ""}${on ? " on" : ""}`, legend);
    button.type = "button";
    button.setAttribute("aria-pressed", on);
    const sign = element("em", line.item === "edges" ? "dotted" : "", button);
    if (line.colour) sign.style.borderColor = line.colour;
    button.append(line.note ? `${line.title} ${line.note}` : line.title);
    button.onclick = () => setTriggerValue("chosen", line.item);
  }
  say_it();
  enlargeable(picture, data.label);
}
