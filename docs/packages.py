"""Draws packages.svg: the packages of vizapp with their rooms, and which package imports which. Run: python docs/packages.py

The rows and their words are written here; the dots are read from the imports.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tests.import_graph import import_graph  # noqa: E402  found from any folder

# From top to bottom: name, hue, one line, where it is entered from outside, and the rooms, a list per line. A room may
# import the rooms to its right and those on the lines below.
ROWS: list[tuple[str, int, str, str, list[list[str]]]] = [
    ("ui", 214, "the app; only here is Streamlit imported", "streamlit_app.py",
     [["pages", "app", "widgets", "inputs", "session"]]),
    ("service", 190, "long work for many people: jobs, fair turns, cache", "", []),
    ("methods", 266, "one visualization per file, for app, Python and shell", "vizapp.ask · python -m vizapp", []),
    ("report", 290, "answers as one HTML file that needs no network", "result.to_html()", []),
    ("components", 240, "scripts and styles of the browser, and their data", "", []),
    ("gallery", 318, "passes over whole collections, and their files", "", []),
    ("zoo", 20, "networks with weights, preprocessing and classes", "vizapp.load · vizapp.wrap", []),
    (
        "engine",
        150,
        "looks into a forward pass; torch alone",
        "",
        [
            ["projection", "occlusion", "fully_convolutional"],
            ["optimize", "statistics", "layers", "arithmetic", "detection"],
            ["trace", "receptive_field", "tap"],
            ["memory", "precision", "operations", "call_arguments"],
        ],
    ),
    ("media", 46, "images as arrays; only here are OpenCV and Pillow", "vizapp.open_picture · open_folder", []),
]  # fmt: skip
BASE = sorted({path.stem for path in (HERE.parent / "vizapp").glob("*.py")} - {"__init__", "__main__"})
WIDTH, LEFT, RIGHT, LANE = 1012, 12, 640, 36
STYLE = """
  text { font-family: ui-sans-serif, -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif; fill: #1f2328 }
  .name { font-size: 17px; font-weight: 650 } .line { font-size: 13px; fill: #57606a }
  .entry { font: 12px ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", monospace; fill: #57606a; text-anchor: end }
  .room { font-size: 12.5px; text-anchor: middle } .head { font-size: 12.5px; font-weight: 600; text-anchor: middle }
  .card { fill: var(--card); stroke: var(--edge) } .chip { fill: #ffffff; stroke: var(--edge) }
  .guide { stroke: #d0d7de; stroke-dasharray: 1 5; stroke-linecap: round }
  .lane { stroke: var(--ink); stroke-width: 2.5; stroke-linecap: round } .dot { fill: var(--ink) }
  .start { fill: #ffffff; stroke: var(--ink); stroke-width: 2.5 } .step { fill: none; stroke: var(--edge); stroke-width: 1.5 }
"""
DARK = """
    text { fill: #e6edf3 } .line, .entry { fill: #adb5bf } .chip { fill: #0d1117 } .start { fill: #0d1117 }
    .guide { stroke: #3d444d }
"""


def package_edges() -> set[tuple[str, str]]:
    """The pairs (importer, imported) of packages and of the files directly in vizapp."""
    name = lambda module: module.split(".")[1] if "." in module else ""  # noqa: E731
    pairs = {(name(module), name(other)) for module, found in import_graph().items() for other in found}
    return {(one, other) for one, other in pairs if one and other and one != other and one != "__main__"}


def drawing(edges: set[tuple[str, str]]) -> str:
    """The SVG. Lanes run down from an importer; a dot marks each package that it imports."""
    names = [name for name, *_ in ROWS]
    y, middle, body = 46.0, dict[str, float](), list[str]()
    for name, hue, line, entry, rooms in ROWS:
        height = 62 + 30 * len(rooms)
        middle[name] = y + 24
        body.append(f'<g style="{colours(hue)}" data-package="{name}">')
        body.append(f'<rect class="card" x="{LEFT}" y="{y}" width="{RIGHT - LEFT}" height="{height}" rx="12"/>')
        body.append(f'<text class="name" x="{LEFT + 18}" y="{y + 27}">{name}</text>')
        body.append(f'<text class="line" x="{LEFT + 18}" y="{y + 47}">{escape(line)}</text>')
        body.append(f'<text class="entry" x="{RIGHT - 16}" y="{y + 27}">{escape(entry)}</text>')
        for number, group in enumerate(rooms):
            body += chips(name, group, y + 60 + 30 * number)
        body.append("</g>")
        y += height + 12
    middle["base"] = y + 24
    body.append(f'<g style="{colours(None)}" data-package="base">')
    body.append(f'<rect class="card" x="{LEFT}" y="{y}" width="{RIGHT - LEFT}" height="48" rx="12"/>')
    body.append(f'<text class="name" x="{LEFT + 18}" y="{y + 30}">{" · ".join(BASE)}</text></g>')
    lanes = list[str]()
    guides = [
        f'<line class="guide" x1="{RIGHT + 8}" y1="{at}" x2="{RIGHT + 14 + LANE * len(names)}" y2="{at}"/>'
        for at in middle.values()
    ]
    for column, (name, hue, *_) in enumerate(ROWS):
        x = RIGHT + 30 + LANE * column
        targets = sorted(
            {"base" if other in BASE else other for one, other in edges if one == name}, key=middle.__getitem__
        )
        lanes.append(f'<g style="{colours(hue)}">')
        if targets:
            lanes.append(f'<line class="lane" x1="{x}" y1="{middle[name]}" x2="{x}" y2="{middle[targets[-1]]}"/>')
        for target in targets:
            lanes.append(
                f'<circle class="dot" cx="{x}" cy="{middle[target]}" r="6" data-from="{name}" data-to="{target}">'
                f"<title>{name} imports {target if target != 'base' else ', '.join(BASE)}</title></circle>"
            )
        lanes.append(f'<circle class="start" cx="{x}" cy="{middle[name]}" r="6"/>')
        lanes.append(f'<text class="head" transform="translate({x + 4} {middle[name] - 14}) rotate(-45)" '
                     f'style="text-anchor:start">{name}</text></g>')  # fmt: skip
    title = "The packages of vizapp: each imports only packages below it"
    legend = (
        f'<text class="line" x="{LEFT + 4}" y="28">{title}</text>'
        f'<g style="{colours(None)}"><circle class="start" cx="{RIGHT - 176}" cy="23.5" r="5"/>'
        f'<circle class="dot" cx="{RIGHT - 92}" cy="23.5" r="5"/></g>'
        f'<text class="line" x="{RIGHT - 164}" y="28">package</text>'
        f'<text class="line" x="{RIGHT - 80}" y="28">it imports</text>'
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 54:g}" width="{WIDTH}" role="img">',
            f"<title>{title}</title>",
            f"<style>{STYLE}  {ink(False)}\n  @media (prefers-color-scheme: dark) {{{DARK}    {ink(True)}\n  }}\n</style>",
            legend,
            *guides,
            *body,
            *lanes,
            "</svg>",
            "",
        ]
    )


def chips(package: str, rooms: list[str], y: float) -> list[str]:
    found, x = list[str](), LEFT + 18.0
    for room in rooms:
        width = 22 + 7.2 * len(room)
        found.append(f'<rect class="chip" x="{x:g}" y="{y}" width="{width:g}" height="24" rx="7"/>')
        found.append(
            f'<text class="room" x="{x + width / 2:g}" y="{y + 16}" data-room="{package}/{room}">{escape(room)}</text>'
        )
        x += width + 10
    return found


def colours(hue: int | None) -> str:
    saturation = 0 if hue is None else 1
    return f"--h:{hue or 0};--s:{saturation}"


def ink(dark: bool) -> str:
    card, edge, line = ("15%", "34%", "68%") if dark else ("96%", "78%", "42%")
    return (
        f"g {{ --card: hsl(var(--h) calc(var(--s) * {'38%' if dark else '70%'}) {card});"
        f" --edge: hsl(var(--h) calc(var(--s) * 40%) {edge}); --ink: hsl(var(--h) calc(var(--s) * 60%) {line}) }}"
    )


if __name__ == "__main__":
    (HERE / "packages.svg").write_text(drawing(package_edges()), encoding="utf-8")
