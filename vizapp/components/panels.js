// Maps of one sweep beside the photo, linked: pointing at a cell of any of them shows the square on the photos and the cell in all maps.
// data: {groups: [group], small?}, a group per sweep: {title, note?, photo, size: [height, width], grid: [rows, columns], tops: [pixel], lefts: [pixel],
//   square: [height, width], fill: CSS colour or null, inverse, cell: [row, column] or null, photoTitle, maps: [map], names: {class: [name, colour]},
//   legend: [{name, colour, note}], ramp, large?, clicks?: [rows, columns]}
// map: {letter, title, picture, kind: "number" | "percent" | "class" | "pixels", grid?: [rows, columns], values?: base64 float32, low?, high?, ends?: [text, text],
//   ramp?, clean?, words?: [text, text, text]}
// A group that is `large` has at most one map, which is drawn over the photo with a slider for its opacity; `words` stand below its colours.
// A click on a cell sends its [row, column] in the first group, or in the grid `clicks`: trigger "cell". All components of this kind on the page
// are linked. With `small` the groups stand close below one another, each
// beside its title; a click on a title or a cell sends the group's number: trigger "open".

const OPACITY = 0.8;
const linked = (window.__vizappPanels ??= new Set());  // the root elements of the components on the page
const mapOf = (group, index) => (group.large ? group.maps[0] : group.maps[index - 1]);  // undefined: the photo alone
const signed = (value, show) => (value < 0 ? "−" : "+") + show(Math.abs(value));

// What is there already is kept and changed, so that nothing flashes while maps sharpen.
function build(root, group, several, small) {
  const node = { root: element("section", small ? "group small" : group.large ? "group large" : "group", root), panels: [] };
  if (small) {
    node.side = element("div", "side", node.root);
    node.title = element("button", "title", node.side);
    node.note = element("div", "note", node.side);
  } else if (several) node.title = element("div", "title", node.root);
  node.row = element("div", "row", node.root);
  for (let index = 0; index <= (group.large ? 0 : group.maps.length); index++) {
    const panel = { root: element("figure", "panel", node.row) };
    const head = element("figcaption", "head", panel.root);
    panel.letter = element("b", "", head);
    panel.name = element("span", "", head);
    panel.picture = element("div", "picture", panel.root);
    if (group.large) panel.photo = element("img", "photo", panel.picture);
    panel.image = element("img", "", panel.picture);
    panel.image.draggable = false;
    panel.marks = document.createElementNS(SVG, "svg");
    panel.marks.setAttribute("preserveAspectRatio", "none");
    panel.picture.appendChild(panel.marks);
    panel.below = element("div", "below", panel.root);
    panel.value = element("div", "value", panel.root);
    if (group.large) {
      panel.root.insertBefore(panel.value, panel.below);
      node.slider = element("input", "", element("label", "opacity", panel.root, "Opacity"));
      Object.assign(node.slider, { type: "range", min: 0, max: 1, step: 0.05, value: OPACITY, ariaLabel: "Opacity of the map over the photo" });
      node.slider.oninput = () => blend(node, panel);
    }
    node.panels.push(panel);
  }
  node.legend = element("div", "legend", small ? node.side : node.root);
  return node;
}

// The photo loses its colours under the map, which are red and blue.
function blend(node, panel) {
  panel.image.style.opacity = node.slider.value;
  panel.photo.style.filter = `saturate(${panel.image.hidden ? 1 : Math.max(0, 1 - 1.15 * node.slider.value)})`;
}

