// A photo on which a rectangle is drawn. data: {photo, size: [height, width], box: [top, left, bottom, right] in pixels or null, name}
// Dragging draws a new rectangle; dragging inside of the rectangle moves it. Arrow keys move it (without one they make one in the middle), with
// Shift they change its size, and Delete removes it. What it came to is sent: trigger "box", [top, left, bottom, right], or [] without one.

const PAUSE = 500;  // milliseconds after the last key before the rectangle is sent
const LEAST = 2;  // pixels of a side; a shorter drag is a click

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".root");
  if (!data) return;
  const [height, width] = data.size;
  if (!root.firstChild) {
    const made = element("div", "picture", root);
    element("img", "", made).draggable = false;
    const svg = made.appendChild(document.createElementNS(SVG, "svg"));
    svg.setAttribute("preserveAspectRatio", "none");
    const below = element("div", "below", root);
    for (const name of ["b", "span"]) element(name, "", below);
    element("button", "remove", below, "×").type = "button";
  }
  const picture = root.querySelector(".picture"), photo = picture.querySelector("img"), marks = picture.querySelector("svg");
  const [name, note, remove] = root.querySelector(".below").children;
  if (photo.getAttribute("src") !== data.photo) photo.src = data.photo;
  photo.className = width < 64 ? "coarse" : "";
  photo.alt = name.textContent = name.title = data.name;
  picture.style.aspectRatio = `${width} / ${height}`;
  marks.setAttribute("viewBox", `0 0 ${width} ${height}`);
  remove.title = "Remove the square";
  remove.setAttribute("aria-label", `Remove the square on ${data.name}`);
  picture.tabIndex = 0;
  picture.setAttribute("role", "application");
  picture.setAttribute("aria-label", `${data.name}; arrow keys move the square, with Shift they change its size, Delete removes it`);
  enlargeable(root, data.name);

  // The rectangle is kept on the element: the page may run again while it is drawn.
  const given = JSON.stringify([data.box, data.size]);
  if (root.__given !== given && !root.__drag) root.__box = data.box;
  root.__given = given;
  const words = () => {
    if (!root.__box) return "not marked";
    const [top, left, bottom, right] = root.__box;
    return `${right - left} × ${bottom - top} at ${left}, ${top}`;
  };
  const size = () => root.__box ? words().split(" at ")[0] : words();
  const draw = () => {
    marks.replaceChildren();
    if (root.__box) for (const kind of ["under", "field"]) rectangle(kind, marks, root.__box, width / 300);
    picture.classList.toggle("unmarked", !root.__box);
    note.textContent = size();
    note.title = words();
    remove.hidden = !root.__box;
  };
  draw();
  root.__send = () => {
    clearTimeout(root.__timer);
    if (root.isConnected) setTriggerValue("box", root.__box || []);
  };
  const at = (event) => {
    const box = picture.getBoundingClientRect();
    return [within(Math.round((event.clientY - box.top) / box.height * height), height + 1),
      within(Math.round((event.clientX - box.left) / box.width * width), width + 1)];
  };
  const moved = ([top, left, bottom, right], down, across) => {
    const y = within(top + down, height - (bottom - top) + 1), x = within(left + across, width - (right - left) + 1);
    return [y, x, y + bottom - top, x + right - left];
  };
  picture.onpointerdown = (event) => {
    if (event.button || event.target.closest("button")) return;
    picture.setPointerCapture(event.pointerId);
    picture.focus();
    const start = at(event), box = root.__box;
    const inside = box && start[0] > box[0] && start[0] < box[2] && start[1] > box[1] && start[1] < box[3];
    root.__drag = { start, before: box, moves: inside };
    event.preventDefault();
  };
  picture.onpointermove = (event) => {
    if (!root.__drag) return;
    const { start, before, moves } = root.__drag, [y, x] = at(event);
    if (moves) root.__box = moved(before, y - start[0], x - start[1]);
    else root.__box = [Math.min(start[0], y), Math.min(start[1], x), Math.max(start[0], y), Math.max(start[1], x)];
    draw();
  };
  picture.onpointerup = picture.onpointercancel = (event) => {
    if (!root.__drag) return;
    const { before } = root.__drag, box = root.__box;
    root.__drag = null;
    const small = box && Math.min(box[2] - box[0], box[3] - box[1]) < LEAST;
    if (small || event.type === "pointercancel") root.__box = before;
    draw();
    if (JSON.stringify(root.__box) !== JSON.stringify(before)) root.__send();
  };
  remove.onclick = () => { root.__box = null; draw(); root.__send(); };
  picture.onkeydown = (event) => {
    const step = ARROWS[event.key], box = root.__box, pace = Math.max(1, Math.round(width / 56));
    if (step && !box) {
      root.__box = [height, width, height, width].map((side, n) => Math.round(side * (n < 2 ? 3 : 5) / 8));
    } else if (step && event.shiftKey) {
      const [top, left, bottom, right] = box;
      root.__box = [top, left, Math.min(Math.max(bottom + step[0] * pace, top + LEAST), height), Math.min(Math.max(right + step[1] * pace, left + LEAST), width)];
    } else if (step) root.__box = moved(box, step[0] * pace, step[1] * pace);
    else if (box && (event.key === "Delete" || event.key === "Backspace")) root.__box = null;
    else return;
    event.preventDefault();
    draw();
    say(root, words());
    clearTimeout(root.__timer);
    root.__timer = setTimeout(() => root.__send(), PAUSE);
  };
}
