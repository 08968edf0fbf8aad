"""Odd names of networks, layers, photos, folders and classes stay text in reports."""

from __future__ import annotations

import html
import os
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

import vizapp
from tests.corpus import ODD
from tests.networks import seeded
from vizapp.methods.provenance import Provenance
from vizapp.zoo.network import Network

TEXTS = (
    *ODD,
    '"\' onload="alert(1)',
    "</script><!-- ]]>",
    "<svg/onload=alert(1)>",
    "a\u2028b",
    "two\nlines",
    "&lt;b&gt;",
    "\x1b[31m",
)
PIXELS = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)


class Page(HTMLParser):
    """The kinds of elements with their attributes, how many scripts there are, and the text of the first heading."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.kinds: set[tuple[str, ...]] = set()
        self.scripts, self.heading, self._in = 0, "", ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.kinds.add((tag, *sorted(name for name, _ in attrs)))
        self.scripts += tag == "script"
        self._in = tag

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        self.heading += data if self._in == "h1" else ""


def network_of(name: str) -> Network:
    first = name if name and "." not in name else "first"
    module = nn.Sequential()
    for key, layer in {first: nn.Conv2d(3, 4, 3), "relu": nn.ReLU(), "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(),
                       "last": nn.Linear(4, 3)}.items():  # fmt: skip
        module.add_module(key, layer)
    return vizapp.wrap(seeded(module), (3, 16, 16), categories=[name, f"{name} b", "c"], name=name)


def written(name: str, network: Network) -> Page:
    """The report of four answers, with that name wherever one is given."""
    photo = vizapp.open_picture(PIXELS, name=name)
    answers = [vizapp.ask("predict", network, photo), vizapp.ask("knockout", network, photo)]
    answers.append(vizapp.ask("occlusion", network, photo, window=8, stride=8))
    answers.append(vizapp.ask("transform", network, photo, kind="shift-x", amounts=(1, 2)))
    sections = tuple(one.section(name, name, f"http://localhost/?a={name}") for one in answers)
    document = vizapp.Report(sections, name, name).to_html()
    document.encode()
    return Page(document)


@pytest.fixture(scope="module")
def plain() -> Page:
    return written("plain", network_of("plain"))


@pytest.mark.parametrize("name", TEXTS, ids=range(len(TEXTS)))
def test_an_odd_name_adds_no_element_and_no_attribute(name: str, plain: Page) -> None:
    network = network_of("plain")
    with suppress(vizapp.VizError):  # a name that no network may have
        network = network_of(name)
    page = written(name, network)
    assert page.kinds <= plain.kinds
    assert page.scripts == plain.scripts
    if name.isprintable():
        assert page.heading == name


def test_odd_names_of_files_and_folders(tmp_path: Path, plain: Page) -> None:
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    made = 0
    for number, name in enumerate(text for text in TEXTS if "/" not in text and text not in ("", "..")):
        with suppress(OSError, ValueError):
            os.makedirs(folder / name)
            Image.fromarray(PIXELS).save(folder / name / f"{number} {name[:100]}.png", "PNG")
            made += 1
    assert made > 20
    answer = vizapp.ask("evaluate", network_of("plain"), folder=folder)
    document = answer.to_html()
    document.encode()
    assert "<img src=x" not in document
    assert html.escape("<img src=x onerror=alert(1)>") in document
    assert Page(document).kinds <= plain.kinds | {("details", "open"), ("section", "class", "id")}


def test_a_name_that_is_half_a_character_has_a_link_and_a_command() -> None:
    asked = Provenance("predict", "Predict", "", "net\ud800", "default", params={"top": "\udbff"})
    asked.link.encode()
    assert "network=net%3F" in asked.link