function fill(node, group) {
  const [height, width] = group.size;
  if (node.title) node.title.textContent = group.title;
  if (node.note) node.note.textContent = group.note;
  node.panels.forEach((panel, index) => {
    const map = mapOf(group, index);
    panel.letter.textContent = map ? map.letter : "(a)";
    panel.name.textContent = map ? map.title : group.photoTitle;
    panel.name.title = panel.name.textContent;
    panel.picture.style.aspectRatio = `${width} / ${height}`;
    panel.marks.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const source = map ? map.picture : group.large ? "" : group.photo;
    panel.picture.classList.toggle("empty", !source && !group.large);
    panel.image.hidden = !source;
    if (panel.photo) {
      if (panel.photo.getAttribute("src") !== group.photo) panel.photo.src = group.photo;
      node.slider.parentElement.hidden = !source;
      blend(node, panel);
    }
    if (source && panel.image.getAttribute("src") !== source) panel.image.src = source;
    panel.image.className = (map && map.grid) || width < 64 ? "coarse" : "";
    panel.image.alt = `${panel.letter.textContent} ${panel.name.textContent}`;
    if (source || group.large) enlargeable(panel.root, panel.name.textContent, { legend: () => (map?.kind === "class" ? node.legend : null) });
    panel.values = map && map.values ? floats(map.values) : null;
    panel.below.replaceChildren();
    if (map && (map.ends || map.low !== undefined)) {
      const [low, high] = map.ends || [short(map.low), short(map.high)];
      element("span", "", panel.below, low);
      element("img", "", panel.below).src = map.ramp || group.ramp;
      element("span", "", panel.below, high);
      for (const word of (group.large && map.words) || []) element("small", "", panel.below, word);
    }
  });
  node.legend.replaceChildren();
  for (const entry of group.legend) {
    const item = element("span", "entry", node.legend);
    element("i", "", item).style.background = entry.colour;
    element("span", "", item, entry.name);
    element("small", "", item, entry.note);
  }
}

// The value of a map at the middle of a cell of the sweep.
function told(panel, map, group, [row, column]) {
  if (!panel.values) return "";
  const [rows, columns] = map.grid || group.size;
  const y = within(Math.floor(map.grid ? row : group.tops[row] + group.square[0] / 2), rows);
  const x = within(Math.floor(map.grid ? column : group.lefts[column] + group.square[1] / 2), columns);
  const value = panel.values[y * columns + x];
  if (Number.isNaN(value)) return "not computed yet";
  if (group.large) {
    const shown = group.inverse ? "with only this square shown" : "with the square here";
    if (map.kind === "percent") return `${percent(value)} ${shown}, ${signed(100 * (value - map.clean), (points) => points.toFixed(1))} points`;
    return map.grid ? `${short(value)} ${shown}, ${signed(value - map.clean, short)}` : `drop of ${short(value)} on average`;
  }
  if (map.kind === "class") return (group.names[value] || [String(value)])[0];
  return map.kind === "percent" ? percent(value) : short(value);
}

function mark(node, group, cell, className) {
  const [height, width] = group.size, [rows, columns] = group.grid;
  node.panels.forEach((panel, index) => {
    panel.marks.replaceChildren();
    panel.value.textContent = "";
    if (!cell) return;
    const [row, column] = cell, map = mapOf(group, index);
    if (map && map.grid && !group.large) {
      const box = [row * height / rows, column * width / columns, (row + 1) * height / rows, (column + 1) * width / columns];
      rectangle("under", panel.marks, box);
      rectangle(`cell ${className}`, panel.marks, box);
    } else {
      const top = group.tops[row], left = group.lefts[column];
      const box = [Math.max(top, 0), Math.max(left, 0), Math.min(top + group.square[0], height), Math.min(left + group.square[1], width)];
      if (!map && !group.large && group.fill && !group.inverse) rectangle("cover", panel.marks, box).style.fill = group.fill;
      rectangle("under", panel.marks, box);
      rectangle(`square ${className}`, panel.marks, box);
    }
    if (map) panel.value.textContent = told(panel, map, group, cell);
    else if (!group.large) panel.value.textContent = `row ${row}, column ${column}`;
  });
}

// The values that stand below the maps, as one sentence.
function words(node) {
  const filled = node.panels.filter((panel) => panel.value.textContent);
  return filled.map((panel, index) => (index ? `${panel.name.textContent} ` : "") + panel.value.textContent).join(", ");
}

