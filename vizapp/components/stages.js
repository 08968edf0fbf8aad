// Layers from early to late, a row each: its strongest maps, and its strongest unit's patch of the photo and projection. data: {heads:
// [text], rows: [{site, title, note, tiles: {src, count}, ratio, items: [channel], details: [text], pair: [src or null, src or null],
// coarse}], label}. A click on a picture sends [site, channel], of the pair those of the strongest unit: trigger "unit".

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".root");
  const focused = root.querySelector(".tile:focus")?.dataset.place;
  root.replaceChildren();
  if (!data) return;
  const list = element("div", "list", root);
  list.setAttribute("role", "group");
  list.setAttribute("aria-label", data.label);
  const most = Math.max(...data.rows.map((row) => row.items.length));
  list.style.setProperty("--maps", most);
  const heads = element("div", "row heads", list);
  data.heads.forEach((head, place) => { element("span", place === 0 ? "wide" : "", heads, head); });
  data.rows.forEach((row, number) => {
    const line = element("div", "row", list), words = element("div", "words", line);
    element("b", "", words, row.title);
    element("span", "", words, row.note);
    const tile = (place, channel, told) => {
      const made = element("button", "tile", line);
      made.dataset.place = `${number} ${place}`;
      made.title = told;
      made.setAttribute("aria-label", `${row.title}, ${told}`);
      made.onclick = () => {
        if (root.hasAttribute("data-enlarged")) return;  // it would cover the card
        setTriggerValue("unit", [row.site, channel]);
        returnFocus(() => root.querySelector(`.tile[data-place="${made.dataset.place}"]`));
      };
      if (made.dataset.place === focused) made.focus();
      return made;
    };
    for (let place = 0; place < most; place++) {
      if (place >= row.items.length) { element("i", "", line); continue; }
      const made = tile(place, row.items[place], `channel ${row.items[place]}, ${row.details[place]}`);
      const picture = element("i", row.coarse ? "coarse" : "", made);
      Object.assign(picture.style, { backgroundImage: `url(${row.tiles.src})`, aspectRatio: row.ratio,
        backgroundSize: `${100 * row.tiles.count}% 100%`, backgroundPosition: `${row.tiles.count > 1 ? (100 * place) / (row.tiles.count - 1) : 0}% 0` });
      element("small", "", made, row.items[place]);
    }
    row.pair.forEach((source, place) => {
      if (!source) { element("i", "", line); return; }
      const made = tile(most + place, row.items[0], `channel ${row.items[0]}, ${data.heads[place + 1].toLowerCase()}`);
      if (place === 0) made.classList.add("first");
      const image = element("img", "", made);
      image.src = source;
      image.alt = "";
      element("small", "", made, row.items[0]);
    });
  });
  enlargeable(root, data.label);
}
