// The parts of a sum, the largest first: where each comes from, patch × kernel = products as small pictures, and its contribution as a signed bar.
// data: {heads: [text], rows: [{title, note, item, contribution, share, factors: text or null}], grid: [rows, columns], tiles: null or
// {patch, weights, products: addresses of all rows side by side}, numbers: null or base64 float32 [rows, 3, cells], padded: [cell], rest:
// null or {title, plus, minus}, bias: null or number, total: number, name: of the total, label}. `item` null: not to be followed.
// A click on a row sends its item: trigger "item".

const KINDS = ["patch", "weights", "products"], SIGNS = ["×", "=", ""];

// A bar to both sides of zero. Each part is as long as its share of `reach`, which fills one side.
function signedBar(parent, parts, reach) {
  const bar = element("span", "bar", parent);
  for (const value of parts) {
    const part = element("i", value < 0 ? "minus" : "plus", bar);
    part.style.width = `${50 * Math.min(Math.abs(value) / reach, 1)}%`;
  }
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".root");
  const focused = root.querySelector("button:focus")?.dataset.item;
  root.replaceChildren();
  if (!data) return;
  const { rows, grid, tiles, rest } = data, cells = grid[0] * grid[1], count = rows.length;
  const numbers = data.numbers ? floats(data.numbers) : null;
  const alone = [...rows.map((row) => row.contribution), data.bias ?? 0];  // the others may be hundreds: no bar
  const reach = Math.max(...alone.map(Math.abs).filter(Number.isFinite)) || 1;
  const list = element("div", tiles ? "list pictures" : "list", root);
  list.setAttribute("role", "list");
  list.setAttribute("aria-label", data.label);
  const heads = element("div", "row heads", list);
  data.heads.forEach((head, place) => element("span", place === 0 ? "title" : place === data.heads.length - 1 ? "sum" : "factor", heads, head));

  const line = (className, title, note, parts, told, share) => {
    const made = element("div", `row ${className}`, list), words = element("span", "title", made);
    made.setAttribute("role", "listitem");
    const name = element(className.includes("opens") ? "button" : "b", "name", words, title);
    if (note) element("small", "", words, note);
    const factors = element("span", "factors", made);
    signedBar(made, parts, reach);
    element("span", "number", made, told);
    element("span", "share", made, share);
    return { made, name, factors };
  };

  // One of the three pictures of a row; pointing at a cell tells its numbers.
  const picture = (parent, kind, place) => {
    const made = element("i", "tile", parent), share = count > 1 ? (100 * place) / (count - 1) : 0;
    Object.assign(made.style, { backgroundImage: `url(${tiles[KINDS[kind]]})`, backgroundSize: `${100 * count}% 100%`, backgroundPosition: `${share}% 0`,
      aspectRatio: `${grid[1]} / ${grid[0]}` });
    if (!numbers) return;
    made.onmousemove = (event) => {
      const box = made.getBoundingClientRect();
      const row = within(Math.floor((event.clientY - box.top) / box.height * grid[0]), grid[0]);
      const column = within(Math.floor((event.clientX - box.left) / box.width * grid[1]), grid[1]);
      const cell = row * grid[1] + column, [x, w, product] = KINDS.map((_, one) => short(numbers[(place * 3 + one) * cells + cell]));
      made.title = `row ${row}, column ${column}: ` + (data.padded.includes(cell) ? "padding" : `${x} × ${w} = ${product}`);
    };
  };

  rows.forEach((row, place) => {
    const opens = row.item !== null;
    const { made, name, factors } = line(opens ? "opens" : "", row.title, row.note, [row.contribution], short(row.contribution), percent(row.share).replace("-", "−"));
    if (tiles) KINDS.forEach((_, kind) => { picture(factors, kind, place); if (SIGNS[kind]) element("em", "", factors, SIGNS[kind]); });
    else if (row.factors) element("span", "text", factors, row.factors);
    if (!opens) return;
    Object.assign(name, { type: "button" });
    name.dataset.item = row.item;
    name.setAttribute("aria-label", `${row.title}, ${row.note}: ${short(row.contribution)}. Take this cell apart`);
    made.onclick = () => setTriggerValue("item", row.item);
    if (String(row.item) === focused) name.focus();
  });
  if (rest) line("rest", rest.title, `+${short(rest.plus)} and ${short(rest.minus)}`, [], short(rest.plus + rest.minus), "");
  if (data.bias !== null) line("rest", "Bias", "", [data.bias], short(data.bias), "");
  line("total", data.name, "", [], short(data.total), "");
  enlargeable(root, data.label);
}
