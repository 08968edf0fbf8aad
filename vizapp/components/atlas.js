// Photos as points in the plane. data: {key, points: base64 float32 of x and y in 0..1, y upward, colours: [css], colour: base64 float32, the
// number of each point's colour, names: [text] a legend or null, ends?: [text, text] of a ramp of the colours, classes: [text], class: base64
// float32 (-1: none), photo?: [x, y] the photo at hand, chosen: [point] framed, thumbs?: {items: [point], sprite, tile: [height, width],
// columns}, label}
// The wheel and dragging move the view. Triggers: "chosen", the point that was clicked; "lasso", the points inside of a drawn line; "seen",
// the points in sight when they are few enough for thumbnails.

const HEIGHT = 460, EDGE = 26, FEW = 48, PAUSE_OF_VIEW = 350, REACH = 9, SIDE = 44, MANY = 6000;  // pixels, points, milliseconds

const bytesOf = (css) => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  pen.fillStyle = css;
  pen.fillRect(0, 0, 1, 1);
  const [r, g, b] = pen.getImageData(0, 0, 1, 1).data;
  return (255 << 24) | (b << 16) | (g << 8) | r;
};

function inside(polygon, x, y) {
  let odd = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [ax, ay] = polygon[i], [bx, by] = polygon[j];
    if (ay > y !== by > y && x < (bx - ax) * (y - ay) / (by - ay) + ax) odd = !odd;
  }
  return odd;
}