// The cell whose square has its middle nearest to a point.
const nearest = (starts, side, point) => starts.reduce((best, start, n) => Math.abs(start + side / 2 - point) < Math.abs(starts[best] + side / 2 - point) ? n : best, 0);

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".root");
  if (!data) return;
  const groups = data.groups;
  const nodes = (root.__nodes ??= []);
  groups.forEach((group, n) => {
    const layout = JSON.stringify([!!data.small, groups.length > 1, !!group.large, group.large || group.maps.map((map) => map.letter)]);
    if (nodes[n]?.layout === layout) return;
    const old = nodes.splice(n), focused = parentElement.activeElement === old[0]?.row;  // the photo alone gets maps beside it
    const cursor = root.__cursor;
    old.forEach((one) => one.root.remove());
    nodes.push({ ...build(root, group, groups.length > 1, data.small), layout });
    if (focused) {
      nodes[n].row.tabIndex = 0;
      nodes[n].row.focus({ preventScroll: true });
      root.__cursor = cursor;
    } else if (root.__cursor?.group >= n) root.__cursor = null;
    root.__pointed = null;
  });
  nodes.splice(groups.length).forEach((old) => old.root.remove());
  if (root.__cursor?.group >= groups.length) root.__cursor = null;
  nodes.forEach((node, n) => fill(node, groups[n]));

  // A place is said as a share of the grid, so that sweeps of different grids can be compared.
  const cellAt = (group, [down, across]) => [within(Math.floor(down * group.grid[0]), group.grid[0]), within(Math.floor(across * group.grid[1]), group.grid[1])];
  const placeOf = (group, [row, column]) => [(row + 0.5) / group.grid[0], (column + 0.5) / group.grid[1]];
  const first = groups[0], clicked = { grid: first.clicks || first.grid };
  // Where the mouse and the keys are is kept on the element: while a sweep runs, this function is called again and again.
  const lookedAt = () => root.__pointed || (root.__cursor && placeOf(groups[root.__cursor.group], root.__cursor.cell)) || null;
  const draw = () => {
    const looked = lookedAt() || root.__elsewhere;
    const place = looked || (first.cell && placeOf(first, first.cell));
    nodes.forEach((node, n) => mark(node, groups[n], place && cellAt(groups[n], place), looked ? "hover" : "chosen"));
  };
  draw();
  root.__redraw = draw;
  linked.add(root);
  const look = () => {
    draw();
    for (const other of linked) {
      if (!other.isConnected) linked.delete(other);
      else if (other !== root) {
        other.__elsewhere = lookedAt();
        other.__redraw();
      }
    }
  };

  nodes.forEach((node, n) => {
    const group = groups[n];
    node.panels.forEach((panel, index) => {
      const over = (event) => {
        const box = panel.picture.getBoundingClientRect();
        const down = (event.clientY - box.top) / box.height, across = (event.clientX - box.left) / box.width;
        if (mapOf(group, index)?.grid) return cellAt(group, [down, across]);
        return [nearest(group.tops, group.square[0], down * group.size[0]), nearest(group.lefts, group.square[1], across * group.size[1])];
      };
      panel.picture.onpointermove = (event) => {
        if (event.pointerType === "touch") return;  // a finger does not point: it taps, and never leaves
        root.__pointed = placeOf(group, over(event));
        look();
      };
      panel.picture.onclick = (event) => data.small ? setTriggerValue("open", n) : setTriggerValue("cell", cellAt(clicked, placeOf(group, over(event))));
    });
    if (data.small) {
      node.title.title = `${group.title}: show this sweep alone`;
      node.title.onclick = () => setTriggerValue("open", n);
    }
    node.row.onpointerleave = () => { root.__pointed = null; look(); };
    walk(node.row, root, `${group.title || mapOf(group, 0)?.title || ""}: ${group.grid[0]} by ${group.grid[1]} positions of the occluder`, {
      start: () => ({ cell: group.cell || group.grid.map((count) => Math.floor(count / 2)) }),
      next: ({ cell }, step) => ({ group: n, cell: cell.map((place, axis) => within(place + step[axis], group.grid[axis])) }),
      show: () => { root.__pointed = null; look(); },
      words: () => words(node),
      choose: ({ cell }) => data.small ? setTriggerValue("open", n) : setTriggerValue("cell", cellAt(clicked, placeOf(group, cell))),
    });
  });
}
