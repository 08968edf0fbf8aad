// One of several pictures, chosen by a slider without asking the server. data: {frames: [address], ticks: [text], size: [height, width], at: the
// number that is shown first, label, name: of the slider, answers: null or for each picture [[name, share], …]}
// When the slider is let go, the number of the picture is sent: trigger "frame".

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".root");
  if (!data) return;
  if (!root.__made) {
    const made = (root.__made = { picture: element("div", "picture", root), side: element("div", "side", root) });
    made.image = element("img", "", made.picture);
    const label = element("label", "", root);
    made.name = element("span", "", label);
    made.slider = element("input", "", label);
    made.slider.type = "range";
    made.tick = element("output", "", label);
    made.list = element("div", "list", made.side);
    made.image.draggable = false;
  }
  const made = root.__made, last = data.frames.length - 1;
  // What the slider shows is the person's until the page asks for another picture, or shows others.
  const asked = JSON.stringify([data.at, data.name, data.ticks]);
  if (root.__asked !== asked) {
    root.__at = data.at;
    root.__asked = asked;
  }
  const [height, width] = data.size;
  made.picture.style.aspectRatio = `${width} / ${height}`;
  made.image.className = width < 64 ? "coarse" : "";
  Object.assign(made.slider, { min: 0, max: last, step: 1, value: root.__at, ariaLabel: data.name });
  made.name.textContent = data.name;
  const show = () => {
    const at = within(root.__at, last + 1), answer = data.answers?.[at];
    if (made.image.getAttribute("src") !== data.frames[at]) made.image.src = data.frames[at];
    made.image.alt = `${data.label}, ${data.ticks[at]}`;
    made.tick.textContent = data.ticks[at];
    made.list.replaceChildren();
    for (const [name, share] of answer || []) {
      const item = element("div", "answer", made.list);
      element("span", "name", item, name);
      element("span", "share", item, percent(share));
      element("i", "", element("div", "bar", item)).style.width = `${100 * share}%`;
    }
    made.slider.setAttribute("aria-valuetext", [data.ticks[at], ...(answer || []).map(([name, share]) => `${name} ${percent(share)}`)].join(", "));
  };
  show();
  made.slider.oninput = () => {
    root.__at = Number(made.slider.value);
    show();
  };
  made.slider.onchange = () => setTriggerValue("frame", root.__at);
  enlargeable(made.picture, data.label, { legend: () => made.list });
}
