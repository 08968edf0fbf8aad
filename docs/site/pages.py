"""The pages of the site that are made from the README, the changelog, the methods and the command line."""

from __future__ import annotations

import argparse
import inspect
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import vizapp
from vizapp import __main__ as command_line
from vizapp import references
from vizapp.methods.base import Method
from vizapp.methods.params import Knob, knobs

ROOT = Path(__file__).resolve().parents[2]
# Sections of the README by the page that shows them.
SECTIONS = {
    "start/install.md": ["Install and start"],
    "start/app.md": ["A tour of the app"],
    "start/python.md": ["Python"],
    "start/command-line.md": ["Command line", "Galleries"],
    "start/settings.md": ["Settings"],
}
# The public names by topic; `test_site.py` checks that none is missing.
TOPICS: dict[str, tuple[str, str, list[str]]] = {
    "networks": (
        "Networks", "Open a network, or wrap a module of your own.",
        ["load", "list_networks", "wrap", "zoo.Network", "engine.trace.sites.Site"],
    ),
    "photos": (
        "Photos and folders", "Open a photo, a stack of bands, or a collection of photos.",
        ["open_picture", "open_folder", "media.picture.Picture", "media.source.Source"],
    ),
    "asking": (
        "Asking", "Every visualization is a method. One function asks them all.",
        ["ask", "methods.methods", "methods.base.Result", "methods.base.Panel"],
    ),
    "units": (
        "Units, targets and changes", "What is explained, and what is changed in every pass.",
        ["Unit", "class_unit", "Target", "Intervention"],
    ),
    "teach": ("Teaching", "A network that knows the classes of your folder.", ["teach"]),
    "reports": ("Reports", "Answers as one HTML file that needs no network.", ["Report"]),
    "errors": ("Errors", "What goes wrong, in one sentence.", ["VizError"]),
    "extending": (
        "Methods of your own", "What a method is made of; [Contributing](docs/contributing.md#adding-a-method) shows how.",
        ["methods.base.Method", "methods.base.Question", "methods.base.Job", "methods.output.Output", "methods.params.knob"],
    ),
}  # fmt: skip
_NEEDS = {"picture": "a photo", "folder": "a folder of photos", "unit": "a unit"}
_PYTHON = {"picture": "picture", "folder": "folder=photos", "unit": "unit=unit"}
_SHELL = {"picture": "--picture photo.jpg", "folder": "--folder photos", "unit": "--class tabby"}
_SHAPES = {  # as the docstring of `Output` has them
    "signed map": "`[n h w]`, both signs", "support map": "`[n h w]`, what speaks for a unit", "heat map": "`[n h w]`",
    "signed image": "`[n H W 3]`, both signs", "per-class map": "`[classes h w]`", "label map": "`[h w]`, classes",
    "images": "uint8 `[n H W 3]`", "curves": "`[steps]` or `[steps n]`", "table": "rows of `Result.table`",
}  # fmt: skip

_FEW = 6  # sources that are listed on top of a page
# Where a docstring begins to list arrays, and where the next one follows: "…; `name`" or "…. `name`".
_ARRAYS = re.compile(r"`arrays`.*?: (?=`)")
_TYPED = re.compile(r": (?=`\w+` (?:float|int|uint|bool|`\[))")
_ITEM = re.compile(r"[;.] (?:With [\w ]+: )?`[A-Za-z_]\w*`")


@cache
def methods() -> dict[str, Method]:
    """The methods that come with vizapp, by title."""
    found = {key: each for key, each in vizapp.methods().items() if each.run.__module__.startswith("vizapp.")}
    return dict(sorted(found.items(), key=lambda item: item[1].title.lower()))


def method_titles() -> dict[str, str]:
    """The pages of the methods with their titles."""
    return {f"methods/{key}.md": method.title for key, method in methods().items()}


def topics() -> dict[str, tuple[str, str, list[str]]]:
    """The topics whose names exist."""
    return {key: topic for key, topic in TOPICS.items() if "." in topic[2][0] or topic[2][0] in vizapp.__all__}


def topic_titles() -> dict[str, str]:
    """The pages of the Python reference with their titles."""
    return {f"reference/{key}.md": title for key, (title, *_) in topics().items()}


def made() -> dict[str, str]:
    """The text of each page by its place in the site. Links are as from the top of the repository."""
    found = {uri: "\n".join(map(_section, names)).removeprefix("#") for uri, names in SECTIONS.items()}
    found["start/command-line.md"] += _commands()
    found["changelog.md"] = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found["methods/index.md"] = _methods_index()
    found |= {f"methods/{key}.md": _method(method) for key, method in methods().items()}
    found["reference/index.md"] = _reference_index()
    found |= {f"reference/{key}.md": _topic(*topic) for key, topic in topics().items()}
    return found


