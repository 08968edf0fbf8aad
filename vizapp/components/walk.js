// The cells of a walk through a network, each with where it lies in the photo. data: {photo, size: [height, width], steps: [{title, note,
// box: null or [top, left, bottom, right], item}], at: which one is shown, label}. A click sends the item: trigger "item"; null: nothing to show.

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".root");
  const held = root.querySelector("button:focus") !== null;
  root.replaceChildren();
  if (!data) return;
  const [height, width] = data.size, list = element("ol", "", root);
  list.setAttribute("aria-label", data.label);
  data.steps.forEach((step, number) => {
    const place = element("li", "", list), made = element(step.item === null ? "span" : "button", number === data.at ? "step at" : "step", place);
    const picture = element("span", "picture", made), image = element("img", "", picture);
    image.src = data.photo;
    image.alt = "";
    picture.style.aspectRatio = `${width} / ${height}`;
    const marks = document.createElementNS(SVG, "svg");
    marks.setAttribute("viewBox", `0 0 ${width} ${height}`);
    marks.setAttribute("preserveAspectRatio", "none");
    picture.appendChild(marks);
    if (step.box) {
      const [top, left, bottom, right] = step.box, most = Math.max(height, width) / 20;  // smaller boxes could not be seen
      const wider = Math.max(0, most - (right - left)) / 2, taller = Math.max(0, most - (bottom - top)) / 2;
      const box = [Math.max(top - taller, 0), Math.max(left - wider, 0), Math.min(bottom + taller, height), Math.min(right + wider, width)];
      for (const name of ["under", "field"]) rectangle(name, marks, box, width / 100);
    }
    element("b", "", made, step.title);
    element("small", "", made, step.note);
    if (step.item === null) return;
    made.type = "button";
    if (number === data.at) {
      made.setAttribute("aria-current", "step");
      if (held) made.focus();
      const before = list.scrollLeft, end = place.offsetLeft - list.offsetLeft;
      list.scrollLeft = Math.max(before, end - list.clientWidth / 2);
    }
    made.onclick = () => setTriggerValue("item", step.item);
  });
}
