"""The generic page: every method without a page of its own is drawn from its declaration."""

from __future__ import annotations

import pytest

import vizapp
from tests.ui.app import Open, chosen, offered, sentences, went_well
from vizapp.methods import methods
from vizapp.ui.app.pages import pages, sections

MORE = [page.key for page in sections()["More"]]


@pytest.mark.parametrize(("network", "rule"), [("resnet20-cifar", "guided"), ("zfnet-mini", "deconvnet")])
@pytest.mark.slow
def test_the_sanity_check_is_of_the_rule_that_suits_the_network(open_app: Open, network: str, rule: str) -> None:
    """ResNet-20 has no max pool; all its deconvnet projections are the same weave."""
    app = open_app("sanity", network=f"vizapp/{network}", weights="random", picture="digit 3")
    assert went_well(app)
    assert app.button_group(key="form.sanity.rule").value == rule
    assert "sanity.rule" not in app.query_params
    app.button_group(key="form.sanity.rule").set_value("gradient").run()
    assert went_well(app)
    assert chosen(app, "sanity.rule") == "gradient"


def test_every_method_has_a_page() -> None:
    shown = {key for page in pages().values() for key in page.methods}
    assert set(methods()) - shown == set()
    assert "sanity" in MORE


@pytest.mark.parametrize("page", MORE)
def test_a_page_shows_the_answer_about_the_predicted_class(open_app: Open, page: str) -> None:
    app = open_app(page, picture="digit 3")
    assert went_well(app)
    assert sentences(app) == ""
    assert {"Arrays NPZ", "Facts JSON"} <= set(offered(app))
    method = methods()[page]
    words = " ".join(caption.value for caption in app.caption)
    if "unit" in method.needs:
        network = vizapp.load("vizapp/lenet5-digits")
        answer = vizapp.ask("predict", network, picture=vizapp.media.samples.open_sample("digit 3")).table[0]
        assert f"class {answer['class']}" in words
    assert "Computed in" in words
