// Many small pictures as tiles cut from one. data: {sprite, tile: [height, width], columns, side, most, items: [value],
// titles: [text], tags?: [text] on the tile that is pointed at or chosen, details: [text], chosen: value, label, across?, still?, card?}. A
// click sends the tile's item: trigger "chosen"; not with `still`, where the tiles are only to be looked at. With `card`, tiles are units: a
// click on the corner of one, on the chosen one, or with `still` on any one sends the item to open its card: trigger "card".

const GAP = 3, EDGE = 3, TALLEST = 606, SCROLLBAR = 12, TIP = 36;  // pixels
const MOST = 4096;  // device pixels of a side of what is drawn at once: 16 megapixels, which every browser can hold

// The sprite is decoded once per sprite, not once per rerun.
function load(root, source) {
  if (root.__sprite?.source !== source) {
    const image = new Image();
    image.src = source;
    root.__sprite = { source, image, ready: image.decode() };
  }
  return root.__sprite;
}

// `across` tiles in a row where it is given. Else the largest tiles with which all fit without scrolling; where even the smallest do not, those, and the view scrolls.
function layout(root, data) {
  const shape = data.tile[0] / data.tile[1], count = data.items.length;
  const room = Math.max(root.clientWidth - 2 * EDGE, 120);
  if (root.__height) return largest(count, shape, room, root.__height, data);
  if (data.across) {
    const width = Math.min((room + GAP) / data.across - GAP, data.most);
    return { columns: data.across, rows: Math.ceil(count / data.across), width, height: width * shape };
  }
  for (let columns = Math.min(2, count); columns <= count; columns++) {
    const free = (room + GAP) / columns - GAP, rows = Math.ceil(count / columns);
    if (free < data.side) break;
    if (free > 1.25 * data.most && columns < count) continue;
    const width = Math.min(free, 1.25 * data.most);
    if (rows * (width * shape + GAP) - GAP <= TALLEST) return { columns, rows, width, height: width * shape };
  }
  const columns = Math.max(2, Math.floor((room - SCROLLBAR + GAP) / (data.side + GAP)));
  const width = (room - SCROLLBAR + GAP) / columns - GAP;
  return { columns, rows: Math.ceil(count / columns), width, height: width * shape };
}

