// A map of cells over a photo. data: {photo, size: [height, width], heat?, smooth?, cells?: [rows, columns], values?: base64 float32, low,
// high, ramp?, ends?: [text, text] beside the ramp in place of low and high, scale?: its title, signed?: whether red and blue,
// names?: {value: name} of values that are classes, grey?: whether the photo loses its colours below the heat, cell?: [row, column], field?: [top, left, bottom, right], frames?: [box] drawn on the photo, which is darker outside of a single one, tags?: [text] on the first frames, tag?: that on the field, opacity, label, hint?, extent?: [top, left,
// bottom, right] where the map lies if not everywhere, crop?: {first: [top, left, bottom, right], step: [down, across]} what a cell saw,
// tops?: {names, count, index: base64 float32, share: base64 float32} the strongest classes of each cell, told while it is pointed at}
// A click on a cell sends [row, column]: trigger "cell". The opacity of the map is changed in the browser alone.

// What is there already is kept and changed, so that nothing flashes when the page is run again.
function picture_of(image, source, className, alt) {
  if (image.getAttribute("src") !== source) image.src = source;
  image.className = className;
  image.alt = alt;
  image.draggable = false;
}

// The photo loses its colours under a map that is red and blue.
const blend = (photo, data, opacity) => { photo.style.filter = data.heat && (data.signed || data.grey) ? `saturate(${Math.max(0, 1 - 1.15 * opacity)})` : ""; };

