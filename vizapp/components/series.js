// Units during training: a row per unit and a column per checkpoint, and above them the units of one checkpoint, chosen by a slider that also
// plays. data: {ticks: [epoch], accuracy: null or [share], rows: [{title, notes: [text], jumps: [boolean], photos: [text]}], projections, patches:
// sheets with a row per unit and a column per checkpoint, kernels: null or [address], ratio, coarse, at, label}
// When the slider is let go, or a column is clicked, the number of the checkpoint is sent: trigger "epoch".

const EACH = 900;  // milliseconds of a checkpoint while it plays

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".root");
  clearInterval(root.__playing);
  if (!data) return;
  const count = data.ticks.length, asked = JSON.stringify([data.at, data.ticks]);
  if (root.__asked !== asked) {  // else what is shown is the person's
    if (!root.__plays) root.__at = data.at;
    root.__asked = asked;
  }
  root.__at = within(root.__at ?? data.at, count);
  root.replaceChildren();

  const bar = element("div", "bar", root), button = element("button", "play", bar), slider = element("input", "", bar), told = element("output", "", bar);
  Object.assign(button, { type: "button", disabled: count < 2 });
  Object.assign(slider, { type: "range", min: 0, max: count - 1, step: 1, ariaLabel: "Checkpoint" });

  const piece = (source, row, column) => {
    const made = document.createElement("i");
    if (data.coarse) made.className = "coarse";
    const share = (at, of) => (of > 1 ? (100 * at) / (of - 1) : 0);
    Object.assign(made.style, { aspectRatio: data.ratio, backgroundImage: `url(${source})`, backgroundSize: `${100 * count}% ${100 * data.rows.length}%`,
      backgroundPosition: `${share(column, count)}% ${share(row, data.rows.length)}%` });
    return made;
  };

  const now = element("div", "now", root), cards = element("div", "cards", now);
  const big = data.rows.map((row) => {
    const card = element("div", "card", cards), pair = element("div", "pair", card);
    return { pair, card, words: element("span", "", card) };
  });
  let kernels = null;
  if (data.kernels) {
    const box = element("div", "kernels", now);
    kernels = element("img", "", box);
    element("span", "", box, "Kernels of the first layer");
  }

  const scroll = element("div", "scroll", root), grid = element("div", "grid", scroll);
  grid.style.setProperty("--count", count);
  element("span", "corner", grid, "epoch");
  const columns = data.ticks.map((tick, column) => {
    const made = element("button", "tick", grid, tick);
    made.type = "button";
    made.onclick = () => choose(column);
    made.setAttribute("aria-label", `Show epoch ${tick}`);
    return [made];
  });
  data.rows.forEach((row, number) => {
    element("span", "name", grid, row.title);
    for (let column = 0; column < count; column++) {
      const made = element("div", row.jumps[column] ? "cell jump" : "cell", grid);
      made.title = `${row.title}, epoch ${data.ticks[column]}: ${row.notes[column]}\n${row.photos[column]}${row.jumps[column] ? "\nanother photo than before" : ""}`;
      made.onclick = () => choose(column);
      made.append(piece(data.projections, number, column));
      columns[column].push(made);
    }
  });

  const show = () => {
    const at = root.__at;
    slider.value = at;
    const right = data.accuracy ? ` · ${percent(data.accuracy[at])} right` : "";
    told.textContent = `epoch ${data.ticks[at]}${right}`;
    slider.setAttribute("aria-valuetext", told.textContent);
    big.forEach(({ pair, card, words }, number) => {
      const row = data.rows[number];
      pair.replaceChildren(piece(data.projections, number, at), piece(data.patches, number, at));
      card.classList.toggle("jump", row.jumps[at]);
      words.textContent = `${row.title} · ${row.notes[at]}`;
      card.title = row.photos[at];
    });
    if (kernels) {
      kernels.src = data.kernels[at];
      kernels.alt = `Kernels of the first layer after epoch ${data.ticks[at]}`;
    }
    columns.forEach((cells, column) => cells.forEach((cell) => cell.classList.toggle("at", column === at)));
  };
  const play = (on) => {
    clearInterval(root.__playing);
    root.__plays = on;
    button.textContent = on ? "❚❚" : "▶";
    button.setAttribute("aria-label", on ? "Pause" : "Play");
    if (on) root.__playing = setInterval(() => {
      if (!root.isConnected) return clearInterval(root.__playing);
      root.__at = (root.__at + 1) % count;
      show();
    }, EACH);
  };
  const choose = (at) => {
    play(false);
    root.__at = at;
    show();
    setTriggerValue("epoch", at);
  };
  button.onclick = () => play(!root.__plays);
  slider.oninput = () => { play(false); root.__at = Number(slider.value); show(); };
  slider.onchange = () => choose(Number(slider.value));
  show();
  play(Boolean(root.__plays) && count > 1);
  enlargeable(now, data.label);
}