function build(root) {
  const bar = element("div", "bar", root);
  const buttons = {};
  for (const [name, text, title] of [["lasso", "Lasso", "Draw a line around points (or drag with Shift)"], ["more", "+", "Closer (key +)"],
    ["less", "−", "Farther (key −)"], ["fit", "All", "Show all points (key 0)"]]) {
    buttons[name] = element("button", name, bar, text);
    Object.assign(buttons[name], { type: "button", title });
  }
  const tip = element("div", "tip", bar);
  const view = element("div", "view", root);
  const canvas = element("canvas", "", view);
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  const legend = element("div", "legend", root);
  root.__atlas = { buttons, tip, view, canvas, legend };
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".root");
  if (!data) return;
  if (!root.__atlas) build(root);
  const { buttons, tip, view, canvas, legend } = root.__atlas;
  canvas.setAttribute("aria-label", `${data.label}; arrow keys move the view, plus and minus change its scale, 0 shows all`);
  const points = floats(data.points), colour = floats(data.colour), class_ = floats(data.class), count = points.length / 2;
  const packed = data.colours.map(bytesOf), chosen = new Set(data.chosen);
  if (root.__key !== data.key) Object.assign(root, { __key: data.key, __view: null, __told: "", __only: null });
  const size = () => [root.__width, root.__height || HEIGHT];
  const measure = () => { root.__width = Math.max(view.clientWidth, 120); };  // asked once: it makes the browser lay out the page
  const spans = [0, 1].map((axis) => {
    let low = data.photo ? data.photo[axis] : Infinity, high = data.photo ? data.photo[axis] : -Infinity;
    for (let n = axis; n < points.length; n += 2) [low, high] = [Math.min(low, points[n]), Math.max(high, points[n])];
    return Math.max(high - low, 1e-6);
  });
  const scaleOfAll = () => Math.min(...size().map((side, axis) => (side - 2 * EDGE) / spans[axis]));
  const all = () => ({ scale: scaleOfAll(), x: 0.5, y: 0.5 });  // pixels per unit, and the middle
  const state = () => (root.__view ??= all());
  const xs = new Float32Array(count), ys = new Float32Array(count), across = (n) => xs[n], down = (n) => ys[n];
  const place = () => {
    const { scale, x, y } = state(), [width, height] = size();
    for (let n = 0; n < count; n++) {
      xs[n] = (points[2 * n] - x) * scale + width / 2;
      ys[n] = (y - points[2 * n + 1]) * scale + height / 2;
    }
  };

  let hovered = -1, drag = null, alive = true, sight = count;
  const inSight = () => {
    const [width, height] = size(), found = [];
    for (let n = 0; n < count; n++) if (xs[n] >= 0 && ys[n] >= 0 && xs[n] < width && ys[n] < height) found.push(n);
    return found;
  };
  const dim = (n) => root.__only !== null && root.__only !== colour[n];

  const paintMany = (pen, seen, density) => {  // pixel by pixel: a call for each of 50,000 points takes too long
    const width = canvas.width, height = canvas.height, image = pen.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer), half = Math.round(density);
    for (const pass of [true, false]) for (const n of seen) {
      if (dim(n) !== pass) continue;
      const x = Math.round(across(n) * density), y = Math.round(down(n) * density);
      const value = pass ? (packed[colour[n]] & 0xffffff) | (40 << 24) : packed[colour[n]];
      for (let v = Math.max(y - half, 0); v <= Math.min(y + half, height - 1); v++)
        for (let u = Math.max(x - half, 0); u <= Math.min(x + half, width - 1); u++) pixels[v * width + u] = value;
    }
    pen.putImageData(image, 0, 0);
  };
  const paintFew = (pen, seen) => {
    const radius = seen.length < 400 ? 5 : 3.2;
    for (const pass of [true, false]) for (const n of seen) {
      if (dim(n) !== pass) continue;
      pen.globalAlpha = pass ? 0.15 : 0.9;
      pen.fillStyle = data.colours[colour[n]];
      pen.beginPath();
      pen.arc(across(n), down(n), radius, 0, 7);
      pen.fill();
    }
    pen.globalAlpha = 1;
  };
  const ring = (pen, x, y, radius, inner, thick = 2) => {
    for (const [width, style] of [[2 * thick, "background"], [thick, inner]]) {
      pen.lineWidth = width;
      pen.strokeStyle = getComputedStyle(root).getPropertyValue(`--st-${style}-color`);
      pen.beginPath();
      pen.arc(x, y, radius, 0, 7);
      pen.stroke();
    }
  };
  const paintThumbs = (pen) => {
    const { items, tile: [height, width], columns } = data.thumbs;
    items.forEach((n, place) => {
      const x = across(n) - SIDE / 2, y = down(n) - SIDE / 2;
      pen.drawImage(root.__sprite.image, place % columns * width, Math.floor(place / columns) * height, width, height, x, y, SIDE, SIDE);
      pen.lineWidth = 2;
      pen.strokeStyle = data.colours[colour[n]];
      pen.strokeRect(x, y, SIDE, SIDE);
    });
  };
  const paint = () => {
    if (!alive) return;
    place();
    const [width, height] = size(), density = Math.min(window.devicePixelRatio || 1, 2);
    canvas.style.height = `${height}px`;
    if (canvas.width !== Math.round(width * density) || canvas.height !== Math.round(height * density)) {
      canvas.width = Math.round(width * density);
      canvas.height = Math.round(height * density);
    }
    const pen = canvas.getContext("2d"), seen = inSight();
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    if (seen.length > MANY) paintMany(pen, seen, density);
    pen.scale(density, density);
    if (seen.length <= MANY) paintFew(pen, seen);
    if (data.thumbs && root.__sprite?.image.complete && seen.length <= FEW) paintThumbs(pen);
    for (const n of chosen) ring(pen, across(n), down(n), chosen.size > FEW ? 5 : 7, "text", chosen.size > FEW ? 1 : 2);
    if (hovered >= 0) ring(pen, across(hovered), down(hovered), 9, "primary");
    if (data.photo) {
      const at = state(), x = (data.photo[0] - at.x) * at.scale + width / 2, y = (at.y - data.photo[1]) * at.scale + height / 2;
      ring(pen, x, y, 11, "primary");
      ring(pen, x, y, 2, "primary");
    }
    if (drag?.line) {
      pen.lineWidth = 1.5;
      pen.strokeStyle = getComputedStyle(root).getPropertyValue("--st-primary-color");
      pen.setLineDash([5, 3]);
      pen.beginPath();
      drag.line.forEach(([x, y]) => pen.lineTo(x, y));
      pen.stroke();
      pen.setLineDash([]);
    }
    sight = seen.length;
    clearTimeout(root.__timer);
    if (seen.length && seen.length <= FEW) root.__timer = setTimeout(() => {
      const told = seen.join();
      if (!alive || told === root.__told) return;
      root.__told = told;
      setTriggerValue("seen", seen);
    }, PAUSE_OF_VIEW);
  };
  let asked = false;
  const repaint = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; paint(); });
  };
  const tell = () => {
    tip.replaceChildren();
    if (hovered < 0) { element("span", "", tip, `${count.toLocaleString("en")} photos`); return; }
    if (class_[hovered] >= 0) element("b", "", tip, data.classes[class_[hovered]]);
    if (data.names && data.names[colour[hovered]] !== data.classes[class_[hovered]]) element("span", "", tip, data.names[colour[hovered]]);
  };
  const filled = (to) => {  // the view, moved until one of the points is in it
    const half = size().map((side) => (side / 2 - EDGE) / to.scale);
    let least = Infinity, shift = [0, 0];
    for (let n = 0; n < count && least; n++) {
      const away = [points[2 * n] - to.x, points[2 * n + 1] - to.y].map((d, axis) => d - Math.min(Math.max(d, -half[axis]), half[axis]));
      if (Math.hypot(...away) < least) [least, shift] = [Math.hypot(...away), away];
    }
    return { ...to, x: to.x + shift[0], y: to.y + shift[1] };
  };
  const zoom = (factor, x = size()[0] / 2, y = size()[1] / 2) => {
    const now = state(), scale = Math.min(Math.max(now.scale * factor, scaleOfAll() / 2), scaleOfAll() * 1e4);
    const u = now.x + (x - size()[0] / 2) / now.scale, v = now.y - (y - size()[1] / 2) / now.scale;
    root.__view = filled({ scale, x: u - (x - size()[0] / 2) / scale, y: v + (y - size()[1] / 2) / scale });
    repaint();
  };
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const nearestTo = (x, y) => {
    let best = -1, least = (data.thumbs && sight <= FEW ? SIDE / 2 : REACH) ** 2;
    for (let n = 0; n < count; n++) {
      const apart = (across(n) - x) ** 2 + (down(n) - y) ** 2;
      if (apart < least) [best, least] = [n, apart];
    }
    return best;
  };
  const hover = (n) => {
    if (n === hovered) return;
    hovered = n;
    canvas.style.cursor = n >= 0 ? "pointer" : root.__lasso ? "crosshair" : "grab";
    tell();
    repaint();
  };
  canvas.onwheel = (event) => { event.preventDefault(); zoom(1.0016 ** -event.deltaY, ...at(event)); };
  canvas.onpointerdown = (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    const start = at(event);
    drag = { start, from: { ...state() }, moved: false, line: root.__lasso || event.shiftKey ? [start] : null };
  };
  canvas.onpointermove = (event) => {
    const [x, y] = at(event);
    if (!drag) { hover(nearestTo(x, y)); return; }
    drag.moved ||= Math.hypot(x - drag.start[0], y - drag.start[1]) > 4;
    if (drag.line) drag.line.push([x, y]);
    else if (drag.moved) root.__view = filled({ ...drag.from, x: drag.from.x - (x - drag.start[0]) / drag.from.scale, y: drag.from.y + (y - drag.start[1]) / drag.from.scale });
    repaint();
  };
  canvas.onpointerup = canvas.onpointercancel = (event) => {
    const ended = drag;
    drag = null;
    if (!ended || event.type === "pointercancel") { repaint(); return; }
    if (!ended.moved) {
      const n = nearestTo(...at(event));
      if (n >= 0) setTriggerValue("chosen", n);
    } else if (ended.line) {
      const found = [];
      for (let n = 0; n < count; n++) if (inside(ended.line, across(n), down(n))) found.push(n);
      lassoing(false);
      setTriggerValue("lasso", found);
    }
    repaint();
  };
  canvas.onpointerleave = () => { if (!drag) hover(-1); };
  canvas.onkeydown = (event) => {
    const step = ARROWS[event.key];
    if (step) root.__view = filled({ ...state(), x: state().x + 40 * step[1] / state().scale, y: state().y - 40 * step[0] / state().scale });
    else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "0") root.__view = all();
    else return;
    event.preventDefault();
    repaint();
  };
  const lassoing = (on) => {
    root.__lasso = on;
    buttons.lasso.classList.toggle("on", on);
    canvas.style.cursor = on ? "crosshair" : "grab";
  };
  buttons.lasso.onclick = () => lassoing(!root.__lasso);
  buttons.more.onclick = () => zoom(1.6);
  buttons.less.onclick = () => zoom(1 / 1.6);
  buttons.fit.onclick = () => { root.__view = all(); repaint(); };
  lassoing(!!root.__lasso);

  legend.replaceChildren();
  if (data.ends) {
    const ramp = element("div", "ramp", legend);
    element("span", "", ramp, data.ends[0]);
    element("i", "", ramp).style.background = `linear-gradient(to right, ${data.colours.join()})`;
    element("span", "", ramp, data.ends[1]);
  } else if (data.names) data.names.forEach((name, number) => {
    const key = element("button", root.__only === number ? "key on" : "key", legend);
    key.type = "button";
    element("i", "", key).style.background = data.colours[number];
    element("span", "", key, name);
    key.onclick = () => {
      root.__only = root.__only === number ? null : number;
      legend.querySelectorAll(".key").forEach((one, place) => one.classList.toggle("on", root.__only === place));
      repaint();
    };
  });
  if (data.thumbs && root.__sprite?.source !== data.thumbs.sprite) {
    const image = new Image();
    image.src = data.thumbs.sprite;
    root.__sprite = { source: data.thumbs.sprite, image };
    image.decode().then(repaint, () => {});
  }
  enlargeable(root, data.label, { resize: (height) => { root.__height = height && height - 90; root.__view = null; repaint(); } });
  tell();
  measure();
  paint();
  root.__end?.();
  const observer = new ResizeObserver(() => { measure(); repaint(); });
  observer.observe(view);
  return (root.__end = () => { alive = false; observer.disconnect(); });
}
