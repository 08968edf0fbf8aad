// What the scripts of this folder share; it stands before each of them.

const SVG = "http://www.w3.org/2000/svg";
const ARROWS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };  // rows, columns
const PAUSE_BEFORE_SAYING = 400;  // milliseconds

// An element with that text (never HTML), put into its parent.
function element(name, className, parent, content) {
  const made = document.createElement(name);
  made.className = className;
  if (content !== undefined) made.textContent = content;
  parent.appendChild(made);
  return made;
}

function rectangle(className, parent, [top, left, bottom, right], inset = 0) {
  const made = document.createElementNS(SVG, "rect");
  made.setAttribute("class", className);
  const width = Math.max(right - left - 2 * inset, 0.01), height = Math.max(bottom - top - 2 * inset, 0.01);
  const place = { x: left + inset, y: top + inset, width, height };
  for (const [key, value] of Object.entries(place)) made.setAttribute(key, value);
  parent.appendChild(made);
  return made;
}

const unpacked = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
const floats = (base64) => new Float32Array(unpacked(base64).buffer);
const within = (value, count) => Math.min(Math.max(value, 0), count - 1);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const short = (value) => {
  const size = Math.abs(value);
  if (!Number.isFinite(value)) return String(value);
  if (size >= 1e5 || (size !== 0 && size < 1e-3)) return value.toExponential(2);
  return size >= 100 ? value.toFixed(0) : value.toPrecision(3);
};

// Tells people who hear the page what their keys came to: of many keys in a row the last. Pointing says nothing.
function say(root, sentence) {
  let said = root.querySelector(".said");
  if (!said) {
    said = element("div", "said", root);
    said.setAttribute("role", "status");
    said.style.cssText = "position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%)";
  }
  clearTimeout(root.__saying);
  root.__saying = setTimeout(() => { said.textContent = sentence; }, PAUSE_BEFORE_SAYING);
}

