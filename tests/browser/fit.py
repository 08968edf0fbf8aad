"""Whether the words of a page fit into their boxes and into the window."""

from __future__ import annotations

from typing import Any

_MISFITS = """() => {
  const found = new Set(), main = document.querySelector(".stMain"), edge = main.getBoundingClientRect().right;
  const above = (one) => one.parentElement || one.getRootNode().host;
  const scrolls = (one) => one && (["auto", "scroll"].includes(getComputedStyle(one).overflowX) || scrolls(above(one)));
  const walk = (root) => root.querySelectorAll("*").forEach((element) => {
    if (element.shadowRoot) walk(element.shadowRoot);
    if (["STYLE", "SCRIPT"].includes(element.tagName) || element.closest("[data-testid=stSidebar]")) return;
    if (![...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())) return;
    const style = getComputedStyle(element), box = element.getBoundingClientRect(), words = element.textContent.trim();
    if (box.width < 2 || style.visibility === "hidden") return;
    if (style.overflowX !== "visible" && element.scrollWidth > element.clientWidth + 1) found.add(`cut off: ${words}`);
    if (box.right > edge + 1 && box.left < edge && !scrolls(above(element))) found.add(`beyond the edge: ${words}`);
  });
  walk(document);
  if (main.scrollWidth > main.clientWidth + 1) found.add(`sideways: ${main.scrollWidth} of ${main.clientWidth} pixels`);
  return [...found];
}"""


def misfits(page: Any) -> list[str]:
    """Words that their box cuts off, words beyond the right edge of the window, and a page that scrolls sideways."""
    return list(page.evaluate(_MISFITS))