def page_of(place: str, anchor: str) -> str | None:
    """The page of the site that shows a file of the repository, perhaps with an anchor; None if none does."""
    if place == "CHANGELOG.md":
        return "changelog.md"
    if place == "README.md":
        sections = {_anchor(name): uri for uri, names in SECTIONS.items() for name in names}
        return sections.get(anchor, "index.md")
    for key, method in methods().items():
        file = inspect.getsourcefile(method.run)
        if file and Path(file).resolve() == ROOT / place:
            return f"methods/{key}.md"
    if place.startswith("docs/") and (ROOT / place).is_file():
        return place.removeprefix("docs/") + (anchor and f"#{anchor}")
    return place + (anchor and f"#{anchor}") if place in _generated() else None


@cache
def _generated() -> frozenset[str]:
    return frozenset([*SECTIONS, *method_titles(), *topic_titles(), "methods/index.md", "reference/index.md"])


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _section(name: str) -> str:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(name)}\n.*?(?=^## |\Z)", readme, re.MULTILINE | re.DOTALL)
    if found is None:
        raise KeyError(f"README.md has no section {name!r}, which docs/site/pages.py shows")
    return found[0]


# ---------------------------------------------------------------------------------------------------------- methods


def _methods_index() -> str:
    lines = [
        "# Methods\n",
        "Each method is a Python call, a command, and a page of the app. Its page here is made from the method itself.\n",
        "| method | key | needs | what it shows |",
        "|---|---|---|---|",
    ]
    for key, method in methods().items():
        lines.append(f"| [{method.title}](methods/{key}.md) | `{key}` | {_needed(method)} | {_cell(method.summary)} |")
    return "\n".join(lines) + "\n"


def _method(method: Method) -> str:
    body = inspect.getdoc(method.run) or ""
    body, _, raises = body.partition("\nRaises:\n")
    lines = [f"# {method.title}\n", f"{method.summary}\n{{ .summary }}\n", *_facts(method)]
    lines += ["## How to ask\n", *_asking(method), "## Parameters\n", *_parameters(method), "## What it returns\n"]
    lines += [_described(body.partition("\n")[2].strip()), *_shown(method)]
    if raises:
        lines.append(f"Raises [`VizError`](reference/errors.md): {_joined(raises).removeprefix('VizError: ')}\n")
    lines += ["## Command line\n", f"```text\n{_help(method.key)}\n```\n"]
    if len(sources := _sources(method)) > _FEW:
        lines += ["## Sources\n", *(f"- {source}" for source in sources)]
    return "\n".join(lines)


def _facts(method: Method) -> Iterator[str]:
    yield f"- **Key:** `{method.key}`"
    yield f"- **Needs:** {_needed(method)}"
    if method.optional_inputs:
        yield f"- **Can use:** {_and(_NEEDS[each] for each in sorted(method.optional_inputs))}"
    if method.takes_long:
        yield "- **Takes** minutes, usually; the app asks before it starts"
    sources = _sources(method)
    yield f"- **Source:** {'; '.join(sources)}" if len(sources) <= _FEW else "- **Source:** [several papers](#sources)"
    if (ROOT / "docs" / f"{method.key}.md").is_file():
        yield f"- **Guide:** [{method.title}](docs/{method.key}.md)"
    yield ""


def _sources(method: Method) -> list[str]:
    """The papers behind a method, with links."""
    linked = "".join(f"[{text}]({url})" if url else text for text, url in references.split(method.source))
    return linked.split("; ")


def _needed(method: Method) -> str:
    return _and(_NEEDS[each] for each in sorted(method.needs)) or "the network alone"


def _and(words: Iterator[str]) -> str:
    return " and ".join(words)


def _asking(method: Method) -> Iterator[str]:
    given = [each for each in ("picture", "folder", "unit") if each in method.needs]
    opened = {
        "picture": '    picture = vizapp.open_picture("photo.jpg")',
        "folder": '    photos = vizapp.open_folder("photos")  # sub-folders are classes',
        "unit": '    unit = vizapp.class_unit(network, "tabby")  # or vizapp.Unit(layer, channel)',
    }
    call = ", ".join([f'"{method.key}"', "network", *(_PYTHON[each] for each in given)])
    yield '=== "Python"\n'
    yield "    ```python"
    yield "    import vizapp\n"
    yield "    network = vizapp.load()"
    yield from (opened[each] for each in given)
    yield f"    result = vizapp.ask({call})"
    yield "    result.arrays, result.facts, result.table"
    yield '    result.save("out")'
    yield "    ```\n"
    yield '=== "Shell"\n'
    shell = " ".join(["vizapp", method.key, *(_SHELL[each] for each in given), "--out out"])
    yield f"    ```\n    {shell}\n    ```\n"


def _parameters(method: Method) -> Iterator[str]:
    found = knobs(method.params)
    if not found:
        yield "None.\n"
        return
    yield "| name | values | default | meaning |"
    yield "|---|---|---|---|"
    for knob in found.values():
        yield f"| `{knob.name}` | {_cell(_values(knob))} | {_default(knob)} | {_cell(knob.help)} |"
    yield ""


def _values(knob: Knob) -> str:
    if knob.choices:
        return ", ".join(f"`{choice}`" for choice in knob.choices)
    noun = {int: "whole number", float: "number", bool: "yes or no", str: "text"}.get(knob.kind, "")
    noun = noun or ("list of numbers" if knob.item is float else "list of texts")
    noun = "array, or a file of one" if knob.read is not None else noun
    if knob.low is not None and knob.high is not None:
        noun += f", {_number(knob.low)} to {_number(knob.high)}"
    elif knob.low is not None:
        noun += f", at least {_number(knob.low)}"
    elif knob.high is not None:
        noun += f", at most {_number(knob.high)}"
    return f"{noun} {knob.unit}".rstrip()


def _number(value: float) -> str:
    return "2³¹ − 1" if value == 2**31 - 1 else f"{value:,}".removesuffix(".0")


def _default(knob: Knob) -> str:
    value = knob.default
    if isinstance(value, bool):
        return "yes" if value else "no"
    shown = ",".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else str(value)
    return f"`{shown}`" if shown else ""


def _shown(method: Method) -> Iterator[str]:
    if all(output.kind == "table" for output in method.shows):
        return
    yield "What the app and `Result.save` draw of it, the most important first:\n"
    yield "| array | drawn as | shape | over the photo |"
    yield "|---|---|---|---|"
    for output in method.shows:
        over = "yes" if output.over_photo else ""
        yield f"| `{output.array}` | {output.kind} | {_SHAPES[output.kind]} | {over} |"
    yield ""


def _described(text: str) -> str:
    """The docstring with a list item for each array that it describes, and links to the pages that it names."""
    text = re.sub(r"`?\bdocs/([\w-]+)\.md`?", r"[\1](docs/\1.md)", text)
    return "\n\n".join(_as_list(block) for block in text.split("\n\n")) + "\n"


def _as_list(block: str) -> str:
    """A paragraph of a docstring; what it says about arrays is a list, with an item for each name in backticks."""
    text = _joined(block)
    begins = _ARRAYS.search(text) or re.match(r"(?=`\w+`)", text) or _TYPED.search(text)
    if begins is None:
        return text
    items, depth, start = list[str](), 0, begins.end()
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0 and _ITEM.match(text, place):
            items.append(text[start : place + 1].rstrip(";"))
            start = place + 2
    listed = "\n".join(f"- {item}" for item in [*items, text[start:]])
    return f"{text[: begins.end()].strip()}\n\n{listed}".lstrip()


def _joined(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _joined(text).replace("|", "\\|")


# ------------------------------------------------------------------------------------------------- the command line


def _commands() -> str:
    listed = "\n".join(f"- [`vizapp {key}`](methods/{key}.md): {method.summary}" for key, method in methods().items())
    others = [name for name in _parsers() if name not in methods()]
    helps = "\n".join(f"### vizapp {name}\n\n```text\n{_help(name)}\n```\n" for name in others)
    return f"\n## Commands\n\nA command per method; its page lists its options.\n\n{listed}\n\n{helps}"


def _help(command: str) -> str:
    os.environ["COLUMNS"] = "100"  # argparse wraps at the width of the terminal
    return _parsers()[command].format_help().strip()


@cache
def _parsers() -> dict[str, argparse.ArgumentParser]:
    top = command_line._parser("vizapp", tuple(methods().values()))
    actions = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(actions[0].choices)


# ------------------------------------------------------------------------------------------------------- Python API


def _reference_index() -> str:
    lines = ["# Python reference\n", "The public names of `vizapp`, by topic.\n"]
    for key, (title, about, names) in topics().items():
        shown = ", ".join(f"[`{_short(name)}`][{_path(name)}]" for name in names)
        lines.append(f"- **[{title}](reference/{key}.md).** {about} {shown}")
    lines.append(f"\n`vizapp.__version__` is the version, `{vizapp.__version__}` of this site.\n")
    return "\n".join(lines)


def _topic(title: str, about: str, names: list[str]) -> str:
    return "\n".join([f"# {title}\n", f"{about}\n", *(_object(name) for name in names)])


def _object(name: str) -> str:
    """The directive that mkdocstrings replaces by the documentation of an object."""
    # `methods` is a package, too, which can be called.
    called = "    options: {heading: vizapp.methods, toc_label: methods}\n" if name == "methods.methods" else ""
    return f"::: {_path(name)}\n{called}"


def _path(name: str) -> str:
    return f"vizapp.{name}"


def _short(name: str) -> str:
    return name.rpartition(".")[2]
