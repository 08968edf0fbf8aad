// A list to search and choose from. data: {label, chosen: name, rows: [[name, group, task, parameters, megabytes]], groups: [title], tasks: [title],
// none: what the empty name is called}.
// Without a search the rows stand under the titles of their groups; with one the best hits come first: names equal to the search,
// beginning with it, with a word that begins with it, with it anywhere. A choice sends the name: trigger "chosen".

const MARGIN = 8, LEAST = 240, TALLEST = 520, WIDEST = 460, PAGE = 8;  // pixels, and rows of Page Up and Down
const WORD = /[\/_.\- ]/;

// How well a name matches a word of the search: 0 equal, 1 prefix, 2 a word in it begins so, 3 anywhere, 4 not.
function rank(name, word) {
  const bare = name.slice(name.indexOf("/") + 1);
  if (name === word || bare === word) return 0;
  if (name.startsWith(word) || bare.startsWith(word)) return 1;
  let best = 4;
  for (let at = name.indexOf(word); at >= 0; at = name.indexOf(word, at + 1)) best = Math.min(best, at > 0 && WORD.test(name[at - 1]) ? 2 : 3);
  return best;
}

// The rows that match every word of the search, best first; the order of the list decides among equals.
function hits(rows, search, task) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [];
  rows.forEach((row, index) => {
    if (task && row[2] !== task) return;
    const name = row[0].toLowerCase();
    const worst = Math.max(0, ...words.map((word) => rank(name, word)));
    if (worst < 4) found.push({ row, index, worst, length: name.length - name.indexOf("/") });
  });
  if (words.length) found.sort((a, b) => a.worst - b.worst || a.row[1] - b.row[1] || a.length - b.length || a.index - b.index);
  return found.map((one) => one.row);
}

// A name that may break after a slash and where words meet.
function breakable(parent, name) {
  parent.replaceChildren();
  for (const part of name.split(/(?<=[\/_.\-])/)) {
    parent.append(part);
    parent.append(document.createElement("wbr"));
  }
}

class Chooser {
  constructor(root) {
    this.root = root;
    const box = this.box = element("div", "box", root);
    this.shown = element("div", "shown", box);
    this.input = element("input", "", box);
    element("span", "arrow", box).setAttribute("aria-hidden", "true");
    this.popup = element("div", "popup", root);
    this.tasks = element("div", "tasks", this.popup);
    this.list = element("div", "list", this.popup);
    this.list.id = "list";
    this.popup.setAttribute("popover", "manual");
    this.list.setAttribute("role", "listbox");
    const fixed = { role: "combobox", autocomplete: "off", spellcheck: "false", "aria-autocomplete": "list", "aria-controls": "list", "aria-expanded": "false" };
    for (const [name, value] of Object.entries(fixed)) this.input.setAttribute(name, value);
    this.task = "";
    this.listen();
  }

  get isOpen() { return this.input.getAttribute("aria-expanded") === "true"; }

