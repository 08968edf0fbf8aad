"""What a report may hold: escaped texts and data, no path of the machine, nothing from elsewhere; and how large it is."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vizapp
from tests.networks import seeded
from vizapp.media.samples import open_sample
from vizapp.report.document import Report
from vizapp.report.markup import as_json
from vizapp.report.section import Section, View

ODD = {
    "tag": "</title></script><script>alert(1)</script><img src=x onerror=alert(1)>",
    "quotes": '"\' onload="alert(1)',
    "comment": "<!-- <script> --> ]]>",
    "separators": "a\u2028b\u2029c",
    "turned": "a\u202etxt.exe",
    "surrogate": "\ud800",
    "nul": "a\0b",
    "template": "${alert(1)} `x` {{y}} \\",
    "link": "javascript:alert(1)",
    "long": "x" * 5000,
}


class Reader(HTMLParser):
    """The elements of a document with their attributes, and the text of its data."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[str] = []
        self._in_data = False
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in_data = tag == "script" and ("type", "application/json") in attrs

    def handle_data(self, data: str) -> None:
        if self._in_data:
            self.data.append(data)
        self._in_data = False


def skeleton(document: str) -> list[str]:
    return [tag for tag, _ in Reader(document).elements]


def section(text: str) -> Section:
    pixels = np.zeros((4, 4, 3), np.uint8)
    data = {"x": "", "series": [{"name": text, "y": ""}], "label": text, "axis": text}
    return Section(
        text, text[:100], {text: text}, (text,), (View("curves", data, text, text, ((text, text),), {text: pixels}),),
        {text: pixels}, {text: text}, ({text: text},), {text: text}, text, text, text,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_odd_texts_add_no_element_and_no_attribute(kind: str) -> None:
    document = Report((section(ODD[kind]),), ODD[kind], ODD[kind]).to_html()
    document.encode()
    plain = Report((section("plain"),), "plain", "plain").to_html()
    assert skeleton(document) == skeleton(plain)
    assert [set(given) for _, given in Reader(document).elements] == [set(given) for _, given in Reader(plain).elements]
    assert not any(name.startswith("on") or name == "style" for _, given in Reader(document).elements for name in given)
    assert not any("javascript:" in (given.get("href") or "") for _, given in Reader(document).elements)
    label = json.loads(Reader(document).data[0])["label"]
    assert label == ODD[kind].translate(dict.fromkeys((0, 0x202E, 0xD800), "\ufffd"))


def test_data_are_json_without_what_ends_a_script() -> None:
    written = as_json({"a": "</script><!--\u2028", "b": [float("nan"), np.float32(2), float("inf")], 3: (1, True)})
    assert not re.search(r"[<\u2028]|NaN|Infinity", written)
    assert json.loads(written) == {"a": "</script><!--\u2028", "b": [None, 2.0, None], "3": [1, True]}


def test_numbers_of_a_table_stand_right_below_their_heading_and_have_a_minus_sign() -> None:
    table = ({"name": "a-b", "value": -0.25, "rank": -3}, {"name": "-1", "value": 1e-7, "rank": None})
    document = Report((Section("T", "", table=table),)).to_html()
    assert '<th>name</th><th class="number">value</th><th class="number">rank</th>' in document
    assert '<td>a-b</td><td class="number">−0.25</td><td class="number">−3</td>' in document
    assert '<td>-1</td><td class="number">1e−07</td>' in document


def test_nothing_is_loaded_from_elsewhere_and_the_policy_forbids_it() -> None:
    network = vizapp.load("vizapp/lenet5-digits", device="cpu")
    document = vizapp.ask("attribution", network, open_sample("digit 3"), unit=vizapp.class_unit(network, 3)).to_html()
    read = Reader(document)
    sources = [given["src"] for _, given in read.elements if given.get("src")]
    assert sources
    assert all((source or "").startswith("data:image/") for source in sources)
    policy = next(given["content"] for tag, given in read.elements if "http-equiv" in given)
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy


def test_no_folder_of_the_machine_is_in_a_report(tmp_path: Path) -> None:
    secret = tmp_path / "secret-folder"
    secret.mkdir()
    network = vizapp.load("vizapp/lenet5-digits", device="cpu")
    torch.save(network.module.state_dict(), secret / "mine.pt")
    photo = open_sample("digit 3").pixels
    Image.fromarray(photo).save(secret / "own photo.png")
    Image.fromarray(photo[::-1]).save(secret / "other.png")
    (secret / "broken.png").write_bytes(b"no photo")
    loaded = vizapp.load("vizapp/lenet5-digits", secret / "mine.pt", device="cpu")
    alone = vizapp.ask("predict", loaded, secret / "own photo.png")
    several = vizapp.ask("transform", loaded, folder=secret, kind="shift-x", amounts=(0, 2))
    document = vizapp.Report((alone.section(), several.section())).to_html()
    assert "mine.pt" in document
    assert "own photo.png" in document
    assert "secret-folder/" not in document
    assert str(tmp_path) not in document
    assert str(Path.home()) not in document


def test_the_size_is_known_before_the_file_is_made(tmp_path: Path) -> None:
    network = vizapp.load("vizapp/lenet5-digits", device="cpu")
    photo, unit = open_sample("digit 3"), vizapp.class_unit(network, 3)
    results = [
        vizapp.ask("predict", network, photo),
        vizapp.ask("attribution", network, photo, unit=unit),
        vizapp.ask("occlusion", network, photo, window=7, stride=7),
    ]
    for some in (results[:1], results[1:2], results[2:], results):
        report = vizapp.Report(tuple(one.section() for one in some), "Größe")
        assert report.nbytes == pytest.approx(report.save(tmp_path / "a.html").stat().st_size, rel=0.05)


def test_only_the_components_that_are_used_are_in_the_file() -> None:
    network = vizapp.load("vizapp/lenet5-digits", device="cpu")
    document = vizapp.ask("predict", network, open_sample("digit 3")).to_html()
    assert "panels" not in document
    assert "crosshair" not in document


def test_names_of_networks_photos_and_classes_are_escaped() -> None:
    module = seeded(
        torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(4, 2),
        )
    )
    odd = ODD["tag"]
    network = vizapp.wrap(module, (3, 32, 32), categories=[odd, "b"], name=odd)
    photo = vizapp.open_picture(open_sample("digit 3").pixels, name=odd)
    for key, more in {"predict": {}, "occlusion": {"window": 8, "stride": 8}, "knockout": {}}.items():
        document = vizapp.ask(key, network, photo, **more).to_html()
        assert "<script>alert" not in document
        assert not any("onerror" in given for _, given in Reader(document).elements)
        assert all(tag != "img" or (given["src"] or "").startswith("data:") for tag, given in Reader(document).elements)