// The largest tiles of an enlarged sheet: all of them in the window, or the smallest, and the view scrolls.
function largest(count, shape, room, height, { across, side }) {
  const fitting = (columns) => Math.min((room + GAP) / columns - GAP, ((height + GAP) / Math.ceil(count / columns) - GAP) / shape);
  let columns = across || 1;
  if (!across) for (let more = 2; more <= count; more++) if (fitting(more) > fitting(columns)) columns = more;
  let width = fitting(columns);
  if (width < side / 2) {
    columns = Math.max(1, Math.floor((room - SCROLLBAR + GAP) / (side + GAP)));
    width = (room - SCROLLBAR + GAP) / columns - GAP;
  }
  return { columns, rows: Math.ceil(count / columns), width, height: width * shape };
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".root");
  if (!data) return;
  let view = root.querySelector(".view");
  if (!view) {
    view = element("div", "view", root);
    element("canvas", "", view);
    element("div", "frame hover", view);
    element("div", "frame chosen", view);
    element("div", "tip", root);
  }
  const canvas = view.querySelector("canvas"), tip = root.querySelector(".tip");
  const hoverFrame = view.querySelector(".hover"), chosenFrame = view.querySelector(".chosen");
  const count = data.items.length, chosen = data.items.indexOf(data.chosen);
  if (root.__cursor >= count) root.__cursor = null;  // the tile that the keys came to, kept when the page is run again
  let grid, first, last, hovered = root.__cursor ?? -1, alive = true;
  view.classList.toggle("still", !!data.still && !data.card);

  const place = (frame, index) => {
    frame.style.display = index < 0 ? "none" : "block";
    frame.replaceChildren();
    if (index < 0) return;
    if (data.tags) element("span", "tag", frame, data.tags[index]);
    if (data.card) cardButton(frame, () => openCard(index));
    const column = index % grid.columns, row = Math.floor(index / grid.columns);
    Object.assign(frame.style, { left: `${EDGE - 2 + column * (grid.width + GAP)}px`, top: `${EDGE - 2 + row * (grid.height + GAP)}px`,
      width: `${grid.width + 4}px`, height: `${grid.height + 4}px` });
  };
  const tell = (index) => {
    tip.replaceChildren();
    if (index < 0) return;
    element("b", "", tip, data.titles[index]);
    if (data.details) element("span", "", tip, data.details[index]);
  };
  // Only the rows in sight and some around them: a canvas of all rows of a tall sheet is more than a browser can hold.
  const paint = () => {
    const { columns, rows } = grid, across = grid.width + GAP, down = grid.height + GAP;
    const tallest = root.__height || TALLEST;
    first = within(Math.floor((view.scrollTop - tallest / 2) / down), rows);
    last = within(Math.floor((view.scrollTop + 1.5 * tallest) / down), rows);
    const width = columns * across - GAP, height = (last + 1 - first) * down - GAP;
    const density = Math.min(window.devicePixelRatio || 1, MOST / Math.max(width, height));
    Object.assign(canvas.style, { width: `${width}px`, height: `${height}px`, top: `${first * down}px`,
      marginBottom: `${(rows - 1 - last + first) * down}px` });
    canvas.width = Math.round(width * density);
    canvas.height = Math.round(height * density);
    const pen = canvas.getContext("2d");
    pen.scale(density, density);
    const [tileHeight, tileWidth] = data.tile;
    pen.imageSmoothingEnabled = tileWidth > grid.width;
    pen.imageSmoothingQuality = "high";
    for (let index = first * columns; index < Math.min((last + 1) * columns, count); index++) {
      const fromX = (index % data.columns) * tileWidth, fromY = Math.floor(index / data.columns) * tileHeight;
      pen.drawImage(root.__sprite.image, fromX, fromY, tileWidth, tileHeight,
        (index % columns) * across, (Math.floor(index / columns) - first) * down, grid.width, grid.height);
    }
  };
  const draw = () => {
    grid = layout(root, data);
    paint();
    place(chosenFrame, chosen);
    place(hoverFrame, hovered);
  };
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left) / (grid.width + GAP));
    const row = first + Math.floor((event.clientY - box.top) / (grid.height + GAP));
    const index = row * grid.columns + column;
    return column >= 0 && column < grid.columns && index >= 0 && index < count ? index : -1;
  };
  const hover = (index) => { hovered = index; place(hoverFrame, index); tell(index < 0 ? chosen : index); };
  const openCard = (index) => {
    if (index < 0 || root.hasAttribute("data-enlarged")) return;  // what is enlarged would cover it
    setTriggerValue("card", data.items[index]);
    returnFocus(() => view);
  };
  const choose = (index) => {
    if (data.card && (data.still || index === chosen)) openCard(index);
    else if (index >= 0 && !data.still) setTriggerValue("chosen", data.items[index]);
  };

  load(root, data.sprite).ready.then(() => {
    if (!alive) return;
    draw();
    tell(hovered < 0 ? chosen : hovered);
    view.onmousemove = (event) => { const index = at(event); if (index !== hovered) hover(index); };
    view.onmouseleave = () => hover(root.__cursor ?? -1);
    canvas.onclick = (event) => choose(at(event));
    view.onscroll = () => {
      const down = grid.height + GAP;
      if (view.scrollTop < first * down || view.scrollTop + (root.__height || TALLEST) > (last + 1) * down) paint();
    };
    walk(view, root, data.label, {
      start: () => chosen,
      next: (index, step) => within(index + step[0] * grid.columns + step[1], count),
      show: (index) => {
        hover(index ?? -1);
        hoverFrame.scrollIntoView({ block: "nearest" });
      },
      words: () => [...tip.children].map((part) => part.textContent).join(", "),
      choose: data.still && !data.card ? null : choose,
      does: !data.card ? "" : data.still ? "opens the card of the unit" : "chooses, and again opens the card of the unit",
    });
  });
  enlargeable(root, data.label, { resize: (height) => {
    root.__height = height && height - TIP;
    view.style.maxHeight = height ? `${root.__height + 2 * EDGE}px` : "";
    if (root.__sprite.image.complete) draw();
  } });
  root.__end?.();  // of the call before this one; only the last is ended by the page
  let width = root.clientWidth;
  const observer = new ResizeObserver(() => {
    if (Math.abs(root.clientWidth - width) < 2 || !root.__sprite.image.complete) return;
    width = root.clientWidth;
    draw();
  });
  observer.observe(root);
  return (root.__end = () => { alive = false; observer.disconnect(); });
}
