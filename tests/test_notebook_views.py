"""What notebooks display of networks, photos, methods and results: closed HTML without scripts, of bounded size."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import vizapp
from tests.corpus import ODD
from vizapp.markup import Displayed
from vizapp.media.samples import open_sample
from vizapp.methods.base import Panel, Result
from vizapp.methods.params import knobs
from vizapp.references import LINKS

_EMPTY = {"img"}
_ALLOWED = {
    "a", "b", "code", "details", "div", "figcaption", "figure", "img", "p", "pre", "summary", "table", "tbody", "td", "th",
    "thead", "tr",
}  # fmt: skip


class Page(HTMLParser):
    """Reads a fragment: its tags in order, its text, its pictures; fails where a tag is not closed or not allowed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.pictures: list[tuple[int, int]] = []
        self.links: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _ALLOWED, tag
        self.tags.append(tag)
        if tag not in _EMPTY:
            self.open.append(tag)
        for name, value in attrs:
            assert name in {"style", "alt", "width", "height", "src", "href", "target", "rel", "open"}, name
            if name == "src":
                head, _, data = (value or "").partition(";base64,")
                assert head in {"data:image/png", "data:image/jpeg"}
                self.pictures.append(Image.open(BytesIO(base64.b64decode(data, validate=True))).size)
            if name == "href":
                self.links.append(value or "")
                assert value in LINKS.values()
            if name == "style":
                assert not re.search(r"url|white|black|#|rgb\(", (value or "").replace("white-space", ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)


def page(shown: Displayed) -> Page:
    html = shown._repr_html_()
    assert shown._repr_mimebundle_() == {"text/plain": repr(shown), "text/html": html}
    assert len(repr(shown)) < 1000
    html.encode()  # no halves of characters
    return Page(html)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)
        self.last = nn.Linear(4, 3)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.last(self.layer(batch).relu().mean((2, 3)))


def small(**options: object) -> vizapp.zoo.network.Network:  # type: ignore[name-defined]
    torch.manual_seed(0)
    return vizapp.wrap(Small(), input_size=(3, 24, 24), **options)


def test_a_network_tells_its_input_classes_layers_and_how_to_ask_it() -> None:
    network = small(categories=["tea", "<i>coffee</i>", "a & b"], name="own")
    shown = page(network)
    assert shown.tags.count("details") == 4
    for told in (
        "own",
        "3 × 24 × 24",
        "class scores",
        "127",
        "float32 on cpu",
        "Layers (4)",
        "4 × 22 × 22",
        "3 classes",
    ):
        assert told in shown.text
    assert "tea, <i>coffee</i>, a & b" in shown.text
    assert "vizapp.Unit('relu', channel=0)" in shown.text
    assert repr(network) == "Network('own', weights 'own', input 3 × 24 × 24, on cpu)"


def test_a_network_with_many_layers_and_classes_shows_the_first_and_says_how_many_more() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(27, 27) for _ in range(60))
            self.last = nn.Linear(27, 1000)

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            batch = batch.flatten(1)
            for layer in self.layers:
                batch = layer(batch)
            return self.last(batch)

    network = vizapp.wrap(Deep(), input_size=(3, 3, 3))
    html, shown = network._repr_html_(), page(network)
    assert len(html) < 9_000
    assert "… and 42 more rows" in shown.text  # flatten, 60 layers, the last
    assert "… and 980 more classes" in shown.text


def test_a_network_that_cannot_be_looked_into_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise vizapp.VizError("It hides what it computes.", code="opaque")

    network = small()
    vars(network).pop("_measured", None)
    monkeypatch.setattr("vizapp.zoo.network.measured", refused)
    shown = page(network)
    assert "It hides what it computes." in shown.text
    assert "127" in shown.text


def test_a_network_that_is_changed_says_so() -> None:
    network = small()
    result = vizapp.ask(
        "predict", network, open_sample("chelsea"), interventions=[vizapp.Intervention("relu", [1], "scale", 0)]
    )
    assert "relu: channel 1 × 0" in page(result).text


@pytest.fixture(scope="module")
def result() -> Result:
    network = small(categories=["tea", "coffee", "milk"])
    return vizapp.ask("occlusion", network, open_sample("chelsea"), window=8, stride=8)


def test_a_result_shows_its_pictures_cautions_facts_arrays_and_how_to_keep_it(result: Result) -> None:
    shown = page(result)
    assert len(shown.pictures) == min(len(result.panels), 8)
    assert all(panel.title in shown.text for panel in result.panels[:8])
    assert result.facts["caution"] in " ".join(shown.text.split())
    assert "⚠" in shown.text
    assert 'result.save("folder")' in shown.text
    assert "result.to_html()" in shown.text
    for name, array in result.arrays.items():
        assert name in shown.text
        assert str(array.dtype) in shown.text
    probability = result.arrays["probability"]
    assert f"{probability.min():.4g} to {probability.max():.4g}" in shown.text
    assert result.provenance is not None
    assert shown.text.count("chelsea.png") >= 2  # in the title, and in what was asked


