// Many small pictures as tiles cut from one. data: {sprite, tile: [height, width], columns, side, most, items: [value], titles: [text],
// details: [text], chosen: value, label, across?}. A click sends the tile's item: trigger "chosen".

const GAP = 3, EDGE = 3, TALLEST = 606, SCROLLBAR = 12;  // pixels

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
  const count = data.items.length;
  let grid, hovered = -1, alive = true;
  let cursor = data.items.indexOf(data.chosen);
  view.tabIndex = 0;
  view.setAttribute("role", "listbox");
  view.setAttribute("aria-label", `${data.label}; arrow keys move, Enter chooses`);

  const place = (frame, index) => {
    frame.style.display = index < 0 ? "none" : "block";
    if (index < 0) return;
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
  const draw = () => {
    grid = layout(root, data);
    const density = window.devicePixelRatio || 1;
    const width = grid.columns * (grid.width + GAP) - GAP, height = grid.rows * (grid.height + GAP) - GAP;
    Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
    canvas.width = Math.round(width * density);
    canvas.height = Math.round(height * density);
    const pen = canvas.getContext("2d");
    pen.scale(density, density);
    const [tileHeight, tileWidth] = data.tile;
    pen.imageSmoothingEnabled = tileWidth > grid.width;
    pen.imageSmoothingQuality = "high";
    for (let index = 0; index < count; index++) {
      const fromX = (index % data.columns) * tileWidth, fromY = Math.floor(index / data.columns) * tileHeight;
      pen.drawImage(root.__sprite.image, fromX, fromY, tileWidth, tileHeight,
        (index % grid.columns) * (grid.width + GAP), Math.floor(index / grid.columns) * (grid.height + GAP), grid.width, grid.height);
    }
    place(chosenFrame, data.items.indexOf(data.chosen));
    place(hoverFrame, hovered);
  };
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left) / (grid.width + GAP)), row = Math.floor((event.clientY - box.top) / (grid.height + GAP));
    const index = row * grid.columns + column;
    return column >= 0 && column < grid.columns && index >= 0 && index < count ? index : -1;
  };
  const hover = (index) => { hovered = index; place(hoverFrame, index); tell(index < 0 ? data.items.indexOf(data.chosen) : index); };

  load(root, data.sprite).ready.then(() => {
    if (!alive) return;
    draw();
    tell(data.items.indexOf(data.chosen));
    canvas.onmousemove = (event) => hover(at(event));
    canvas.onmouseleave = () => hover(-1);
    canvas.onclick = (event) => { const index = at(event); if (index >= 0) setTriggerValue("chosen", data.items[index]); };
    view.onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: grid.columns, ArrowUp: -grid.columns }[event.key];
      if (step) {
        cursor = Math.min(Math.max(cursor + step, 0), count - 1);
        hover(cursor);
        hoverFrame.scrollIntoView({ block: "nearest" });
        event.preventDefault();
      } else if ((event.key === "Enter" || event.key === " ") && cursor >= 0) {
        setTriggerValue("chosen", data.items[cursor]);
        event.preventDefault();
      }
    };
  });
  let width = root.clientWidth;
  const observer = new ResizeObserver(() => {
    if (Math.abs(root.clientWidth - width) < 2 || !root.__sprite.image.complete) return;
    width = root.clientWidth;
    draw();
  });
  observer.observe(root);
  return () => { alive = false; observer.disconnect(); };
}
