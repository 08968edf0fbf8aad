// The button that switches presentation mode, and the stage on which every picture of the page can be as large as the window.
// data: {on}. The button, and the key F, send the new state: trigger "present" (true or false). Esc leaves, too.
// An enlarged picture is the element of the page itself, moved to the browser's top layer: it is laid out anew for the window, so it is as
// sharp as its data, and pointing at it, its sliders and its redraws work as on the page. The stage lies below it, and tells title and legend.

const MARGIN = 16, WIDEST = 4096;  // pixels
const CHARTS = '[data-testid="stPlotlyChart"], [data-testid="stGraphVizChart"], [data-testid="stImage"]';  // pictures that Streamlit draws
const TYPED = "input:not([type=range]):not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable=true]";

// The pictures that are seen on the page, in reading order.
function shown() {
  for (const picture of pictures.keys()) if (!picture.isConnected) pictures.delete(picture);
  const seen = [...pictures.keys()].filter((picture) => picture.hasAttribute("data-enlarged") || picture.getClientRects().length);
  const outer = (picture) => picture.getRootNode().host ?? picture;
  return seen.sort((one, other) => {
    const [a, b] = outer(one) === outer(other) ? [one, other] : [outer(one), outer(other)];
    return a.compareDocumentPosition(b) & Node.DOCUMENT_POSITION_FOLLOWING ? -1 : 1;
  });
}

// The words that stand over a chart, as its title.
function titled(chart) {
  const above = [...document.querySelectorAll(".stMain :is(.vz-head, .vz-tile b, h1)")].filter((one) => one.compareDocumentPosition(chart) & Node.DOCUMENT_POSITION_FOLLOWING);
  return above.at(-1)?.textContent || "Chart";
}

// Charts are scaled as they are, because Streamlit alone lays them out: they are drawn in lines and letters, and stay sharp.
function noteCharts() {
  for (const chart of document.querySelectorAll(CHARTS)) if (!pictures.has(chart) && chart.closest(".stMain")) enlargeable(chart, titled(chart));
}

const box = (picture) => [picture.offsetWidth, picture.offsetHeight];

// Lays a picture out as large as the room, in its middle.
function fit(picture, [width, height]) {
  const { resize } = pictures.get(picture) || {}, style = picture.style;
  if (picture.matches(CHARTS)) {
    const [across, down] = box(picture), scale = Math.min(width / across, height / down);
    Object.assign(style, { transformOrigin: "0 0", transform: `scale(${scale})`, left: `${MARGIN + (width - scale * across) / 2}px`, top: `${MARGIN + (height - scale * down) / 2}px` });
    return;
  }
  style.width = `${width}px`;
  if (resize) resize(height);
  else {
    let low = 40, high = Math.min(width, WIDEST);
    for (let step = 0; step < 12; step++) {
      const middle = step ? (low + high) / 2 : high;
      style.width = `${middle}px`;
      if (picture.offsetHeight <= height) { low = middle; if (!step) break; } else high = middle;
    }
    style.width = `${Math.floor(low)}px`;
  }
  const [across, down] = box(picture);
  Object.assign(style, { left: `${MARGIN + (width - across) / 2}px`, top: `${MARGIN + Math.max(0, height - down) / 2}px` });
}

// A list of suggestions stays open after a choice, over what was found; without the focus, its box closes it.
function closeList(event) {
  const at = event.composedPath()[0], box = document.activeElement;
  if (!box?.closest(".stMultiSelect") || !(event.key === "Enter" ? box.value : at.closest?.("[role=option]"))) return;
  setTimeout(() => box.blur(), 50);  // the box takes the choice first
}

const STYLES = ["width", "left", "top", "transform", "transformOrigin"];

class Stage {
  constructor(root) {
    this.element = element("div", "stage", root);
    Object.assign(this.element, { popover: "manual", role: "dialog", ariaModal: "true" });
    this.bar = element("div", "bar", this.element);
    this.words = element("div", "words", this.bar);
    this.count = element("span", "count", this.bar);
    this.buttons = [["‹", "Previous picture", () => this.step(-1)], ["›", "Next picture", () => this.step(1)], ["Close", "Close", () => this.close()]]
      .map(([text, label, act]) => Object.assign(element("button", "", this.bar, text), { type: "button", onclick: act, ariaLabel: label, title: label }));
    this.current = null;
  }

  open(picture) {
    this.opener = picture;
    this.scrolled = document.querySelector('[data-testid="stMain"]')?.scrollTop;
    this.element.showPopover();
    this.show(picture);
    this.buttons[2].focus();
    this.watch = setInterval(() => this.check(), 300);
  }

