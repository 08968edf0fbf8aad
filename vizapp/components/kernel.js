// A kernel that slides over the numbers it reads and fills its map. data: {photo: address of the input as a picture, given: base64 float32 [channels, rows,
// columns], size: its shape, kernel: base64 float32 [channels, rows, columns], reach: its rows and columns, dilation, stride, bias, map: base64
// float32 of the cells, cells: [rows, columns], first: [row, column] of the first, at: [row, column] to begin with, names: of the channels, outside: places of
// `given` that are padding, label}. Arrow keys move it; the button plays, unless the person's system asks for less motion. Nothing is sent.

const EACH = 220;  // milliseconds of a cell while it plays
const STOPS = [[33, 102, 172], [146, 197, 222], [255, 255, 255], [244, 165, 130], [178, 24, 43]];  // ColorBrewer's RdBu

// The colour of a signed number; `limit` has full colour.
function signedColour(value, limit) {
  const place = (Math.max(-1, Math.min(1, value / (limit || 1))) + 1) * 2, low = Math.min(Math.floor(place), 3), part = place - low;
  return STOPS[low].map((start, one) => Math.round(start + part * (STOPS[low + 1][one] - start)));
}

const largest = (numbers) => numbers.reduce((most, one) => Math.max(most, Math.abs(one)), 0);

// Draws numbers into a canvas with a pixel each; `hidden(place)`: grey.
function fill(canvas, numbers, limit, hidden = () => false) {
  const context = canvas.getContext("2d"), picture = context.createImageData(canvas.width, canvas.height);
  numbers.forEach((value, place) => {
    const grey = hidden(place), colour = grey ? [128, 128, 128] : signedColour(value, limit);
    picture.data.set([...colour, grey ? 90 : 255], 4 * place);
  });
  context.putImageData(picture, 0, 0);
}

