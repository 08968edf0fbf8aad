// Puts the components in the places of their still pictures. `STYLES` and `COMPONENTS`: by name, before this in the same script.
// Styles are made by scripts as objects, because the policy of the report forbids all others.

function sheet(text) {
  const made = new CSSStyleSheet();
  made.replaceSync(text);
  return made;
}

const BARE = sheet(".enlarge { display: none !important; }");  // nothing enlarges pictures here
const sheets = Object.fromEntries(Object.entries(STYLES).map(([name, text]) => [name, sheet(text)]));

function mount(view) {
  const name = view.dataset.component, data = JSON.parse(view.querySelector("script").textContent);
  const still = view.querySelector(".still"), host = document.createElement("div"), root = document.createElement("div");
  const parentElement = host.attachShadow({ mode: "open" });
  host.className = "alive";
  root.className = `root ${name}`;
  parentElement.adoptedStyleSheets = [sheets[name], BARE];
  parentElement.append(root);
  still.after(host);
  still.hidden = true;
  // A click on a cell marks it, and a click on the marked cell clears it; the app would answer other clicks, here nothing does.
  const setTriggerValue = (trigger, cell) => {
    if (trigger !== "cell") return;
    const marked = data.groups ? data.groups[0] : data;
    marked.cell = String(marked.cell) === String(cell) ? null : cell;
    draw();
  };
  const draw = () => COMPONENTS[name]({ data, parentElement, setTriggerValue });
  draw();
}

for (const view of document.querySelectorAll(".view")) mount(view);
window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((fold) => { fold.open = true; }));
