// A photo to draw on: what is drawn hides the photo. data: {photo, size: [height, width], colour: CSS colour, mask?: base64, inverse, label}
// The mask has the pixels of what the network sees, one bit each in reading order, packed into bytes. While drawing and after, it is sent:
// trigger "mask" (base64). The one in `data` is shown when the component comes onto the page.

const PAUSE = 250;  // milliseconds between two masks sent while drawing

// Edges of strokes are drawn soft; a pixel is hidden or not. Returns the bits.
function harden(pen, width, height, [red, green, blue]) {
  const image = pen.getImageData(0, 0, width, height), bytes = new Uint8Array(Math.ceil(width * height / 8));
  for (let n = 0; n < width * height; n++) {
    const hidden = image.data[4 * n + 3] >= 128;
    image.data.set([red, green, blue, hidden ? 255 : 0], 4 * n);
    if (hidden) bytes[n >> 3] |= 128 >> (n & 7);
  }
  pen.putImageData(image, 0, 0);
  return bytes;
}

const packed = (bytes) => { let text = ""; for (const byte of bytes) text += String.fromCharCode(byte); return btoa(text); };

function unpack(pen, width, height, base64, [red, green, blue]) {
  const bytes = unpacked(base64), image = pen.createImageData(width, height);
  for (let n = 0; n < width * height; n++) if (bytes[n >> 3] & (128 >> (n & 7))) image.data.set([red, green, blue, 255], 4 * n);
  pen.putImageData(image, 0, 0);
}

function build(root) {
  const picture = element("div", "picture", root);
  element("img", "", picture);
  element("canvas", "", picture);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("preserveAspectRatio", "none");
  picture.appendChild(svg);
  svg.appendChild(document.createElementNS(SVG, "circle"));
  const tools = element("div", "tools", root);
  const label = element("label", "", tools, "Brush");
  Object.assign(element("input", "brush", label), { type: "range", min: 1, ariaLabel: "Width of the brush in pixels" });
  for (const name of ["Draw", "Erase", "Fill", "Invert", "Clear"]) element("button", name.toLowerCase(), tools, name).type = "button";
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".root");
  if (!data) return;
  const [height, width] = data.size, colour = data.colour;
  const fresh = root.__size !== `${width} ${height}`;
  if (!root.firstChild) build(root);
  const picture = root.querySelector(".picture"), canvas = root.querySelector("canvas"), brush = root.querySelector(".brush");
  const photo = picture.querySelector("img"), svg = picture.querySelector("svg"), circle = svg.querySelector("circle");
  if (fresh) {
    root.__size = `${width} ${height}`;
    Object.assign(canvas, { width, height });
    Object.assign(brush, { max: Math.max(2, Math.round(Math.min(width, height) / 3)), step: 1 });
    brush.value = Math.max(2, Math.round(Math.min(width, height) / 8));
    root.__erasing = false;
  }
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  if (fresh && data.mask) unpack(pen, width, height, data.mask, colour);
  if (photo.getAttribute("src") !== data.photo) photo.src = data.photo;
  photo.alt = data.label;
  photo.draggable = false;
  photo.className = canvas.className = width < 64 ? "coarse" : "";
  canvas.classList.toggle("kept", data.inverse);
  picture.style.aspectRatio = `${width} / ${height}`;
  picture.setAttribute("aria-label", data.label);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  harden(pen, width, height, colour);
  enlargeable(root, data.label);

  // Kept on the element: an answer that arrives while the pen is down runs this function again, and must not end the stroke.
  root.__send = () => {
    clearTimeout(root.__timer);
    root.__timer = null;
    if (root.isConnected) setTriggerValue("mask", packed(harden(pen, width, height, colour)));
  };
  const send = () => root.__send();
  const soon = () => { root.__timer ??= setTimeout(send, PAUSE); };
  const choose = () => {
    root.querySelector(".draw").classList.toggle("on", !root.__erasing);
    root.querySelector(".erase").classList.toggle("on", root.__erasing);
    root.querySelector(".draw").ariaPressed = String(!root.__erasing);
    root.querySelector(".erase").ariaPressed = String(root.__erasing);
  };
  choose();
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * width, (event.clientY - box.top) / box.height * height];
  };
  const stroke = (to) => {
    pen.globalCompositeOperation = root.__erasing ? "destination-out" : "source-over";
    Object.assign(pen, { lineWidth: Number(brush.value), lineCap: "round", lineJoin: "round", strokeStyle: `rgb(${colour.join(" ")})` });
    pen.beginPath();
    pen.moveTo(...root.__last);
    pen.lineTo(to[0] + 0.01, to[1]);
    pen.stroke();
    pen.globalCompositeOperation = "source-over";
    root.__last = to;
  };
  const show = (event) => {
    const [x, y] = at(event);
    for (const [key, value] of Object.entries({ cx: x, cy: y, r: brush.value / 2 })) circle.setAttribute(key, value);
    circle.style.display = "block";
  };
  canvas.onpointerdown = (event) => { canvas.setPointerCapture(event.pointerId); root.__last = at(event); stroke(root.__last); soon(); event.preventDefault(); };
  canvas.onpointermove = (event) => { show(event); if (root.__last) { stroke(at(event)); soon(); } };
  canvas.onpointerup = canvas.onpointercancel = () => { if (root.__last) { root.__last = null; send(); } };
  canvas.onpointerleave = () => { circle.style.display = "none"; };
  const all = (bit) => {
    const image = pen.getImageData(0, 0, width, height);
    for (let n = 3; n < image.data.length; n += 4) image.data[n] = bit(image.data[n] >= 128) ? 255 : 0;
    pen.putImageData(image, 0, 0);
    send();
  };
  const press = { draw: () => { root.__erasing = false; choose(); }, erase: () => { root.__erasing = true; choose(); },
    fill: () => all(() => true), invert: () => all((hidden) => !hidden), clear: () => all(() => false) };
  for (const [name, action] of Object.entries(press)) root.querySelector(`.${name}`).onclick = action;
}
