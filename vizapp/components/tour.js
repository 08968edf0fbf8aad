// The bar of a tour: title and text of the step, a dot per step, buttons and keys to move, play and leave.
// data: {title, steps: [{title, text, seconds}], step (from 1), on (whether it plays), always (whether it cannot be paused or left)}. Triggers: "step" (a number), "play" (true or false), "leave".
// The words change at once. The page is hidden until the app has drawn that of the new step, by an attribute that `assets/tour.css` reads.

const QUIET = 150, LATE = 1500;  // milliseconds without a run until a page is drawn; after those, what is drawn of it is shown
const MOVES = { ArrowRight: 1, PageDown: 1, ArrowLeft: -1, PageUp: -1 };  // what remote controls for talks send is among them
const BUSY = "input, textarea, select, [contenteditable=true], [role=slider], [role=radiogroup], [role=listbox], [role=combobox], [role=tablist]";
const SIGNS = ["pointerdown", "pointermove", "keydown", "wheel"];  // of somebody who looks at the page: it waits

function words(root, tag, className, parent) {
  return root.querySelector(`.${className}`) || element(tag, className, parent);
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".root"), page = document.documentElement;
  if (!data) return;
  root.__end?.(true);  // of the call before this one; only the last is ended by the page
  const bar = words(root, "section", "bar", root), last = data.steps.length;
  bar.ariaLabel = `Tour: ${data.title}`;
  const line = words(root, "div", "line", bar), told = words(root, "div", "words", bar), keys = words(root, "div", "keys", bar);
  line.firstChild || element("i", "", line);
  told.setAttribute("aria-live", "polite");
  const dots = words(root, "nav", "dots", keys), row = words(root, "div", "row", keys);
  dots.ariaLabel = "Steps";
  if (root.__step && root.__step !== data.step && !page.dataset.tour) [page.dataset.tour, root.__moved] = ["late", performance.now()];  // Back
  root.__step = data.step;
  let step = data.step, shown = !page.dataset.tour, waited = 0;  // seconds that the step has been seen

  const button = (place, text, label, act) => {
    const made = row.children[place] || element("button", "", row);
    Object.assign(made, { type: "button", textContent: text, ariaLabel: label, title: label, onclick: act });
    return made;
  };
  const draw = () => {
    const now = data.steps[step - 1];
    if (told.dataset.step !== `${step} ${now.title}`) {
      told.dataset.step = `${step} ${now.title}`;
      told.replaceChildren();
      element("h2", "", told, now.title);
      element("p", "", told, now.text);
      told.scrollTop = 0;
    }
    while (dots.children.length > last) dots.lastChild.remove();
    data.steps.forEach(({ title }, index) => {
      const dot = dots.children[index] || element("button", "", dots);
      dot.firstChild || element("i", "", dot);
      Object.assign(dot, { type: "button", ariaLabel: `Step ${index + 1} of ${last}: ${title}`, title, onclick: () => move(index + 1) });
      if (index === step - 1) dot.setAttribute("aria-current", "step");
      else dot.removeAttribute("aria-current");
    });
    button(0, "‹", "Previous step (left arrow key)", () => move(step - 1)).disabled = step === 1;
    button(1, "›", "Next step (right arrow key)", () => move(step + 1)).disabled = step === last;
    const play = button(2, data.on ? "Pause" : "Play", data.on ? "Pause: stay at this step" : "Play: move on by itself, and begin again at the end", () => setTriggerValue("play", !data.on));
    play.setAttribute("aria-pressed", data.on);
    play.classList.toggle("on", data.on);
    const out = button(3, "Leave", "Leave the tour and keep this page (Escape)", () => setTriggerValue("leave", true));
    for (const one of [play, out]) one.hidden = data.always;
    line.hidden = !data.on;
  };
  const move = (to) => {
    if (to < 1 || to > last) return;
    step = to;
    [shown, waited] = [false, 0];
    page.dataset.tour = "moves";
    draw();
    setTriggerValue("step", to);
    root.__moved = performance.now();
  };

  // A dialog leaves room for the bar and keeps it in reach: react-aria, which makes all else inert, knows this attribute.
  const place = document.querySelector('[data-testid="stBottom"]');
  const stay = () => {
    if (!place) return;
    if (!place.dataset.reactAriaTopLayer) place.dataset.reactAriaTopLayer = "true";
    place.closest("[inert]")?.removeAttribute("inert");  // by a dialog that was there first
    const height = `${place.offsetHeight}px`;
    if (page.style.getPropertyValue("--vz-tour") !== height) page.style.setProperty("--vz-tour", height);
  };

  // The page of the step has been drawn when no run of the script goes on, or follows at once.
  let quiet = performance.now(), before = quiet;
  const look = () => {
    stay();
    const now = performance.now(), runs = document.querySelector('[data-testid="stApp"]')?.dataset.testScriptState !== "notRunning";
    if (runs) quiet = now;
    if (!shown && step === data.step && now - (root.__moved || 0) > QUIET) {
      const main = document.querySelector('[data-testid="stMain"]');
      if (now - quiet > QUIET) {
        shown = true;
        delete page.dataset.tour;
      } else if (now - (root.__moved || 0) > LATE) page.dataset.tour = "late";
      if (main && page.dataset.tour !== "moves") main.scrollTop = 0;
    }
    if (data.on && shown && !document.hidden) waited += (now - before) / 1000;
    before = now;
    line.firstChild.style.width = `${Math.min(100, (100 * waited) / data.steps[step - 1].seconds)}%`;
    if (data.on && shown && waited >= data.steps[step - 1].seconds) move((step % last) + 1);
  };
  const wait = () => { waited = 0; };
  const free = (event) => !event.ctrlKey && !event.metaKey && !event.altKey && !event.defaultPrevented && !document.querySelector("[data-enlarged]");
  const leave = (event) => {
    if (event.key !== "Escape" || !free(event) || document.querySelector('[data-baseweb="popover"], [role="dialog"]:not(.stage)')) return;
    event.preventDefault();
    if (!data.always) setTriggerValue("leave", true);
  };
  const turn = (event) => {
    const to = { Home: 1, End: last }[event.key] ?? (event.key in MOVES ? step + MOVES[event.key] : 0);
    if (!to || event.shiftKey || !free(event) || event.composedPath().some((one) => one.matches?.(BUSY))) return;
    event.preventDefault();
    move(to);
  };
  draw();
  stay();
  const timer = setInterval(look, 50);
  window.addEventListener("keydown", leave, true);  // before what else listens to Escape
  window.addEventListener("keydown", turn);  // after the pictures, which walk with the arrow keys
  for (const sign of SIGNS) window.addEventListener(sign, wait, { passive: true, capture: true });
  return (root.__end = (again) => {
    clearInterval(timer);
    window.removeEventListener("keydown", leave, true);
    window.removeEventListener("keydown", turn);
    for (const sign of SIGNS) window.removeEventListener(sign, wait, { capture: true });
    if (again === true) return;
    delete page.dataset.tour;
    delete place?.dataset.reactAriaTopLayer;
  });
}
