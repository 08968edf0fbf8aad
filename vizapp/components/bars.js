// A bar per row, the first or the chosen one in the accent colour. data: {rows: [{name, share, more, told?, item?, mark?}], chosen?: item, label};
// `share` from 0 to 1 is said in percent, or as `told`; `more` shows when a row is pointed at, `mark` is said beside the name. Where rows have items, a click sends the item: trigger "item".

const LARGEST = 3;  // times as large letters, enlarged

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".root");
  const focused = root.querySelector("button:focus")?.dataset.item;
  root.replaceChildren();
  if (!data) return;
  const list = element("ol", "", root);
  data.rows.forEach((row, index) => {
    const opens = row.item !== undefined, chosen = opens ? row.item === data.chosen : index === 0;
    const item = element("li", (opens ? "opens" : "") + (chosen ? " chosen" : ""), list);
    const name = element(opens ? "button" : "span", "name", item, row.name);
    if (row.mark) element("span", "mark", name, `✓ ${row.mark}`);
    element("span", "more", item, row.more);
    element("span", "share", item, row.told ?? percent(row.share));
    element("i", "", element("div", "bar", item)).style.width = `${100 * Math.min(Math.max(row.share, 0), 1)}%`;
    if (!opens) {
      item.tabIndex = 0;
      return;
    }
    name.dataset.item = row.item;
    name.setAttribute("aria-pressed", chosen);
    item.onclick = () => setTriggerValue("item", row.item);
    if (String(row.item) === focused) name.focus();
  });
  const scaled = (scale) => root.style.setProperty("--vz-scale", scale);
  enlargeable(root, data.label, { resize: (height) => {
    root.style.removeProperty("--vz-scale");
    if (!height) return;
    let scale = LARGEST;
    do scaled(scale); while (root.offsetHeight > height && (scale -= 0.1) > 1);
  } });
}