  show(picture) {
    this.putBack();
    const { title, legend } = pictures.get(picture), all = shown();
    this.current = picture;
    this.title = title;
    this.words.replaceChildren();
    element("b", "", this.words, title);
    const page = document.querySelector(".vz-title h1")?.textContent;
    if (page) element("span", "", this.words, page);
    const told = legend()?.cloneNode(true);
    if (told) element("div", "legend", this.words).append(...told.childNodes);
    this.count.textContent = `${all.indexOf(picture) + 1} of ${all.length}`;
    this.buttons.slice(0, 2).forEach((button) => { button.hidden = all.length < 2; });
    this.element.ariaLabel = `${title}, enlarged`;
    this.styles = STYLES.map((name) => [name, picture.style[name]]);
    if (picture.matches(CHARTS)) Object.assign(picture.style, { width: `${picture.offsetWidth}px` });
    picture.setAttribute("data-enlarged", "");
    picture.popover = "manual";
    picture.showPopover();
    this.fit();
    say(this.element, `${title}, ${this.count.textContent}; left and right arrow keys show the others, Escape closes`);
  }

  fit() {
    fit(this.current, [window.innerWidth - 2 * MARGIN, window.innerHeight - this.bar.offsetHeight - 2 * MARGIN]);
  }

  putBack() {
    const picture = this.current;
    if (!picture) return;
    this.current = null;
    if (picture.matches(":popover-open")) picture.hidePopover();
    picture.removeAttribute("popover");
    picture.removeAttribute("data-enlarged");
    for (const [name, value] of this.styles) picture.style[name] = value;
    pictures.get(picture)?.resize?.(null);
  }

  step(by) {
    const all = shown(), at = all.indexOf(this.current);
    this.show(all[(at + by + all.length) % all.length]);
  }

  // A run of the page may have drawn the picture anew, or it may be gone.
  check() {
    if (this.current.isConnected) return;
    const again = shown().find((picture) => pictures.get(picture).title === this.title);
    if (again) this.show(again);
    else this.close();
  }

  close() {
    clearInterval(this.watch);
    const last = this.current;
    this.putBack();
    this.element.hidePopover();
    const main = document.querySelector('[data-testid="stMain"]');
    if (main) main.scrollTop = this.scrolled;
    (pictures.get(this.opener.isConnected ? this.opener : last)?.button)?.focus({ preventScroll: true });
  }

  key(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, PageDown: 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1 }[event.key];
    if (step) this.step(step);
    else if (event.key === "Escape") this.close();
    else if (event.key === "Tab") {
      const free = this.buttons.filter((button) => !button.hidden), at = free.indexOf(this.element.getRootNode().activeElement);
      free[(at + (event.shiftKey ? -1 : 1) + free.length) % free.length].focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".root");
  if (!data) return;
  const button = root.querySelector(".switch") || element("button", "switch", root);
  button.type = "button";
  button.textContent = data.on ? "Exit presentation" : "Present";
  button.title = data.on ? "Back to all choices and notes (keys: F or Esc)" : "Large letters and pictures alone, for a projector (key: F)";
  button.classList.toggle("on", data.on);
  button.onclick = () => setTriggerValue("present", !data.on);

  root.__end?.();  // of the call before this one; only the last is ended by the page
  const canEnlarge = "popover" in HTMLElement.prototype;
  const stage = (root.__stage ??= canEnlarge ? new Stage(root) : null);
  window.__vizappEnlarge = canEnlarge ? (picture) => { if (!stage.current) stage.open(picture); } : null;
  const keys = (event) => {
    if (stage?.current) return stage.key(event);
    const typed = event.composedPath()[0];
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || typed.matches?.(TYPED)) return;
    const leaves = data.on && event.key === "Escape" && !document.querySelector('[data-baseweb="popover"], [role="dialog"]:not(.stage)');
    if (event.key.toLowerCase() !== "f" && !leaves) return;
    if (leaves) event.preventDefault();  // a tour listens, too
    setTriggerValue("present", !data.on);
  };
  const resized = () => { if (stage?.current) stage.fit(); };
  window.addEventListener("keydown", keys, true);
  window.addEventListener("keydown", closeList, true);
  window.addEventListener("click", closeList, true);
  window.addEventListener("resize", resized);
  let timer = 0;
  const watcher = new MutationObserver(() => { timer ||= setTimeout(() => { timer = 0; noteCharts(); }, 200); });
  if (canEnlarge) {
    noteCharts();
    watcher.observe(document.querySelector(".stMain") || document.body, { childList: true, subtree: true });
  }
  return (root.__end = () => {
    window.removeEventListener("keydown", keys, true);
    window.removeEventListener("keydown", closeList, true);
    window.removeEventListener("click", closeList, true);
    window.removeEventListener("resize", resized);
    watcher.disconnect();
    clearTimeout(timer);
  });
}
