// The network as a row of boxes. data: {blocks: [{name, group, kind, shape, height, width, parts: [{name, label, kind, what, shape}]}], chosen: site name}
// A click on a box sends its last site; a click on a part sends that part: trigger "site".

const LEAST_GAP = 7, TOP = 18, FOOT = 54, TALL = 112, BELOW = 220;  // pixels; the last: of what stands below the boxes, at most

const KINDS = [["convolution", "Convolution"], ["activation", "Activation"], ["pool", "Pooling"],
  ["norm", "Normalisation"], ["linear", "Linear"], ["other", "Other"]];

function svg(name, attributes, parent, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.appendChild(element);
  return element;
}

const shape = (numbers) => numbers.join(" × ");
const shorten = (text, pixels) => {
  const most = Math.max(1, Math.floor(pixels / 6));
  return text.length <= most ? text : text.slice(0, Math.max(1, most - 1)) + "…";
};

function tell(tip, name, kind, size) {
  tip.replaceChildren();
  element("b", "", tip, name);
  element("span", "", tip, `  ${kind}  ${size}`);
}

function draw(component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".root");
  const before = root.querySelector(".scroll");
  const scrolled = before ? before.scrollLeft : null;
  const focused = parentElement.activeElement, held = focused?.dataset ?? {};  // a box or an operation
  root.replaceChildren();
  if (!data) return;
  const { blocks, chosen } = data, TALLEST = root.__tallest || TALL, larger = TALLEST / TALL;
  const current = blocks.findIndex((block) => block.parts.some((part) => part.name === chosen));
  const choose = (name) => setTriggerValue("site", name);

  // Boxes share out the width that is there; below the smallest legible size the row scrolls.
  const scroll = element("div", "scroll", root);
  const room = Math.max(scroll.clientWidth || parentElement.host?.clientWidth || 800, 200) - 4;
  const wanted = blocks.reduce((sum, block) => sum + block.width, 0);
  const scale = Math.min(3.6 * larger, Math.max(1, (room - LEAST_GAP * (blocks.length - 1)) / wanted));
  const GAP = Math.min(64 * larger, Math.max(LEAST_GAP, (room - wanted * scale) / Math.max(blocks.length - 1, 1)));
  let x = 2;
  const places = blocks.map((block) => {
    const width = block.width * scale;
    const place = { x, width, height: Math.max(5, block.height * TALLEST) };
    x += width + GAP;
    return place;
  });
  const total = x - GAP + 2, middle = TOP + TALLEST / 2;
  const drawing = svg("svg", { width: total, height: TOP + TALLEST + FOOT - 10, role: "listbox", "aria-label": "Layers in running order" }, scroll);
  svg("line", { class: "wire", x1: 2, x2: total - 2, y1: middle, y2: middle }, drawing);

  const foot = element("div", "foot", root);
  const tip = element("div", "tip", foot);
  const legend = element("div", "legend", foot);
  const present = new Set(blocks.flatMap((block) => [block.kind, ...block.parts.map((part) => part.kind)]));
  for (const [kind, label] of KINDS) {
    if (!present.has(kind)) continue;
    const entry = element("div", "", legend);
    element("i", kind, entry);
    entry.appendChild(document.createTextNode(label));
  }
  const chosenPart = current >= 0 ? blocks[current].parts.find((part) => part.name === chosen) : null;
  const rest = () => chosenPart ? tell(tip, chosenPart.name, chosenPart.what, shape(chosenPart.shape)) : tip.replaceChildren();
  rest();

  const groups = [];
  const boxes = blocks.map((block, index) => {
    const place = places[index];
    const last = block.parts[block.parts.length - 1];
    const group = svg("g", { class: "block" + (index === current ? " chosen" : ""), tabindex: index === Math.max(current, 0) ? 0 : -1,
      role: "option", "aria-selected": index === current, "aria-label": `${block.name}, ${block.kind}, ${shape(block.shape)}`, "data-block": index }, drawing);
    svg("rect", { class: "hit", x: place.x - GAP / 2 + 0.5, y: TOP - 4, width: place.width + GAP - 1, height: TALLEST + 8, rx: 3 }, group);
    svg("rect", { class: `box ${block.kind}`, x: place.x, y: middle - place.height / 2, width: place.width, height: place.height, rx: Math.min(3, place.width / 3) }, group);
    const act = () => choose(index === current ? chosen : last.name);
    group.onclick = act;
    group.onmouseenter = group.onfocus = () => tell(tip, block.name, block.parts.length > 1 ? `${block.parts.length} operations, output` : last.what, shape(block.shape));
    group.onmouseleave = group.onblur = rest;
    group.onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step && boxes[index + step]) { boxes[index + step].focus(); event.preventDefault(); }
      if (event.key === "Enter" || event.key === " ") { act(); event.preventDefault(); }
    };
    const open = groups[groups.length - 1];
    if (open && open.name === block.group) open.end = place.x + place.width;
    else groups.push({ name: block.group, start: place.x, end: place.x + place.width });
    return group;
  });

  // Map sizes above the boxes, wherever the size changes and there is room.
  let free = 0, size = "";
  blocks.forEach((block, index) => {
    const label = block.shape.length === 3 ? `${block.shape[1]}` : "";
    if (label === size || !label) { size = label; return; }
    size = label;
    const place = places[index], at = Math.max(place.x + place.width / 2, label.length * 3);
    if (at - label.length * 3 < free) return;
    svg("text", { class: "size", x: at, y: 10, "text-anchor": "middle" }, drawing, label);
    free = at + label.length * 3 + 6;
  });
  // Below the boxes their own short names, if most of them fit; then the modules of the top level, as brackets.
  const inner = blocks.map((block, index) => index).filter((index) => blocks[index].label !== blocks[index].group);
  const fits = inner.filter((index) => blocks[index].label.length * 5.6 <= places[index].width + GAP);
  if (fits.length >= 0.6 * inner.length) fits.forEach((index) => {
    const block = blocks[index], place = places[index];
    svg("text", { class: "size", x: place.x + place.width / 2, y: TOP + TALLEST + 12, "text-anchor": "middle" }, drawing, block.label);
  });
  const bottom = TOP + TALLEST + 24;
  const labels = groups.map((group) => {
    svg("path", { class: "bracket", d: `M${group.start} ${bottom - 3}V${bottom}H${group.end}V${bottom - 3}` }, drawing);
    const holds = current >= 0 && places[current].x >= group.start && places[current].x < group.end;
    const text = holds ? group.name : shorten(group.name, Math.max(group.end - group.start + GAP, 34));
    const half = text.length * 3.1, at = Math.min(Math.max((group.start + group.end) / 2, half + 2), total - half - 2);
    return { text, holds, at, low: at - half - 3, high: at + half + 3 };
  });
  const kept = labels.filter((label) => label.holds);  // the chosen one's name always has its place
  for (const label of labels)
    if (!label.holds && kept.every((other) => label.high <= other.low || label.low >= other.high)) kept.push(label);
  for (const { text, holds, at } of kept)
    svg("text", { class: "name" + (holds ? " chosen" : ""), x: at, y: bottom + 15, "text-anchor": "middle" }, drawing, text);

  if (current >= 0 && blocks[current].parts.length > 1) {
    const parts = element("div", "parts", root);
    for (const part of blocks[current].parts) {
      const button = element("button", part.name === chosen ? "chosen" : "", parts);
      button.type = "button";
      button.title = `${part.name}  ${part.what}  ${shape(part.shape)}`;
      button.setAttribute("aria-pressed", part.name === chosen);
      button.setAttribute("data-site", part.name);
      element("i", part.kind, button);
      element("span", "", button, part.label);
      element("em", "", button, shape(part.shape));
      button.onclick = () => choose(part.name);
    }
  }

  if (scrolled !== null) scroll.scrollLeft = scrolled;
  else if (current >= 0) scroll.scrollLeft = places[current].x - room / 2;
  const buttons = [...root.querySelectorAll(".parts button")];
  const again = held.site ? buttons.find((button) => button.dataset.site === held.site) : boxes[held.block];
  again?.focus({ preventScroll: true });
  enlargeable(root, "The network", { resize: (height) => {
    root.__tallest = height && Math.max(TALL, height - BELOW);
    draw(component);
  } });
  if (focused?.classList.contains("enlarge")) root.querySelector(".enlarge").focus({ preventScroll: true });
}

export default function (component) {
  draw(component);
  // Laid out anew when the window changes.
  const root = component.parentElement.querySelector(".root");
  root.__end?.();  // of the call before this one; only the last is ended by the page
  let width = root.clientWidth, timer = 0;
  const observer = new ResizeObserver(() => {
    if (Math.abs(root.clientWidth - width) < 3) return;
    width = root.clientWidth;
    clearTimeout(timer);
    timer = setTimeout(() => draw(component), 60);
  });
  observer.observe(root);
  return (root.__end = () => { observer.disconnect(); clearTimeout(timer); });
}
