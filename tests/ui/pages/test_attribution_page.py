"""The page Attribution: maps by one rule, their numbers, the photo being deleted, the box, several photos, links."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import vizapp
from tests.media.files import saved
from tests.ui.app import Open, chosen, click, offered, pixels, sentences, shown, went_well, words
from vizapp.media.captions import captioned
from vizapp.media.samples import all_digits, digit_pixels, open_sample
from vizapp.methods.attribution import KINDS
from vizapp.methods.base import Result
from vizapp.methods.trust.params import BETTER
from vizapp.ui.pages.attribution import batch_runs, cards, form, map_runs, verdict
from vizapp.ui.session import progress

PHOTO, FEW = "digit 3", {"trust.kinds": "gradcam,random", "trust.measures": "deletion,insertion"}


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET", 60.0)


def answer(photo: Any = None, **params: Any) -> Result:
    network, picture = vizapp.load("vizapp/lenet5-digits"), photo or open_sample(PHOTO)
    return vizapp.ask("trust", network, picture, unit=vizapp.class_unit(network, 3), **params)


def shown_cards(app: AppTest) -> dict[str, dict[str, Any]]:
    """The cards by kind, in the order in which they are shown."""
    return {card["item"]: card for card in shown(app, "attribution.cards")["cards"]}


def numbers(card: dict[str, Any]) -> dict[str, str]:
    return {number["name"]: number["value"] for number in card["numbers"]}


def headlines(app: AppTest) -> str:
    return " ".join(
        html.proto.body for html in app.get("html") if html.proto.body.startswith('<div class="vz-headline"')
    )


def test_the_first_view_has_maps_numbers_and_a_sentence_that_says_which_to_trust(open_app: Open) -> None:
    app = open_app("attribution", picture=PHOTO)
    assert went_well(app)
    assert not app.warning
    found = shown_cards(app)
    assert set(found) == set(form.default_kinds())
    assert {"random", "edges"} <= set(found)
    assert all(
        card["picture"] and KINDS[kind].caution in "".join(t for t, _ in card["caution"])
        for kind, card in found.items()
    )
    assert {kind for kind, card in found.items() if card["plain"]} == {"random", "edges"}
    expected = answer(kinds="gradcam", measures="deletion,insertion,road,randomisation").arrays
    deletion, insertion, road, randomised = (f"{one:.3f}".replace("-", "−") for one in expected["scores"][0])
    assert numbers(found["gradcam"]) == {
        "Deletion ↓": deletion, "Insertion ↑": insertion, "ROAD ↑": road, "Shuffled weights → 0": randomised
    }  # fmt: skip
    curves = shown(app, "attribution.curves")
    (line,) = [line for line in curves["lines"] if line["item"] == "gradcam"]
    np.testing.assert_allclose(line["values"], expected["curves"][0, 0], atol=1e-6)
    assert curves["chosen"] == next(iter(found)), "the best one"
    told = headlines(app)
    assert ": " + KINDS[curves["chosen"]].title + ". It beats" in told or "No map is clearly better" in told
    assert offered(app) == ["Maps PNG", "Arrays NPZ", "Numbers CSV"]


def test_all_maps_are_drawn_by_one_rule() -> None:
    photo = np.full((20, 10, 3), 100, np.uint8)
    values = np.linspace(0, 1, 200).reshape(20, 10)
    drawn, doubled = (cards.drawn(photo, "gradcam", factor * values).astype(int) for factor in (1, 1000))
    np.testing.assert_array_equal(drawn, doubled)
    assert (drawn[0, 0] == 100).all(), "zero shows the photo"
    assert (drawn.reshape(-1, 3)[198:] == drawn[-1, -1]).all(), "full colour from the 99 % quantile on"
    assert (drawn.reshape(-1, 3)[150] != drawn[-1, -1]).any()
    red, _, blue = cards.drawn(photo, "integrated_gradients", values - 0.5)[[0, -1, 10], [0, -1, 0]].astype(int)[
        [1, 2, 0]
    ]
    assert red[0] > red[2] + 60
    assert blue[2] > blue[0] + 60
    assert (cards.drawn(photo, "gradcam", 0 * values) == 100).all()


def test_the_saved_maps_are_large_enough_to_see_and_have_names() -> None:
    small = np.full((28, 28, 3), 90, np.uint8)
    drawn = captioned(small, "Grad-CAM", 160)
    assert drawn.shape == (168 + 24, 168, 3)
    assert (drawn[:168] == 90).all()
    assert (drawn[168:] < 100).any(), "letters"
    assert captioned(np.zeros((224, 224, 3), np.uint8), "Edges", 160).shape == (248, 224, 3)


def test_a_sparse_map_and_one_far_from_zero_are_drawn() -> None:
    photo, sparse = np.full((20, 20, 3), 100, np.uint8), np.zeros((20, 20))
    sparse[3, 4], sparse[5, 6] = 2e-8, 1e-8
    drawn = cards.drawn(photo, "layercam", sparse).astype(int)
    assert (drawn[0, 0] == 100).all()
    assert np.abs(drawn[3, 4] - 100).max() > 100
    assert (drawn[5, 6] != drawn[3, 4]).any()
    level = 5 + np.linspace(0, 0.1, 400).reshape(20, 20)
    drawn = cards.drawn(photo, "rise", level).astype(int)
    assert (drawn[0, 0] == 100).all(), "the smallest value shows the photo"
    assert np.abs(drawn[19, 19] - drawn[0, 0]).max() > 100


def test_the_chosen_kinds_are_in_the_link_and_the_usual_ones_are_not(open_app: Open) -> None:
    app = open_app("attribution", picture=PHOTO, **{"trust.measures": "deletion"})
    app.multiselect(key="attribution.kinds").set_value(["random", "gradcam", "occlusion"]).run()
    assert went_well(app)
    assert set(chosen(app, "trust.kinds").split(",")) == {"random", "gradcam", "occlusion"}
    assert set(shown_cards(app)) == {"gradcam", "occlusion", "random"}
    app.multiselect(key="attribution.kinds").set_value(list(form.default_kinds())[::-1]).run()
    assert "trust.kinds" not in app.query_params
    app = open_app("attribution", picture=PHOTO, **FEW | {"trust.kinds": "gradcam,grad-cam"})
    assert "There is no kind of attribution 'grad-cam'." in sentences(app)
    assert set(shown_cards(app)) == {"gradcam"}


def test_a_link_brings_back_the_map_the_order_the_share_and_the_box(open_app: Open) -> None:
    values = vizapp.ask(
        "attribution", vizapp.load("vizapp/lenet5-digits"), open_sample(PHOTO), kind="gradcam",
        unit=vizapp.class_unit(vizapp.load("vizapp/lenet5-digits"), 3),
    ).arrays["attribution"]  # fmt: skip
    row, column = np.unravel_index(values.argmax(), values.shape)
    top, left = (0 if place > 22 else 25 for place in (row, column))  # a corner, far away from the strongest pixel
    link = {
        "attribution.kind": "random",
        "by": "insertion",
        "share": "40",
        "trust.box": f"{top},{left},{top + 2},{left + 2}",
    }
    app = open_app("attribution", picture=PHOTO, **FEW, **link)
    assert went_well(app)
    curves = shown(app, "attribution.curves")
    assert (curves["chosen"], curves["at"], curves["inserts"]) == ("random", 40, True)
    assert shown(app, "attribution.box")["box"] == [top, left, top + 2, left + 2]
    assert list(shown_cards(app)) == ["gradcam", "random"], "in the order of insertion"
    far = float(np.hypot(*(max(low - at, at - low - 1, 0) for low, at in ((top, row), (left, column)))))
    assert numbers(shown_cards(app)["gradcam"])["Pointing ↑"] == ("hit" if far <= 15 else "missed")
    click(app, "attribution.box", "box", [0, 0, 28, 28])
    assert numbers(shown_cards(app)["gradcam"])["Pointing ↑"] == "hit"
    assert chosen(app, "trust.box") == "0.0,0.0,28.0,28.0"
    click(app, "attribution.box", "box", [])
    assert "Pointing ↑" not in numbers(shown_cards(app)["gradcam"])
    app = open_app("attribution", picture=PHOTO, **FEW, **{"trust.box": "0,0,40,40"})
    assert "reaches outside" in sentences(app)
    assert shown(app, "attribution.box")["box"] is None


def test_the_photo_is_deleted_in_the_order_of_the_chosen_map(open_app: Open) -> None:
    app = open_app("attribution", picture=PHOTO, **FEW)
    click(app, "attribution.cards", "chosen", "gradcam")
    click(app, "attribution.curves", "share", 25)
    assert went_well(app)
    assert (chosen(app, "attribution.kind"), chosen(app, "share")) == ("gradcam", "25")
    data, expected = shown(app, "attribution.curves"), answer(kinds="gradcam", measures="deletion")
    values = expected.arrays["maps"][0].ravel()
    steps = np.frombuffer(base64.b64decode(data["steps"]), np.uint8)
    for share in (1, 25, 50):
        deleted = steps <= share
        assert deleted.sum() == (share * 784 + 50) // 100
        assert values[deleted].min() >= values[~deleted].max()
    np.testing.assert_array_equal(pixels(data["photo"]), vizapp.load("vizapp/lenet5-digits").seen(open_sample(PHOTO)))
    smooth = pixels(data["blurred"]).astype(int)
    assert np.abs(np.diff(smooth, axis=0)).max() < 40


def test_a_cancelled_run_keeps_its_maps_and_goes_on_when_asked(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = map_runs.methods.ask

    def endless(method: str, *given: Any, tick: Any, **params: Any) -> Result:
        while method == "trust":
            tick(0.1)
            time.sleep(0.01)
        return ask(method, *given, tick=tick, **params)

    with monkeypatch.context() as patch:
        patch.setattr(progress, "QUIET", 1.0)
        patch.setattr(map_runs.methods, "ask", endless)
        app = open_app("attribution", picture=PHOTO, **FEW)
        assert went_well(app)
        app.button(key="attribution.cancel").click().run()
    assert "Cancelled." in words(app)
    found = shown_cards(app)
    assert all(card["picture"] for card in found.values())
    assert set(numbers(found["gradcam"]).values()) == {"…"}
    assert headlines(app) == ""
    app.button(key="attribution.go_on").click().run()
    assert went_well(app)
    assert "Cancelled." not in words(app)
    assert "…" not in numbers(shown_cards(app)["gradcam"]).values()


def test_several_photos_begin_with_the_folder_that_is_open_beside_the_page(open_app: Open, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(saved(digit_pixels(all_digits()[0][20])))
    app = open_app("attribution", folder=str(tmp_path), picture="one.png", several="on", **FEW)
    assert went_well(app)
    assert app.button(key="attribution.several.run").label == "Measure 1 photo"
    assert chosen(app, "photos") == str(tmp_path)


def test_a_link_to_the_prediction_names_no_class(open_app: Open) -> None:
    app = open_app("attribution", picture=PHOTO, **FEW, **{"class": "4"})
    assert went_well(app)
    assert "class" not in app.query_params
    assert any(one.value.startswith("Explains **3**, ") for one in app.markdown)


def test_a_kind_that_is_not_defined_is_told_below_the_others(open_app: Open) -> None:
    link = FEW | {"attribution.explain": "unit", "layer": "features.0", "channel": "2"}
    app = open_app("attribution", picture=PHOTO, **link)
    assert went_well(app)
    assert not app.warning
    assert set(shown_cards(app)) == {"random"}
    assert "Not defined here. Grad-CAM: " in words(app)
    data = shown(app, "attribution.curves")
    assert data["name"] == "Unit 2 of features.0, of its activation on the whole photo"
    assert not data["share"]


def test_several_photos_give_means_with_intervals(open_app: Open, tmp_path: Path) -> None:
    for number in (20, 30):
        (tmp_path / f"{number}.png").write_bytes(saved(digit_pixels(all_digits()[0][number])))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    link = {"several": "on", "photos": str(tmp_path), "attribution.explain": "class", "class": "3"}
    app = open_app("attribution", picture=PHOTO, **FEW, **link)
    assert went_well(app)
    assert "cannot be opened" in sentences(app)
    app.button(key="attribution.several.run").click().run()
    assert went_well(app)
    each = np.array([
        answer(str(tmp_path / f"{photo}.png"), kinds="gradcam", measures="deletion", seed=seed).arrays["scores"][0, 0]
        for seed, photo in enumerate((20, 30))
    ])  # fmt: skip
    (table,) = [one.proto.body for one in app.get("html") if one.proto.body.startswith('<div class="vz-numbers"')]
    half = 12.706 * each.std(ddof=1) / 2**0.5  # Student's t, one degree
    (row,) = [row for row in table.split("<tr>") if row.startswith("<th>Grad-CAM<")]
    assert f"<td>{each.mean():.3f} <small>± {half:.3f}</small></td>" in row
    assert " of 2</td></tr>" in row
    assert offered(app) == ["Photos PNG", "Arrays NPZ", "Numbers CSV"]


MEASURES = ["deletion", "insertion", "road"]


def some_scores() -> dict[str, dict[str, float]]:
    """Grad-CAM beats both baselines by two measures, DeepLIFT by one."""
    return {
        "gradcam": {"deletion": 0.2, "insertion": 0.5, "road": 0.05},
        "deeplift": {"deletion": 0.1, "insertion": 0.3, "road": -0.1},
        "random": {"deletion": 0.3, "insertion": 0.4, "road": 0.0},
        "edges": {"deletion": 0.4, "insertion": 0.2, "road": 0.1},
    }


def test_the_map_that_beats_random_and_edges_by_most_numbers_is_first_and_to_be_trusted() -> None:
    scores = some_scores()
    judged = verdict.Verdict(scores, list(scores), MEASURES)
    assert judged.headline() == (
        "Most trustworthy on this photo: Grad-CAM. It beats random and edges by deletion and insertion, not by ROAD."
    )
    assert judged.about("gradcam") == ("Best by insertion. ROAD: no better than edges.", False)
    told = "Best by deletion. Insertion: no better than random. ROAD: no better than random or edges."
    assert judged.about("deeplift") == (told, False)
    assert judged.ordered() == list(scores)
    assert judged.ordered("deletion") == ["deeplift", "gradcam", "random", "edges"]
    scores["gradcam"] = scores["deeplift"] | {"deletion": 0.35}
    judged = verdict.Verdict(scores, ["gradcam", "random", "edges"], MEASURES)
    assert judged.headline() == "No map is clearly better than random and edges on this photo."
    assert verdict.Verdict({"gradcam": scores["gradcam"]}, ["gradcam"], MEASURES).headline() == "", "nothing to beat"


def test_a_map_with_more_wins_comes_before_one_with_better_ranks() -> None:
    scores = some_scores()
    for kind, found in (("deeplift", 0.0), ("gradcam", 0.9), ("random", 0.1), ("edges", 1.0)):
        scores[kind]["randomisation"] = found
    scores["deeplift"]["insertion"], scores["gradcam"]["road"] = 0.39, -0.2
    judged = verdict.Verdict(scores, list(scores)[::-1], [*MEASURES, "randomisation"])
    assert judged.ordered()[0] == "gradcam"
    assert "Grad-CAM" in judged.headline()


def test_a_map_that_turns_over_with_the_weights_is_as_bad_as_one_that_ignores_them() -> None:
    scores = {"gradcam": {"randomisation": -0.7}, "lrp": {"randomisation": 0.1}, "guided": {"randomisation": 0.6}}
    judged = verdict.Verdict(scores, list(scores), ["randomisation"])
    assert judged.best("randomisation") == "lrp"
    assert judged.ordered("randomisation") == ["lrp", "guided", "gradcam"]


def test_deletion_and_insertion_do_not_count_where_the_blurred_photo_keeps_the_score() -> None:
    scores = some_scores()
    judged = verdict.Verdict(scores, list(scores), MEASURES, weak=True)
    assert judged.headline() == "No map is clearly better than random and edges on this photo."
    assert judged.best("deletion") is None
    assert judged.about("gradcam") == ("ROAD: no better than edges.", False)
    for curve, weak in (([0.9, 0.2, 0.6], True), ([0.9, 0.2, 0.3], False), ([0.6, 0.9], True), ([0.3, 0.9], False)):
        found = map_runs.Found({}, {}, {"gradcam": {"deletion": np.array(curve)}}, {}, {})
        assert found.is_weak is weak


def test_photos_name_a_map_only_if_the_interval_of_the_difference_leaves_out_zero() -> None:
    base = np.array([0.1, 0.5, 0.9, 0.3])
    steady, unsteady = np.array([0.1, 0.12, 0.11, 0.1]), np.array([0.3, -0.2, 0.3, -0.1])
    each = np.stack([base + steady, base + unsteady, base], 1)[:, :, None]
    kinds = ("gradcam", "lrp", "random")
    now = batch_runs.Means(kinds, each, each.mean(0), each.mean(0), each.mean(0), {}, weak=False)
    scores = {kind: {"insertion": float(one)} for kind, one in zip(kinds, each.mean(0)[:, 0], strict=True)}

    def judged(*chosen: str) -> verdict.Verdict:
        return verdict.Verdict(
            scores, chosen, ["insertion"], beats=lambda kind, other, name: now.beats(kind, other, 0, name)
        )

    assert "Grad-CAM" in judged(*kinds).headline("over 4 photos", "too few")
    assert judged("lrp", "random").headline("over 4 photos", "too few") == "too few"


def test_the_measures_are_those_of_the_method() -> None:
    assert list(verdict.MEASURES) == list(BETTER)