export default function (component) {
  const { data, parentElement } = component;
  const root = parentElement.querySelector(".root");
  clearInterval(root.__playing);
  const held = root.querySelector(".grid:focus") ? ".grid" : root.querySelector("button:focus") ? `button[data-part="${root.querySelector("button:focus").dataset.part}"]` : null;
  if (!data) return;
  const [channels, tall, wide] = data.size, [kh, kw] = data.reach, [rows, columns] = data.cells, [dy, dx] = data.dilation, [sy, sx] = data.stride;
  const given = floats(data.given), kernel = floats(data.kernel), map = floats(data.map), outside = new Set(data.outside), area = kh * kw;
  const asked = JSON.stringify([data.kernel, data.map, data.at]);
  if (root.__asked !== asked) Object.assign(root, { __asked: asked, __at: data.at[0] * columns + data.at[1], __plays: false });
  root.replaceChildren();

  const bar = element("div", "bar", root), still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  const button = (part, text, label, act) => {
    const made = element("button", "", bar, text);
    Object.assign(made, { type: "button", ariaLabel: label, title: label, onclick: act });
    made.dataset.part = part;
    return made;
  };
  const player = still ? null : button("play", "", "Play", () => play(!root.__plays));
  button("back", "‹", "One cell back", () => go(root.__at - 1));
  button("on", "›", "One cell on", () => go(root.__at + 1));
  const slider = element("input", "", bar), told = element("output", "", bar);
  Object.assign(slider, { type: "range", min: 0, max: rows * columns - 1, step: 1, ariaLabel: "Cell of the map" });
  slider.oninput = () => go(Number(slider.value));

  const stage = element("div", "stage", root);
  const pane = (title, width, height) => {
    const made = element("figure", "", stage);
    element("figcaption", "", made, title);
    const box = element("div", "grid", made), marks = document.createElementNS(SVG, "svg");
    box.style.aspectRatio = `${width} / ${height}`;
    marks.setAttribute("viewBox", `0 0 ${width} ${height}`);
    marks.setAttribute("preserveAspectRatio", "none");
    return { box, marks };
  };
  const canvasIn = (parent, width, height) => Object.assign(element("canvas", "", parent), { width, height });
  const input = pane("What it reads", wide, tall), image = element("img", "", input.box);
  Object.assign(image, { src: data.photo, alt: "" });
  input.box.append(input.marks);
  const middle = element("div", "products", stage);
  element("span", "head", middle, "Patch × kernel = products");
  const lines = data.names.map((name) => {
    const line = element("div", "line", middle);
    element("span", "name", line, name);
    const canvases = ["×", "=", ""].map((sign) => {
      const made = canvasIn(line, kw, kh);
      made.style.aspectRatio = `${kw} / ${kh}`;
      if (sign) element("em", "", line, sign);
      return made;
    });
    return { canvases, sum: element("b", "", line) };
  });
  const equation = element("div", "equation", middle);
  const output = pane("The map, so far", columns, rows), drawn = canvasIn(output.box, columns, rows);
  output.box.append(output.marks);

  const limits = [largest(given), largest(kernel), largest(given) * largest(kernel) / 3, largest(map)];
  lines.forEach(({ canvases }, channel) => fill(canvases[1], kernel.slice(channel * area, (channel + 1) * area), limits[1]));

  const show = () => {
    const at = root.__at, row = Math.floor(at / columns), column = at % columns, top = row * sy, left = column * sx, sums = [];
    lines.forEach(({ canvases, sum }, channel) => {
      const patch = [], products = [], padding = [];
      for (let u = 0; u < kh; u++) for (let v = 0; v < kw; v++) {
        const place = (top + u * dy) * wide + left + v * dx;
        patch.push(given[channel * tall * wide + place]);
        padding.push(outside.has(place));
        products.push(patch.at(-1) * kernel[channel * area + u * kw + v]);
      }
      fill(canvases[0], patch, limits[0], (place) => padding[place]);
      fill(canvases[2], products, limits[2], (place) => padding[place]);
      sums.push(products.reduce((all, one) => all + one, 0));
      sum.textContent = short(sums.at(-1));
    });
    const total = sums.reduce((all, one) => all + one, data.bias), added = (value) => `${value < 0 ? "−" : "+"} ${short(Math.abs(value))}`;
    const terms = [short(sums[0]), ...sums.slice(1).map(added)].join(" ") + (data.bias ? ` ${added(data.bias)} (bias)` : "");
    equation.replaceChildren();
    element("span", "", equation, `${terms} = `);
    element("b", "", equation, short(total));
    fill(drawn, map, limits[3], (place) => place > at);
    for (const { marks } of [input, output]) marks.replaceChildren();
    const under = [top, left, top + (kh - 1) * dy + 1, left + (kw - 1) * dx + 1];
    for (const name of ["under", "field"]) rectangle(name, input.marks, under), rectangle(name, output.marks, [row, column, row + 1, column + 1]);
    slider.value = at;
    told.textContent = `cell ${data.first[0] + row},${data.first[1] + column}: ${short(map[at])}`;
    slider.setAttribute("aria-valuetext", told.textContent);
  };
  const move = (at) => {
    root.__at = (at + rows * columns) % (rows * columns);
    show();
  };
  const play = (on) => {
    clearInterval(root.__playing);
    root.__plays = on;
    if (!player) return;
    player.textContent = on ? "❚❚" : "▶";
    player.ariaLabel = player.title = on ? "Pause" : "Play";
    if (on) root.__playing = setInterval(() => (root.isConnected ? move(root.__at + 1) : clearInterval(root.__playing)), EACH);
  };
  const go = (at) => { play(false); move(at); };
  output.box.onclick = (event) => {
    const box = output.box.getBoundingClientRect();
    go(within(Math.floor((event.clientY - box.top) / box.height * rows), rows) * columns + within(Math.floor((event.clientX - box.left) / box.width * columns), columns));
  };
  walk(output.box, root, `${data.label}: ${rows} by ${columns} cells`, {
    start: () => [Math.floor(root.__at / columns), root.__at % columns],
    next: (cell, step) => cell.map((place, axis) => within(place + step[axis], data.cells[axis])),
    show: (cell) => { if (cell) go(cell[0] * columns + cell[1]); },
    words: () => `${told.textContent}; ${equation.textContent}`,
    choose: null,
  });
  show();
  play(Boolean(root.__plays) && !still);
  if (held) (held === ".grid" ? output.box : root.querySelector(held))?.focus();
  enlargeable(root, data.label);
  return () => clearInterval(root.__playing);
}
