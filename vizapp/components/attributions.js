// Maps of one photo as cards, with numbers below each. data: {cards: [{item, title, picture: address or null, waiting: text in its place, plain:
// whether it is a baseline, numbers: [{name, value, hint, mark: "best", "worse" or ""}], verdict, good: whether that is praise, caution: [[text, address or
// null]]}], size: [height, width], chosen: item, label}
// A click on a card sends its item: trigger "chosen". What a map may not be read as is opened in the browser alone.

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".root");
  if (!data) return;
  const focused = root.querySelector("button:focus")?.dataset.item, open = (root.__open ??= new Set());
  const kept = new Map([...root.querySelectorAll(".card")].map((card) => [card.dataset.item, card]));
  const grid = root.querySelector(".grid") || element("div", "grid", root), [height, width] = data.size;
  for (const [item, card] of kept) if (!data.cards.some((one) => one.item === item)) card.remove();
  grid.setAttribute("role", "list");
  grid.setAttribute("aria-label", data.label);

  data.cards.forEach((one, place) => {
    let card = kept.get(one.item);
    if (!card) {
      card = element("div", "", grid);
      card.dataset.item = one.item;
      card.setAttribute("role", "listitem");
      const top = element("div", "top", card), picture = element("div", "picture", card);
      for (const name of ["name", "help"]) element("button", name, top).type = "button";
      element("img", "", picture);
      element("span", "", picture);
    }
    if (grid.children[place] !== card) grid.insertBefore(card, grid.children[place] ?? null);
    card.className = `card${one.plain ? " plain" : ""}${one.item === data.chosen ? " chosen" : ""}`;
    const [name, help] = card.querySelectorAll(".top button"), picture = card.querySelector(".picture"), [image, waiting] = picture.children;
    name.textContent = one.title;
    name.dataset.item = one.item;
    name.setAttribute("aria-pressed", one.item === data.chosen);
    name.onclick = () => setTriggerValue("chosen", one.item);
    picture.style.aspectRatio = `${width} / ${height}`;
    image.hidden = !one.picture;
    image.className = width < 64 ? "coarse" : "";
    image.alt = `${one.title} over the photo`;
    if (one.picture && image.getAttribute("src") !== one.picture) image.src = one.picture;
    waiting.textContent = one.picture ? "" : one.waiting;
    if (one.picture) enlargeable(picture, one.title);

    for (const old of card.querySelectorAll("table, .mark, .caution")) old.remove();
    const table = element("table", "", card);
    for (const number of one.numbers) {
      const row = element("tr", number.mark, table);
      element("th", "", row, number.name).scope = "row";
      element("td", "", row, number.value);
      row.title = number.hint;
    }
    element("span", one.good ? "mark good" : "mark", card, one.verdict);
    const told = element("p", "caution", card);
    for (const [text, address] of one.caution) {
      if (address) Object.assign(element("a", "", told, text), { href: address, target: "_blank", rel: "noopener" });
      else told.append(text);
    }
    const show = () => {
      told.hidden = !open.has(one.item);
      help.setAttribute("aria-expanded", !told.hidden);
    };
    help.textContent = "?";
    help.hidden = !one.caution.length;
    help.setAttribute("aria-label", `What ${one.title} does not show`);
    help.title = "What it is, and what it does not show";
    help.onclick = () => {
      if (!open.delete(one.item)) open.add(one.item);
      show();
    };
    show();
    if (one.item === focused) name.focus();
  });
}
