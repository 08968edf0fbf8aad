// A bar per row, the first in the accent colour. data: {rows: [{name, share: 0 to 1, more}]}; `more` shows when a row is pointed at.

export default function (component) {
  const { data, parentElement } = component;
  const root = parentElement.querySelector(".root");
  root.replaceChildren();
  if (!data) return;
  const list = element("ol", "", root);
  for (const row of data.rows) {
    const item = element("li", "", list);
    item.tabIndex = 0;
    element("span", "name", item, row.name);
    element("span", "more", item, row.more);
    element("span", "share", item, percent(row.share));
    element("i", "", element("div", "bar", item)).style.width = `${100 * row.share}%`;
  }
}
