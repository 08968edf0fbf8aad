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

// A small button that opens the card of a unit. The keys reach the card by Enter on what is chosen already.
function cardButton(parent, open) {
  const made = element("button", "open", parent), icon = document.createElementNS(SVG, "svg"), lines = document.createElementNS(SVG, "path");
  Object.assign(made, { type: "button", tabIndex: -1, title: "Open the card of this unit", onclick: open, ariaLabel: "Open the card of this unit" });
  made.onmousedown = (event) => event.preventDefault();  // the focus stays: a sheet that loses it hides the button
  icon.setAttribute("viewBox", "0 0 16 16");
  lines.setAttribute("d", "M1.5 3h13v10h-13z M4 6h3.5v4H4z M9.5 6.5h3 M9.5 9.5h3");
  icon.append(lines);
  made.append(icon);
}

// Gives the focus back to what opened a card when the card is closed, until somebody presses or clicks anything. `target()`: the element,
// which the page may draw again, and its component, which the page may mount again.
function returnFocus(target) {
  const opener = target(), keyed = opener.getRootNode().host?.closest('[class*="st-key-"]');
  const place = keyed && "." + CSS.escape([...keyed.classList].find((name) => name.startsWith("st-key-")));
  const like = `.${opener.classList[0]}` + (opener.dataset.place ? `[data-place="${opener.dataset.place}"]` : "") + (opener.dataset.item ? `[data-item="${opener.dataset.item}"]` : "");
  const found = () => {
    const now = target();
    if (now?.isConnected || !place) return now;
    return [...document.querySelectorAll(`${place}, ${place} *`)].map((one) => one.shadowRoot?.querySelector(like)).find(Boolean);
  };
  let seen = false, looked = 0;
  const isOpen = () => document.querySelector("[role=dialog]") !== null;
  const end = () => {
    clearInterval(timer);
    for (const event of ["pointerdown", "keydown"]) window.removeEventListener(event, act, true);
  };
  const act = () => { if (seen && !isOpen()) end(); };
  const timer = setInterval(() => {
    looked += 1;
    if (isOpen()) [seen, looked] = [true, 0];
    else if (seen && document.activeElement === document.body) found()?.focus();
    if (looked > (seen ? 100 : 150)) end();
  }, 200);
  for (const event of ["pointerdown", "keydown"]) window.addEventListener(event, act, true);
}

const unpacked = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
const floats = (base64) => new Float32Array(unpacked(base64).buffer);
const within = (value, count) => Math.min(Math.max(value, 0), count - 1);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const short = (value) => {
  const size = Math.abs(value);
  if (!Number.isFinite(value)) return String(value);
  if (value < 0) return `−${short(size)}`;
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

// Lets the arrow keys walk over the parts of an element, and Enter or Space choose the one they are at; `choose` null: nothing to choose.
// `start()` is where the keys begin, `next(place, step)` where a step leads, `show(place)` marks a place (null: none), `words()` says it, and
// `does` what Enter does.
// The place is kept on the root element, because the page may run again in between.
function walk(box, root, label, { start, next, show, words, choose, does }) {
  box.tabIndex = 0;
  box.setAttribute("role", "application");
  box.setAttribute("aria-label", `${label}; arrow keys move${choose ? `, Enter ${does || "chooses"}` : ""}`);
  box.onblur = () => { root.__cursor = null; say(root, ""); show(null); };
  box.onkeydown = (event) => {
    const step = ARROWS[event.key];
    if (step) {
      root.__cursor = next(root.__cursor ?? start(), step);
      show(root.__cursor);
      say(root, words());
    } else if (choose && root.__cursor != null && (event.key === "Enter" || event.key === " ")) choose(root.__cursor);
    else return;
    event.preventDefault();
  };
}

// The pictures on the page that can be enlarged: what is enlarged, with its title, its button, `legend()` and `resize(height)`; see `present.js`.
const pictures = (window.__vizappPictures ??= new Map());
const NEVER = '[data-testid="stSidebar"], [data-testid="stPopoverBody"], .st-key-start_cards';  // there, pictures choose or open something
const CORNERS = "M6 2H2v4M10 2h4v4M6 14H2v-4M10 14h4v-4";

// Gives a picture a button that enlarges it. `legend()`: an element to show a copy of below it; `resize(height)`: where a width alone does
// not lay it out anew, called with the room (null: as before). Called again, it keeps the button.
function enlargeable(picture, title, { legend = () => null, resize = null } = {}) {
  if (picture.getRootNode().host?.closest(NEVER)) return;
  let button = picture.querySelector(":scope > .enlarge");
  if (!button) {
    button = element("button", "enlarge", picture);
    button.type = "button";
    const icon = button.appendChild(document.createElementNS(SVG, "svg"));
    icon.setAttribute("viewBox", "0 0 16 16");
    icon.appendChild(document.createElementNS(SVG, "path")).setAttribute("d", CORNERS);
    button.onclick = (event) => { event.stopPropagation(); window.__vizappEnlarge?.(picture); };
    picture.classList.add("holds");
  }
  button.title = "Enlarge";
  button.setAttribute("aria-label", `Enlarge: ${title}`);
  pictures.set(picture, { title, button, legend, resize });
}

// The legend that the page draws in the column of a component, if it does.
const beside = (host) => host?.closest('[data-testid="stColumn"], [data-testid="stMain"]')?.querySelector(".vz-keys, .vz-scale") ?? null;
