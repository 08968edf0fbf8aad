"""The generic page: every method without a page of its own is drawn from its declaration."""

from __future__ import annotations

import numpy as np
import pytest

import vizapp
from tests.ui.app import Open, chosen, floats, offered, rgba, sentences, shown, went_well
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


def test_a_class_is_explained_by_gradcam_and_a_unit_by_integrated_gradients_unless_chosen(open_app: Open) -> None:
    app = open_app("attribution", picture="digit 3")
    kinds = [app.selectbox(key="form.attribution.kind").value]
    app.button_group(key="attribution.explain").set_value("unit").run()
    assert went_well(app)
    assert sentences(app) == ""
    kinds.append(app.selectbox(key="form.attribution.kind").value)
    assert kinds == ["gradcam", "integrated_gradients"]
    app.selectbox(key="form.attribution.kind").set_value("smoothgrad").run()
    assert chosen(app, "attribution.kind") == "smoothgrad"


def test_every_method_has_a_page() -> None:
    shown = {key for page in pages().values() for key in page.methods}
    assert set(methods()) - shown == set()
    assert {"attribution", "sanity"} <= set(MORE)


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


@pytest.mark.parametrize(
    ("kind", "ends"),
    [("gradcam", ["none", "most"]), ("deeplift", ["against", "for"]), ("smoothgrad", ["lowers it", "raises it"])],
)
def test_the_scale_of_an_attribution_says_what_its_ends_mean(open_app: Open, kind: str, ends: list[str]) -> None:
    """Grad-CAM is never below zero and drawn bright; the others have both signs, and are drawn in red and blue."""
    app = open_app("attribution", picture="digit 3", **{"attribution.kind": kind, "attribution.steps": "2"})
    assert went_well(app)
    data = shown(app, "attribution.attribution")
    assert all(word in end for word, end in zip(ends, data["ends"], strict=True))
    values = floats(data["values"], tuple(data["cells"]))
    colours = rgba(data["heat"]).astype(int)
    strongest = colours[np.unravel_index(values.argmax(), values.shape)]
    weakest = colours[np.unravel_index(values.argmin(), values.shape)]
    if kind == "gradcam":
        share = values / values.max()  # zero shows the photo as it is
        np.testing.assert_allclose(colours[..., 3], 255 * share, atol=0.51)
        assert strongest[:3].sum() > 500  # pale yellow
    else:
        assert strongest[0] > strongest[2]
        assert weakest[0] < weakest[2]
    told = " ".join(element.value for element in app.markdown)
    assert ("bright" in told) == (kind != "deeplift")
    assert ("Red" in told) == (kind != "gradcam")
