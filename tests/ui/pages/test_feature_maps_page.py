"""The page Feature maps: the strip from early to late, the clipped scale, and the way from one to the other."""

from __future__ import annotations

import numpy as np

import vizapp
from tests.ui.app import Open, chosen, click, pixels, shown, went_well, words
from vizapp.media.samples import open_sample

PHOTO = "digit 3"


def activations(layer: str) -> np.ndarray:
    network = vizapp.load("vizapp/lenet5-digits")
    return vizapp.ask("activations", network, open_sample(PHOTO), unit=vizapp.Unit(layer, 0)).arrays["activations"]


def test_the_page_opens_from_early_to_late_and_each_picture_opens_the_card_of_its_unit(open_app: Open) -> None:
    app = open_app("feature_maps", picture=PHOTO)
    assert went_well(app)
    rows = shown(app, "maps.early_to_late")["rows"]
    assert [row["site"] for row in rows] == ["features.1", "features.4"]
    for row, field in zip(rows, ("5 × 5", "14 × 14"), strict=True):
        values = activations(row["site"])
        assert row["items"] == np.argsort(-values.max((1, 2)), kind="stable")[:6].tolist()
        assert f"each sees {field} pixels" in row["note"]
        assert f"{values.shape[2]} × {values.shape[1]} cells" in row["note"]
        assert all(row["pair"])
        assert pixels(row["tiles"]["src"]).shape[:2] == (values.shape[1], 6 * values.shape[2])
    channel = rows[1]["items"][3]
    app = click(app, "maps.early_to_late", "unit", ["features.4", channel])
    assert went_well(app)
    assert chosen(app, "card") == f"features.4:{channel}"
    assert shown(app, "maps.early_to_late")["rows"] == rows, "the strip stays behind the card"
    app = click(app, "maps.diagram", "site", "features.1")
    assert app.selectbox(key="maps.layer").value == "features.1"


def test_the_strip_shows_as_many_maps_as_the_address_asks_for_and_projects_nothing_if_it_says_so(
    open_app: Open,
) -> None:
    app = open_app("feature_maps", picture=PHOTO, stages="all", **{"stages.maps": "2", "stages.project": "False"})
    assert went_well(app)
    data = shown(app, "maps.early_to_late")
    assert [len(row["items"]) for row in data["rows"]] == [2, 2]
    assert not any(any(row["pair"]) for row in data["rows"])
    assert "what excites" not in words(app)
    app.number_input(key="form.stages.maps").set_value(4).run()
    assert [len(row["items"]) for row in shown(app, "maps.early_to_late")["rows"]] == [4, 4]
    assert chosen(app, "stages.maps") == "4"


def test_the_sheet_is_clipped_at_the_99th_percentile_and_says_so(open_app: Open) -> None:
    app = open_app("feature_maps", picture=PHOTO, layer="features.1")
    values = activations("features.1")
    high, largest = np.percentile(values, 99), values.max()
    told = " ".join(html.proto.body for html in app.get("html"))
    assert f"99 % of the values are at most {high:.3g}; larger ones, up to {largest:.3g}" in told
    clipped = pixels(shown(app, "maps.sheet")["sprite"])
    app.segmented_control(key="maps.scale").set_value("layer").run()
    whole = pixels(shown(app, "maps.sheet")["sprite"])
    assert (clipped.astype(int).sum(-1) >= whole.astype(int).sum(-1) - 3).mean() > 0.99, "brighter, if anything"
    assert clipped.astype(int).sum() > whole.astype(int).sum()
    assert "from the smallest to the largest value" in " ".join(html.proto.body for html in app.get("html"))
    assert chosen(app, "scale") == "layer"
    app.segmented_control(key="maps.scale").set_value("channel").run()
    assert "Each channel has its own scale" in words(app)


def test_tiles_carry_the_numbers_of_their_channels(open_app: Open) -> None:
    data = shown(open_app("feature_maps", picture=PHOTO, layer="features.1", order="number"), "maps.sheet")
    assert data["tags"] == [str(number) for number in range(6)]
    assert data["titles"] == [f"Channel {number}" for number in range(6)]
