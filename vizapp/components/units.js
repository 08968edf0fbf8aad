// Units as cards: up to nine patches beside their projections. data: {cards: [{item, title, note, line, patches, down, empty}], label, waiting}.
// `patches` and `down` are {src, count, grid: [rows, columns], ratio, coarse} or null; `empty` is said where there are none, `waiting` where
// projections are still to come (null: the patches stand alone, on smaller cards); `line` is an optional line below. A click sends the card's item: trigger
// "chosen". With `photos`, the cards are photos, which have no card of a unit; `chosen` is the item of the marked one.

function nine(parent, tiles, label, alone = false) {
  const [rows, columns] = tiles.grid;
  const box = element("span", `nine${tiles.coarse ? " coarse" : ""}${alone ? " one" : ""}`, parent);
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", label);
  box.style.backgroundImage = `url(${tiles.src})`;  // once: each tile inherits it
  for (let index = 0; index < tiles.count; index++) {
    const row = Math.floor(index / columns), column = index % columns;
    const tile = element("i", "", box);
    tile.style.aspectRatio = tiles.ratio;
    tile.style.backgroundSize = `${100 * columns}% ${100 * rows}%`;
    tile.style.backgroundPosition = `${columns > 1 ? (100 * column) / (columns - 1) : 0}% ${rows > 1 ? (100 * row) / (rows - 1) : 0}%`;
  }
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".root");
  const focused = root.querySelector(".card:focus")?.dataset.item;
  root.replaceChildren();
  if (!data) return;
  const list = element("div", data.waiting === null ? "cards alone" : "cards", root);
  list.setAttribute("role", "list");
  list.setAttribute("aria-label", data.label);
  for (const card of data.cards) {
    const place = element("div", "place", list);
    place.setAttribute("role", "listitem");
    const button = element("button", "card", place);
    button.dataset.item = card.item;
    const head = element("span", "head", button);
    element("b", "", head, card.title);
    element("span", "", head, card.note);
    const pair = element("span", "pair", button);
    if (!card.patches) element("span", "empty", pair, card.empty);
    else {
      nine(pair, card.patches, data.photos ? `${card.title}, ${card.line}` : `Patches of ${card.title}`, data.photos);
      if (card.down) nine(pair, card.down, `Projections of ${card.title}`);
      else if (data.waiting !== null) element("span", "wait", pair, data.waiting);
    }
    if (card.line) element("span", "line", button, card.line);
    button.onclick = () => setTriggerValue("chosen", card.item);
    if (data.photos) button.setAttribute("aria-pressed", card.item === data.chosen);
    else {
      cardButton(place, () => {
        setTriggerValue("card", card.item);
        returnFocus(() => root.querySelector(`.card[data-item="${card.item}"]`));
      });
      place.lastChild.tabIndex = 0;
    }
    if (String(card.item) === focused) button.focus();
    if (card.patches) enlargeable(place, card.title);
  }
}
