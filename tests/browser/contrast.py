"""The contrast of text with its background."""

from __future__ import annotations

from typing import Any

_FAINT = """() => {
  const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const paint = (colour, opacity) => { pen.globalAlpha = opacity; pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); };
  const light = () => [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, n) => sum + [0.2126, 0.7152, 0.0722][n] * part, 0);
  const found = [], texts = [];
  const walk = (root) => root.querySelectorAll("*").forEach((element) => {
    if (element.shadowRoot) walk(element.shadowRoot);
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const ours = root !== document || element.closest("[class^=vz-]");
    if (own && ours && element.tagName !== "STYLE") texts.push(element);
  });
  walk(document);
  for (const element of texts) {
    const above = [];
    for (let one = element; one; one = one.parentElement || one.getRootNode().host)
      above.unshift(getComputedStyle(one));
    const opacity = above.reduce((product, style) => product * style.opacity, 1);
    if (opacity < 0.05 || !element.getClientRects().length) continue;
    paint("#fff", 1);
    for (const style of above) paint(style.backgroundColor, 1);
    const behind = light();
    paint(element.namespaceURI.endsWith("svg") ? above.at(-1).fill : above.at(-1).color, opacity);
    const ratio = (Math.max(behind, light()) + 0.05) / (Math.min(behind, light()) + 0.05);
    const name = element.className.baseVal ?? element.className;
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${name} ${element.textContent}`);
  }
  return [texts.length, found];
}"""


def faint(page: Any) -> list[str]:
    """The app's own words that stand out from what is behind them by less than 4.5 to 1, with that contrast."""
    count, found = page.evaluate(_FAINT)
    assert count
    return list(found)