// The colours of the map with what they mean, and how much of it is seen over the photo.
function scale(root, heat, photo, data, opacity) {
  const below = element("div", "below", root);
  if (data.scale) element("span", "", below, data.scale);
  if (data.ramp) {
    const [low, high] = data.ends || [short(data.low), short(data.high)], ramp = element("div", "ramp", below);
    element("span", "", ramp, low);
    element("img", "", ramp).src = data.ramp;
    element("span", "", ramp, high);
  }
  element("div", "space", below);
  const label = element("label", "", below, "Opacity");
  const slider = element("input", "", label);
  Object.assign(slider, { type: "range", min: 0, max: 1, step: 0.05, value: opacity, ariaLabel: "Opacity of the map over the photo" });
  slider.oninput = () => {
    heat.style.opacity = root.__opacity = slider.value;
    blend(photo, data, slider.value);
  };
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".root");
  if (!data) return;
  const opacity = root.__opacity ?? data.opacity ?? 0.6;
  const [height, width] = data.size;
  let picture = root.querySelector(".picture");
  if (picture && picture.classList.contains("still") === !!data.cells) {  // a picture without cells answers to nothing
    picture.remove();
    picture = root.__cursor = null;
  }
  if (!picture) {
    picture = element("div", "picture", root);
    element("img", "photo", picture);
  }
  for (const old of root.querySelectorAll(".picture > svg, .flag, .tag, .below, .tip")) old.remove();
  picture.className = "picture" + (data.cells ? "" : " still");
  picture.style.aspectRatio = `${width} / ${height}`;
  picture_of(picture.querySelector("img"), data.photo, width < 64 ? "photo coarse" : "photo", data.label || "");
  let heat = picture.querySelector(".heat");
  if (data.heat) {
    heat ??= element("img", "", picture);
    picture_of(heat, data.heat, data.smooth ? "heat" : "coarse heat", "");
    heat.style.opacity = opacity;
    const [top, left, bottom, right] = data.extent || [0, 0, height, width];
    Object.assign(heat.style, { left: `${100 * left / width}%`, top: `${100 * top / height}%`, width: `${100 * (right - left) / width}%`,
      height: `${100 * (bottom - top) / height}%` });
  } else heat?.remove();
  const marks = document.createElementNS(SVG, "svg");
  marks.setAttribute("viewBox", `0 0 ${width} ${height}`);
  marks.setAttribute("preserveAspectRatio", "none");
  picture.appendChild(marks);
  const boxes = [...(data.frames || []), ...(data.field ? [data.field] : [])].map(([top, left, bottom, right]) =>
    [Math.max(top, 0), Math.max(left, 0), Math.min(bottom, height), Math.min(right, width)]);
  if (data.frames?.length === 1) {
    const [top, left, bottom, right] = boxes[0], shade = document.createElementNS(SVG, "path");
    shade.setAttribute("class", "shade");
    shade.setAttribute("d", `M0 0H${width}V${height}H0ZM${left} ${top}V${bottom}H${right}V${top}Z`);
    marks.appendChild(shade);
  }
  const many = data.frames?.length > 1 ? data.frames.length : 0; // these are thin; the field stands out among them
  boxes.forEach((box, n) => {
    const style = n < many ? (data.field ? " thin faint" : " thin") : "";
    for (const name of ["under", "field"]) rectangle(name + style, marks, box, width / 300);
  });
  const tagged = (text, [y, x, , end]) => {
    const far = x > 0.6 * width, up = y > 0.06 * height;
    Object.assign(element("div", up ? "tag up" : "tag", picture, text).style,
      { top: `${100 * y / height}%`, [far ? "right" : "left"]: `${100 * (far ? 1 - end / width : x / width)}%` });
  };
  (data.tags || []).forEach((text, n) => tagged(text, boxes[n]));
  if (data.tag && data.field) tagged(data.tag, boxes[boxes.length - 1]);
  const photo = picture.querySelector("img");
  blend(photo, data, opacity);
  if (data.heat) scale(root, heat, photo, data, opacity);
  enlargeable(root, data.label || "Picture", { legend: () => beside(parentElement.host) });
  if (!data.cells) return;

  const [rows, columns] = data.cells;
  const values = data.values ? floats(data.values) : null;
  const [top, left, bottom, right] = data.extent || [0, 0, height, width];
  const down = (bottom - top) / rows, across = (right - left) / columns;
  const boxOf = ([row, column]) => [top + row * down, left + column * across, top + (row + 1) * down, left + (column + 1) * across];
  const cropOf = ([row, column]) => data.crop.first.map((edge, side) => edge + (side % 2 ? column : row) * data.crop.step[side % 2]);
  const framed = (cell) => data.crop ? [rectangle("under", marks, cropOf(cell), width / 300), rectangle("field", marks, cropOf(cell), width / 300)] : [];
  const tops = data.tops && { names: data.tops.names, count: data.tops.count, index: floats(data.tops.index), share: floats(data.tops.share) };
  const outlined = (className, cell) => ["dark", className].map((name) => rectangle(name, marks, boxOf(cell)));
  if (data.cell) outlined("cell", data.cell);
  const tip = element("div", tops ? "tip tall" : "tip", root);
  const tell = (cell) => {
    tip.replaceChildren();
    if (!cell) { element("span", "", tip, data.hint || "Click a cell to see its receptive field"); return; }
    if (tops) {
      element("span", "", tip, `Row ${cell[0]}, column ${cell[1]}`);
      const list = element("ol", "", tip);
      for (let place = 0; place < tops.count; place++) {
        const at = (cell[0] * columns + cell[1]) * tops.count + place, row = element("li", "", list);
        element("b", "", row, percent(tops.share[at]));
        element("span", "", row, tops.names[tops.index[at]]);
      }
      return;
    }
    const value = values?.[cell[0] * columns + cell[1]];
    if (values) element("b", "", tip, data.names ? data.names[value] ?? String(value) : short(value));
    element("span", "", tip, ` at row ${cell[0]}, column ${cell[1]}`);
  };
  const words = () => [...tip.querySelectorAll("b, span")].slice(0, 3).map((part) => part.textContent.trim()).join(" ");

  // The most probable class of a cell, beside it on the photo.
  const flag = (cell) => {
    const at = (cell[0] * columns + cell[1]) * tops.count, [y, x, , end] = boxOf(cell), far = x > width / 2;
    const made = element("div", "flag", picture, tops.names[tops.index[at]]);
    element("b", "", made, percent(tops.share[at]));
    Object.assign(made.style, { top: `${within(100 * y / height, 93)}%`, [far ? "right" : "left"]: `${100 * (far ? 1 - x / width : end / width)}%` });
    return made;
  };

  // The cell that the keys came to is kept on the element: the page may be run again on the way.
  let drawn = [];
  const hover = (cell) => {
    drawn.forEach((line) => line.remove());
    drawn = cell || data.cell ? framed(cell || data.cell) : [];
    if (cell) drawn.push(...outlined("hover", cell));
    if (cell && tops) drawn.push(flag(cell));
    tell(cell || data.cell);
  };
  hover(root.__cursor);
  const at = (event) => {
    const box = picture.getBoundingClientRect();
    const y = (event.clientY - box.top) / box.height * height, x = (event.clientX - box.left) / box.width * width;
    return [within(Math.floor((y - top) / down), rows), within(Math.floor((x - left) / across), columns)];
  };
  picture.onmousemove = (event) => hover(at(event));
  picture.onmouseleave = () => hover(root.__cursor);
  picture.onclick = (event) => setTriggerValue("cell", at(event));
  walk(picture, root, `${data.label || "Map"}: ${rows} by ${columns} cells`, {
    start: () => data.cell || data.cells.map((count) => Math.floor(count / 2)),
    next: (cell, step) => cell.map((place, axis) => within(place + step[axis], data.cells[axis])),
    show: hover,
    words,
    choose: (cell) => setTriggerValue("cell", cell),
  });
}
