"""The links of reports open the page with the answer that they come from."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

import vizapp
from tests.ui.app import Open, went_well
from vizapp.media.samples import open_sample
from vizapp.methods.base import Job, Method, Question, Result

ASKED: dict[str, dict[str, Any]] = {
    "attribution": {"kind": "lrp", "class_": 3}, "knockout": {"site": "features.1", "class_": 3},
    "arithmetic": {"unit": vizapp.Unit("features.4", 2, (1, 1))}, "stages": {"maps": 3, "project": False},
    "projection": {"class_": 3},
}  # fmt: skip


@pytest.mark.parametrize(
    "key", [pytest.param("attribution", marks=pytest.mark.slow), "knockout", "arithmetic", "stages", "projection"]
)
def test_a_link_asks_the_same(key: str, open_app: Open, patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    network, given = vizapp.load("vizapp/lenet5-digits", device="cpu"), dict(ASKED[key])
    unit = vizapp.class_unit(network, given.pop("class_")) if "class_" in given else given.pop("unit", None)
    told = vizapp.ask(key, network, open_sample("digit 6"), unit=unit, **given).provenance
    assert told is not None
    asked: list[tuple[str, Any, Any]] = []
    answer = Method.answer

    def spied(self: Method, question: Question, params: Any, job: Job) -> Result:
        result = answer(self, question, params, job)
        if result.provenance is not None:
            asked.append((self.key, question.unit, dict(result.provenance.params)))
        return result

    monkeypatch.setattr(Method, "answer", spied)
    address = urlsplit(told.link)
    assert went_well(open_app(address.path[1:], **dict(parse_qsl(address.query))))
    found = [(unit, params) for name, unit, params in asked if name == key]
    assert any(one == unit and told.params.items() <= params.items() for one, params in found), asked
