"""What people write as interventions: what each operation does, what the result tells, and what is refused."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

import vizapp
from tests.engine.trace.test_interventions import Written
from tests.errors import refuses
from tests.networks import Branching, seeded
from vizapp.engine.trace.observe import observe
from vizapp.media.drawing import to_png
from vizapp.media.sources import open_folder
from vizapp.zoo.intervention_text import in_words, read_intervention
from vizapp.zoo.interventions import Intervention, intervention_text, under
from vizapp.zoo.network import Network

NOISE = np.random.default_rng(0)
PHOTO, OTHER = (NOISE.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(2))


@pytest.fixture(scope="module")
def network() -> Network:
    return vizapp.wrap(seeded(Branching()), input_size=(3, 32, 32), categories=list("abcde"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("photos")
    for number in range(3):
        pixels = NOISE.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        (place / f"{number}.png").write_bytes(to_png(pixels))
    (place / "damaged.png").write_bytes(b"\x89PNG nothing")
    return place


def maps(network: Network, site: str, picture: Any = PHOTO) -> Tensor:
    return observe(network.module, network.prepare(picture), [network.site(site)])[site]


def test_scale_add_and_cells(network: Network) -> None:
    clean = maps(network, "body")[0]
    found = maps(
        under(
            network,
            [
                Intervention("body", [1, 2], "scale", 0.5),
                Intervention("body", 1, "add", -2),
                Intervention("body", 4, "scale", 0, cells=[(0, 1)]),
            ],
        ),
        "body",
    )[0]
    expected = clean.clone()
    expected[1] = clean[1] * 0.5 - 2
    expected[2] = clean[2] * 0.5
    expected[4, 0, 1] = 0
    torch.testing.assert_close(found, expected)


def test_the_mean_is_that_of_all_cells_of_all_readable_photos(network: Network, folder: Path) -> None:
    pictures = [picture for _, picture in open_folder(folder).open_readable(range(4))]
    assert len(pictures) == 3
    expected = torch.stack([maps(network, "cat", picture)[0] for picture in pictures]).mean((0, 2, 3))
    for given in (Intervention("cat", [6, 2], "mean", folder), Intervention("cat", [6, 2], "mean")):
        found = maps(under(network, [given], open_folder(folder)), "cat")[0]
        torch.testing.assert_close(found[[6, 2]], expected[[6, 2], None, None].expand(2, *found.shape[1:]))
        assert torch.equal(found[[0, 1, 3, 4, 5, 7]], maps(network, "cat")[0][[0, 1, 3, 4, 5, 7]])
    given = maps(under(network, [Intervention("cat", [6, 2], "mean", [0.5, 0.25])]), "cat")[0]
    assert given[6].eq(0.5).all()
    assert given[2].eq(0.25).all()


def test_frozen_units_have_the_values_of_the_other_photo(network: Network) -> None:
    found = maps(under(network, [Intervention("body", [0, 3], "freeze", OTHER)]), "body")[0]
    assert torch.equal(found[[0, 3]], maps(network, "body", OTHER)[0][[0, 3]])
    assert torch.equal(found[[1, 2, 4]], maps(network, "body")[0][[1, 2, 4]])
    clean, own = (
        each.scores(network.prepare(PHOTO))
        for each in (network, under(network, [Intervention("body", None, "freeze", PHOTO)]))
    )
    assert torch.equal(clean, own)


def test_a_skipped_branch_adds_nothing() -> None:
    torch.manual_seed(0)
    module = torchvision.models.resnet18(weights=None, num_classes=7)
    network = vizapp.wrap(module, input_size=(3, 64, 64))
    skipped = under(network, [Intervention("layer3.1.bn2", operation="skip")])
    block = maps(skipped, "layer3.1.relu_1", NOISE.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    picture = NOISE.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    block, before = maps(skipped, "layer3.1.relu_1", picture), maps(network, "layer3.0.relu_1", picture)
    assert torch.equal(block, before)
    with refuses("no-branch", "layer3.1.relu", "layer3.1.bn2"):
        under(network, [Intervention("layer3.1.relu", operation="skip")])


def test_results_of_any_method_say_what_was_changed(network: Network) -> None:
    given = [Intervention("body", [3, 4, 5, 7], "scale", 0), Intervention("mean", None, "add", 1)]
    told = "body: channels 3-5, 7 × 0; mean: all channels + 1"
    changed = vizapp.ask("predict", network, picture=PHOTO, interventions=given)
    assert changed.facts["interventions"] == told
    clean = vizapp.ask("predict", network, picture=PHOTO)
    assert "interventions" not in clean.facts
    head = network.module.head
    pooled = torch.relu(maps(network, "add"))
    body, cat = maps(network, "body"), maps(network, "cat")
    body[:, [3, 4, 5, 7]] = 0
    pooled = (body + cat).relu().mean((2, 3)) + 1
    np.testing.assert_allclose(
        changed.arrays["logits"], (pooled @ head.weight.T + head.bias)[0].numpy(), rtol=1e-5, atol=1e-5
    )


def test_every_layer_and_head_is_that_of_the_network_and_the_cache_key_is_another(network: Network) -> None:
    one, same, other = (under(network, [Intervention("body", 3, "scale", factor)]) for factor in (0.0, 0, 0.5))
    assert (one.sites, one.heads, one.categories) == (network.sites, network.heads, network.categories)
    assert one.digest == same.digest
    assert len({one.digest, other.digest, network.digest}) == 3
    assert one.clean is network
    frozen = [under(network, [Intervention("body", 3, "freeze", photo)]).digest for photo in (PHOTO, OTHER)]
    assert frozen[0] != frozen[1]
    both = under(one, [Intervention("body", 4, "scale", 0)])
    assert both.clean is network
    assert both.interventions == "body: channel 3 × 0; body: channel 4 × 0"
    assert maps(both, "body")[0, 3:5].eq(0).all()


def test_the_cache_key_is_the_same_in_every_process(network: Network) -> None:
    """No hash of an object and no address may be in it: two networks of the same weights give the same."""
    again = vizapp.wrap(seeded(Branching()), input_size=(3, 32, 32), categories=list("abcde"))
    given = [Intervention("body", [3], "freeze", PHOTO), Intervention("cat", None, "mean", 0.5)]
    assert under(network, given).digest == under(again, given).digest


@pytest.mark.parametrize(
    ("given", "code", "names"),
    [
        (Intervention("bdy", 1), "no-such-layer", ["bdy", "body"]),
        (Intervention("body", 8), "no-such-channel", ["body", "0 to 7", "8"]),
        (Intervention("body", "a"), "no-such-channel", ["'a'"]),
        (Intervention("body", []), "no-such-channel", ["none"]),
        (Intervention("body", 1, "scale", "x"), "bad-factor", ["'x'"]),
        (Intervention("body", 1, "scale", float("nan")), "bad-factor", ["nan"]),
        (Intervention("body", 1, "scale", 3.1), "bad-factor", ["3.1", "0 to 3"]),
        (Intervention("body", 1, "scale", -0.1), "bad-factor", ["-0.1"]),
        (Intervention("body", 1, "add", float("inf")), "bad-factor", ["inf"]),
        (Intervention("body", 1, "add", [1]), "bad-factor", ["[1]"]),
        (Intervention("body", 1, "mean"), "intervention-without-photo", ["body"]),
        (Intervention("body", [1, 2], "mean", [1.0]), "bad-factor", ["1 numbers for 2 channels"]),
        (Intervention("body", 1, "freeze"), "intervention-without-photo", ["body"]),
        (Intervention("body", 1, "silence"), "no-such-intervention", ["silence", "scale"]),  # type: ignore[arg-type]
        (Intervention("body", 1, cells=[(9, 0)]), "no-such-cell", ["9,0"]),
        (Intervention("body", 1, cells=[3]), "no-such-cell", ["[3]"]),  # type: ignore[list-item]
        (Intervention("mean", 1, cells=[(0, 0)]), "no-cells", ["mean"]),
        (Intervention("relu_1", operation="skip"), "no-branch", ["relu_1"]),
        ("body:1=0", "not-an-intervention", ["str"]),
    ],
)
def test_what_is_no_intervention_on_this_network_is_refused(
    given: Any, code: str, names: list[str], network: Network
) -> None:
    with refuses(code, *names):
        under(network, [given])


def test_a_mean_over_photos_can_be_cancelled(network: Network, folder: Path) -> None:
    class Cancelled(Exception):
        pass

    def tick(share: float) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        under(network, [Intervention("body", 1, "mean", folder)], tick=tick)


# ------------------------------------------------------------------------------------------------------------- as text


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("features.10:3=0", Intervention("features.10", [3], "scale", 0.0)),
        ("features.10:3,7=1.5", Intervention("features.10", [3, 7], "scale", 1.5)),
        ("layer1.0.relu_1:3-6,9=0", Intervention("layer1.0.relu_1", [3, 4, 5, 6, 9], "scale", 0.0)),
        ("fc:all=2", Intervention("fc", None, "scale", 2.0)),
        ("fc:2=mean", Intervention("fc", [2], "mean", 0.0)),
        ("fc:2=mean:0.25", Intervention("fc", [2], "mean", 0.25)),
        ("fc:2=mean:photos/cats", Intervention("fc", [2], "mean", "photos/cats")),
        ("fc:2=add:-0.5", Intervention("fc", [2], "add", -0.5)),
        ("body:2@1,2@3,4=0", Intervention("body", [2], "scale", 0.0, [(1, 2), (3, 4)])),
        ("body:all=freeze:C:/a=b.png", Intervention("body", None, "freeze", "C:/a=b.png")),
        ("layer1.0.bn2:all=skip", Intervention("layer1.0.bn2", None, "skip", 0.0)),
    ],
)
def test_texts_are_interventions_and_back(text: str, given: Intervention) -> None:
    assert read_intervention(text) == given
    assert intervention_text(given) == text


@pytest.mark.parametrize(
    "text",
    ["", "body", "body:3", "body=0", ":3=0", "body:=0", "body:x=0", "body:3=", "body:3=x", "body:3-=0", "body:5-3=0",
     "body:-1=0", "body:3=add", "body:3=add:x", "body:3=freeze", "body:3=skip:2", "body:3@1=0", "body:0-999999999=0"],
)  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    with refuses("bad-intervention", "SITE:CHANNELS=FACTOR"):
        read_intervention(text)


def test_interventions_come_before_the_parameters_of_a_method() -> None:
    """The contract of `ask`: by name, with any method."""
    assert inspect.signature(vizapp.ask).parameters["interventions"].default == ()


# ------------------------------------------------------------------------------------------------------ all the methods


@pytest.mark.parametrize(
    ("method", "array", "params"),
    [
        ("attribution", "attribution", {"kind": "gradcam"}),
        ("attribution", "attribution", {"kind": "integrated_gradients"}),
        ("attribution", "attribution", {"kind": "scorecam"}),
        ("attribution", "attribution", {"kind": "ablationcam"}),
        ("projection", "projection", {}),
        ("occlusion", "logit", {"window": 8, "stride": 8}),
        ("dense", "scores", {}),
    ],
)
def test_methods_answer_as_for_a_network_in_which_the_change_is_written(
    network: Network, method: str, array: str, params: dict[str, Any]
) -> None:
    """At a rectifier in place that runs twice."""
    factors = torch.ones(8)
    factors[[0, 3]], factors[5] = 0, 2
    written = vizapp.wrap(
        Written(seeded(Branching()), "relu_3", lambda value: value * factors[:, None, None]),  # type: ignore[arg-type]
        input_size=(3, 32, 32), categories=list("abcde"),
    )  # fmt: skip
    changes = [Intervention("relu_3", [0, 3], "scale", 0), Intervention("relu_3", 5, "scale", 2)]
    needs_unit = "unit" in vizapp.methods()[method].inputs

    def ask(asked: Network, given: list[Intervention]) -> np.ndarray:
        unit = vizapp.class_unit(asked, 1) if needs_unit else None
        return vizapp.ask(method, asked, PHOTO, unit=unit, interventions=given, **params).arrays[array]

    expected = ask(written, [])
    np.testing.assert_allclose(ask(network, changes), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert not np.allclose(ask(network, []), expected, rtol=1e-2)


@pytest.mark.parametrize(("value", "words"), [(0.0, "the folder"), ("samples", "samples")])
def test_a_mean_over_a_folder_is_told_with_the_folder(value: float | str, words: str) -> None:
    assert in_words(Intervention("layer4", [3], "mean", value)) == f"layer4: channel 3 = mean over {words}"