def test_the_text_of_a_result_holds_no_values(result: Result) -> None:
    large = Result("predict", {"a": np.arange(10**6).reshape(1000, 1000)}, (Panel("p", np.zeros((9, 9, 3), np.uint8)),))
    assert repr(large) == "Result('predict', arrays a int64 [1000, 1000], 1 panel)"
    assert "array(" not in repr(result) + repr(large.panels)


def test_a_large_result_stays_small() -> None:
    random = np.random.default_rng(0)
    panels = tuple(
        Panel(f"panel {number}", random.integers(0, 256, (600, 800, 3), np.uint8), "noise") for number in range(144)
    )
    rows = tuple({"row": number, "name": "x" * 5000} for number in range(1000))
    facts = {f"fact {number}": "y" * 50_000 for number in range(20)}
    result = Result("predict", {"a": np.zeros(3)}, panels, facts, rows)
    html, shown = result._repr_html_(), page(result)
    assert len(html) < 800_000
    assert len(shown.pictures) == 8
    assert max(max(size) for size in shown.pictures) <= 224
    assert "… and 136 more pictures" in shown.text
    assert "Table (1,000 rows)" in shown.text
    assert "… and 980 more rows" in shown.text


def test_small_pictures_keep_their_pixels_and_wide_ones_their_shape() -> None:
    digit = np.random.default_rng(1).integers(0, 256, (28, 28, 3), np.uint8)
    html = Result("predict", {}, (Panel("digit", digit),))._repr_html_()
    assert "pixelated" in html
    data = re.findall(r"base64,([^\"]+)", html)
    assert (np.array(Image.open(BytesIO(base64.b64decode(data[0])))) == digit).all()
    wide = Result("predict", {}, (Panel("wide", np.zeros((100, 1000, 3), np.uint8)),))
    assert page(wide).pictures == [(480, 48)]


def test_arrays_of_every_type_have_a_range_or_none() -> None:
    arrays = {
        "nan": np.array([np.nan, np.inf]), "some": np.array([1.0, np.nan, 3.0]), "none": np.zeros(0),
        "words": np.array(["a"]), "bits": np.array([True, False]), "number": np.array(2.5), "object": np.array([None]),
    }  # fmt: skip
    text = page(Result("predict", arrays)).text
    for told in ("not finite", "1 to 3, 1 value not finite", "one number", "2.5 to 2.5"):
        assert told in text


def test_odd_names_are_escaped_everywhere() -> None:
    names = [*ODD, "</details><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a'b\nc"]
    photo = vizapp.open_picture(np.zeros((30, 30, 3), np.uint8))
    for odd in names:
        panels = (Panel(odd, np.zeros((4, 4, 3), np.uint8), odd),)
        facts = {odd: odd, "network": odd, "caution": odd}
        shown = page(Result("predict", {odd: np.zeros(2)}, panels, facts, ({odd: odd},), documents={odd: odd}))
        assert shown.tags.count("img") == 1
        assert shown.tags.count("details") == 3
        assert len(shown.text) < 8_000
        assert page(replace(photo, name=odd, notes=(odd,), label=odd)).tags.count("img") == 1
    network = small(categories=["a", "b", "c"])
    for start in range(0, len(names), 10):
        odd, some = names[start], tuple(names[start : start + 10])
        assert page(replace(network, name=odd, categories=some, facts={odd: odd})).tags.count("details") == 4


def test_a_photo_tells_its_size_and_what_was_converted() -> None:
    stack = vizapp.open_picture(np.random.default_rng(0).random((40, 50, 5)).astype(np.float32), name="field")
    shown = page(stack)
    assert "50 × 40 pixels" in shown.text
    assert stack.notes[0] in shown.text
    assert repr(stack) == "Picture('field', 50 × 40 pixels, 5 bands of float32)"


def test_every_method_tells_its_paper_its_parameters_and_its_arrays() -> None:
    listed = vizapp.methods()
    for method in listed.values():
        shown = page(method)
        assert method.title in shown.text
        assert f'vizapp.ask("{method.key}", network' in shown.text
        for knob in knobs(method.params).values():
            assert knob.name in shown.text
            assert knob.allowed in shown.text
        for output in method.shows:
            assert output.kind in shown.text
    assert LINKS["zeiler-2013"] in page(listed["occlusion"]).links
    assert all(key in Page(listed._repr_html_()).text for key in listed)  # type: ignore[attr-defined]
    assert "function" not in repr(listed)
