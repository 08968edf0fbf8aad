// What the scripts of this folder share; it stands before each of them.

const SVG = "http://www.w3.org/2000/svg";

// An element with that text (never HTML), put into its parent.
function element(name, className, parent, content) {
  const made = document.createElement(name);
  made.className = className;
  if (content !== undefined) made.textContent = content;
  parent.appendChild(made);
  return made;
}