  listen() {
    const { input, popup, list } = this;
    input.onfocus = input.onclick = () => this.open();
    input.oninput = () => { this.open(); this.draw(); };
    input.onblur = () => this.close();
    popup.onmousedown = (event) => event.preventDefault();  // the focus stays in the field
    list.onclick = (event) => { const option = event.target.closest(".option"); if (option) this.choose(option.__row); };
    input.onkeydown = (event) => {
      event.stopPropagation();  // letters are shortcuts elsewhere, and the page takes this field for none
      const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: PAGE, PageUp: -PAGE };
      if (event.key in steps) {
        if (!this.isOpen) this.open(); else this.mark(this.at + steps[event.key]);
      } else if (event.key === "Enter" && this.isOpen) { if (this.rows[this.at]) this.choose(this.rows[this.at]); }
      else if (event.key === "Enter") this.open();
      else if (event.key === "Escape" && this.isOpen) this.close();
      else return;
      event.preventDefault();
    };
    this.follow = () => this.isOpen && this.place();
  }

  take(data) {
    const changed = JSON.stringify(data) !== this.text;
    this.data = data;
    if (!changed) return;
    this.text = JSON.stringify(data);
    const chosen = data.chosen || data.none;
    breakable(this.shown, chosen);
    this.input.setAttribute("aria-label", data.label);
    this.input.title = chosen;
    this.input.setAttribute("aria-description", `${chosen} is chosen`);
    this.input.placeholder = `Search ${data.rows.length.toLocaleString("en")} networks`;
    if (!data.tasks.includes(this.task)) this.task = "";
    if (this.isOpen) this.draw();
  }

  open() {
    if (this.isOpen) return;
    this.input.setAttribute("aria-expanded", "true");
    this.root.classList.add("open");
    this.popup.showPopover?.();
    this.draw();
    for (const event of ["scroll", "resize"]) window.addEventListener(event, this.follow, true);
  }

  close() {
    if (!this.isOpen) return;
    this.input.setAttribute("aria-expanded", "false");
    this.root.classList.remove("open");
    this.popup.hidePopover?.();
    this.input.value = "";
    this.input.removeAttribute("aria-activedescendant");
    for (const event of ["scroll", "resize"]) window.removeEventListener(event, this.follow, true);
  }

  end() { this.close(); }

  choose(row) {
    this.close();
    this.input.blur();
    if (row[0] !== this.data.chosen) this.send(row[0]);
  }

  draw() {
    const { data, list } = this, search = this.input.value.trim();
    this.drawTasks();
    this.rows = hits(data.rows, search, this.task);
    const made = document.createDocumentFragment();
    let group = null;
    this.rows.forEach((row, number) => {
      if (!search && row[1] !== group) {
        group = row[1];
        const title = element("div", "group", made);
        element("b", "", title, data.groups[group]);
        element("span", "", title, group === 1 ? "parameters · download" : "parameters");
      }
      this.option(made, row, number, search);
    });
    if (!this.rows.length) element("div", "none", made, "No network of this name.");
    list.replaceChildren(made);
    const chosen = this.rows.findIndex((row) => row[0] === data.chosen);
    this.mark(search ? 0 : Math.max(chosen, 0), true);
    this.place();
    if (search) say(this.root, `${this.rows.length} networks`);
  }

  drawTasks() {
    this.tasks.replaceChildren();
    if (this.data.tasks.length < 2) return;
    for (const task of ["", ...this.data.tasks]) {
      const button = element("button", "", this.tasks, task || "All");
      button.tabIndex = -1;
      button.setAttribute("aria-pressed", String(task === this.task));
      button.onclick = () => { this.task = task; this.draw(); };
    }
  }

  option(parent, row, number, search) {
    const option = element("div", "option", parent);
    option.id = `option-${number}`;
    option.__row = row;
    option.setAttribute("role", "option");
    option.setAttribute("aria-selected", String(row[0] === this.data.chosen));
    breakable(element("span", "name", option), row[0] || this.data.none);
    const where = search ? ["on this machine", row[4] ? `${row[4]} download` : "needs download", "no weights"][row[1]] : row[4];
    element("span", "about", option, [row[3], where].filter(Boolean).join(" · "));
    option.onmousemove = () => this.mark(number, false, false);
  }

  mark(number, centre = false, scroll = true) {
    if (!this.rows.length) return;
    this.at = within(number, this.rows.length);
    this.list.querySelector(".active")?.classList.remove("active");
    const option = this.list.querySelector(`#option-${this.at}`);
    option.classList.add("active");
    this.input.setAttribute("aria-activedescendant", option.id);
    if (centre && this.at === 0) this.list.scrollTop = 0;
    else if (scroll) option.scrollIntoView({ block: centre ? "center" : "nearest" });
  }

  place() {
    const box = this.box.getBoundingClientRect(), { innerWidth, innerHeight } = window;
    const below = innerHeight - box.bottom - 2 * MARGIN, above = box.top - 2 * MARGIN;
    const width = Math.min(Math.max(box.width, WIDEST), innerWidth - 2 * MARGIN);
    const up = below < LEAST && above > below;
    Object.assign(this.popup.style, {
      width: `${width}px`, left: `${Math.max(MARGIN, Math.min(box.left, innerWidth - width - MARGIN))}px`,
      maxHeight: `${Math.min(TALLEST, up ? above : below)}px`,
      top: up ? "auto" : `${box.bottom + 4}px`, bottom: up ? `${innerHeight - box.top + 4}px` : "auto",
    });
  }
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".root");
  if (!data) return;
  const chooser = (root.__chooser ??= new Chooser(root));
  chooser.send = (name) => setTriggerValue("chosen", name);
  chooser.take(data);
}
