"""Targets: planted segmenters whose numbers are known by hand, and what is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vizapp
from vizapp.engine.occlusion.sweep import Sweep
from vizapp.errors import VizError
from vizapp.media.picture import open_picture
from vizapp.zoo.interventions import under
from vizapp.zoo.network import Network
from vizapp.zoo.target import Target, class_map_logits, toward
from vizapp.zoo.target_text import read_target, target_text

SIDE = 16
PHOTO = open_picture(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))


class Colours(nn.Module):
    """A class map: the three colours, brightened by a 3 × 3 mean, at half the size."""

    def __init__(self, softmax: bool = False) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 3, stride=2, padding=1, bias=False)
        self.mix.weight.data = torch.eye(3)[:, :, None, None].expand(3, 3, 3, 3) / 9
        self.softmax = softmax

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = self.mix(x)
        return {"aux": found[:, :2], "out": found.softmax(1) if self.softmax else found}


class Averaged(Colours):
    """The same as a classifier: global average and a linear layer that changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.fc.weight.data, self.fc.bias.data = torch.eye(3), torch.zeros(3)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.fc(self.mix(x).mean((2, 3)))


def network(module: nn.Module, **options: object) -> Network:
    return vizapp.wrap(module, (3, SIDE, SIDE), mean=0.0, std=1.0, **options)  # type: ignore[arg-type]


def colours(**options: object) -> Network:
    return network(Colours(), categories=["red", "green", "blue"], **options)


def by_hand() -> np.ndarray:
    """The class map `[3 h w]` in loops."""
    pixels = np.pad(PHOTO.pixels.astype(np.float64) / 255, ((1, 1), (1, 1), (0, 0)))
    return np.array(
        [
            [[pixels[r : r + 3, c : c + 3, k].mean() for c in range(0, SIDE, 2)] for r in range(0, SIDE, 2)]
            for k in range(3)
        ]
    )


def scores(net: Network, target: Target) -> np.ndarray:
    aimed, _ = toward(net, target, PHOTO)
    return aimed.scores(aimed.prepare(PHOTO))[0].double().numpy()


def test_a_network_tells_that_it_returns_a_class_map() -> None:
    net = colours()
    assert (net.task, net.class_maps[0].shape, net.class_maps[0].head.key) == ("class map", (3, 8, 8), "out")
    np.testing.assert_allclose(class_map_logits(net, net.prepare(PHOTO))[0], by_hand(), atol=1e-6)
    assert network(Colours()).categories == ("class 0", "class 1", "class 2")


def test_a_cell_gives_the_logits_there() -> None:
    np.testing.assert_allclose(scores(colours(), Target(cell=(3, 5))), by_hand()[:, 3, 5], atol=1e-6)


def test_regions_give_the_mean_logits_of_their_cells() -> None:
    net, right = colours(), by_hand()
    np.testing.assert_allclose(scores(net, Target(region="whole")), right.mean((1, 2)), atol=1e-6)
    np.testing.assert_allclose(scores(net, Target(region=(4, 2, 8, 16))), right[:, 2:4, 1:8].mean((1, 2)), atol=1e-6)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[0:2, 0:2] = mask[6:8, 10:12] = True
    np.testing.assert_allclose(scores(net, Target(region=mask)), (right[:, 0, 0] + right[:, 3, 5]) / 2, atol=1e-6)
    green = right.argmax(0) == 1
    aimed, unit = toward(net, Target(class_="green"), PHOTO)
    np.testing.assert_allclose(
        scores(net, Target(class_="green", region="predicted")), right[:, green].mean(1), atol=1e-6
    )
    assert unit == vizapp.Unit("target", 1) == vizapp.class_unit(aimed, "green")
    assert aimed.target == f"region predicted as green, {green.sum()} cells"


def test_a_region_smaller_than_a_cell_is_the_cell_that_it_touches() -> None:
    np.testing.assert_allclose(scores(colours(), Target(region=(5, 5, 6, 6))), by_hand()[:, 2, 2], atol=1e-6)


def test_the_whole_map_equals_the_classifier_with_average_and_linear() -> None:
    """experiments.md, section 11."""
    classifier, net = network(Averaged(), categories=["red", "green", "blue"]), colours()
    unit = vizapp.class_unit(classifier, 1)
    options = {"window": 4, "stride": 2}
    one = vizapp.ask("occlusion", classifier, picture=PHOTO, unit=unit, **options)
    other = vizapp.ask("occlusion", net, picture=PHOTO, target=Target("green", region="whole"), **options)
    for name in ("logit", "probability", "label", "clean_logit"):
        np.testing.assert_allclose(other.arrays[name], one.arrays[name], atol=1e-6)
    down = vizapp.ask("projection", classifier, picture=PHOTO, unit=unit, rule="gradient").arrays["projection"]
    also = vizapp.ask("projection", net, picture=PHOTO, target=Target("green", region="whole"), rule="gradient").arrays
    np.testing.assert_allclose(also["projection"], down, atol=1e-7)


def test_a_map_of_probabilities_is_averaged_as_logits() -> None:
    """The mean of logarithms of probabilities, not the logarithm of their mean."""
    net = network(Colours(softmax=True))
    chance = torch.from_numpy(by_hand()).softmax(0).log()
    assert net.class_maps[0].head.scale == "probabilities"
    np.testing.assert_allclose(scores(net, Target(region="whole")), chance.mean((1, 2)), atol=1e-6)


def test_an_embedding_gives_the_cosine_with_another_photo() -> None:
    class Embedding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = Colours().mix

        def forward(self, x: Tensor) -> Tensor:
            return F.normalize(self.mix(x).flatten(1), dim=1)

    net = network(Embedding())
    assert (net.task, net.categories) == ("embedding", ())
    other = np.ascontiguousarray(PHOTO.pixels[::-1])
    found = vizapp.ask("predict", net, picture=PHOTO, target=Target(embedding=other))
    one, two = (net.module(net.prepare(p))[0].double() for p in (PHOTO, other))
    assert found.arrays["logits"] == pytest.approx(float(one @ two), abs=1e-6)
    assert found.arrays["probabilities"] == pytest.approx(float(one @ two), abs=1e-6)
    same = vizapp.ask("predict", net, picture=PHOTO, target=Target(embedding=PHOTO))
    assert same.arrays["logits"] == pytest.approx(1.0, abs=1e-6)


def test_the_embedding_of_a_classifier_is_its_last_hidden_layer() -> None:
    net = network(Averaged())
    hidden = [by_hand().mean((1, 2)), np.ascontiguousarray(PHOTO.pixels[:, ::-1])]
    aimed, unit = toward(net, Target(embedding=hidden[1]), PHOTO)
    mirrored = net.module.mix(net.prepare(hidden[1])).mean((2, 3))[0].double().numpy()  # type: ignore[union-attr,operator]
    right = hidden[0] @ mirrored / np.linalg.norm(hidden[0]) / np.linalg.norm(mirrored)
    assert aimed.scores(aimed.prepare(PHOTO)).item() == pytest.approx(right, abs=1e-6)
    assert unit == vizapp.Unit("target", 0)


def test_a_target_of_a_network_under_interventions_compares_with_the_unchanged_one() -> None:
    net = under(colours(), [vizapp.Intervention("mix", 1, "scale", 0.5)])
    aimed, _ = toward(net, Target(region="whole"), PHOTO)
    right = by_hand().mean((1, 2))
    np.testing.assert_allclose(scores(net, Target(region="whole")), right * [1, 0.5, 1], atol=1e-6)
    np.testing.assert_allclose(aimed.clean.scores(aimed.prepare(PHOTO))[0], right, atol=1e-6)
    assert aimed.untargeted is net
    later = under(toward(colours(), Target(region="whole"))[0], [vizapp.Intervention("mix", 1, "scale", 0.5)])
    np.testing.assert_allclose(later.scores(later.prepare(PHOTO))[0], right * [1, 0.5, 1], atol=1e-6)


def test_different_targets_have_different_digests_and_copies_keep_the_target() -> None:
    net = colours()
    one, two = np.zeros((2, SIDE, SIDE), bool)
    one[:2, :2], two[4:6, 4:6] = True, True
    made = [toward(net, t, PHOTO)[0] for t in (Target(region=one), Target(region=two), Target(cell=(0, 0)))]
    assert len({aimed.digest for aimed in (net, *made)}) == 4
    batch = net.prepare(PHOTO)
    assert torch.equal(copy.deepcopy(made[1].module)(batch), made[1].module(batch))


@pytest.mark.parametrize(
    ("target", "code", "told"),
    [
        (Target(cell=(8, 0)), "no-such-cell", "0,0 to 7,7, not 8,0"),
        (Target(cell=(0, 0), region="whole"), "bad-target", "not both"),
        (Target(class_="purple", region="whole"), "no-such-class", "purple"),
        (Target(class_=7, cell=(0, 0)), "no-such-class", "0 to 2"),
        (Target(region="everything"), "no-such-region", "everything"),
        (Target(region=(9, 0, 3, 4)), "empty-region", "no cells"),
        (Target(region=np.zeros((SIDE, SIDE), bool)), "empty-region", "no cells"),
        (Target(region=np.ones((3, 3), bool)), "other-size", "16 × 16"),
        (Target(region=np.full((SIDE, SIDE), np.nan)), "no-such-region", "array of float64"),
        (Target(box=(0, 0, 4, 4)), "no-boxes", "no boxes"),
        (Target(embedding=PHOTO), "no-embedding", "no vector"),
        (Target(head="second"), "no-class-scores", "class map"),
    ],
)
def test_what_the_network_lacks_is_refused_in_a_sentence(target: Target, code: str, told: str) -> None:
    with pytest.raises(VizError, match=told) as caught:
        vizapp.ask("predict", colours(), picture=PHOTO, target=target)
    assert caught.value.code == code


def test_a_class_that_is_predicted_nowhere_has_no_region() -> None:
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    black[..., 0] = 200
    with pytest.raises(VizError, match=r"No cell .* 'blue'.*predicted are: red"):
        toward(colours(), Target(class_="blue"), open_picture(black))


def test_classifiers_refuse_cells_and_take_classes() -> None:
    net = network(Averaged())
    with pytest.raises(VizError, match="no class map"):
        toward(net, Target(cell=(0, 0)), PHOTO)
    assert toward(net, Target(class_=2)) == (net, vizapp.class_unit(net, 2))


@pytest.mark.parametrize(
    "text", ["class=tabby cat cell=3,5", "region=whole", "class=3 region=1,2,30,40", "box=1,2,30.5,40", "box=3",
             "class=dog", "embedding=my photo.png", "head=fine"],
)  # fmt: skip
def test_texts_and_targets_are_the_same(text: str) -> None:
    assert target_text(read_target(text)) == text


@pytest.mark.parametrize(
    "text", ["", "dog", "cell=3", "cell=a,b", "class=", "class=1 class=2", "box=1,2", "x class=1", "region=1,2"]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(VizError) as caught:
        read_target(text)
    assert caught.value.code == "bad-target"


def test_an_embedding_is_occluded_by_windows_as_by_whole_passes() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))

        def forward(self, x: Tensor) -> Tensor:
            return F.normalize(self.layers(x).mean((2, 3)), dim=1)

    aimed, _ = toward(network(Deep()), Target(embedding=np.ascontiguousarray(PHOTO.pixels[::-1])), PHOTO)
    clean = aimed.prepare(PHOTO)
    sweep = Sweep(aimed.module, aimed.scores, clean, clean * 0 + 0.5, [(0, 0, 4, 4), (6, 6, 10, 10), (12, 8, 16, 12)])
    assert sweep.facts["evaluation"].startswith("Only what an occluder touches")
    found = torch.cat([answers.scores for answers in sweep.batches()])
    np.testing.assert_allclose(found, sweep.answer_by_whole_passes([0, 1, 2]).scores, atol=1e-6)


def test_class_maps_are_made_of_all_bands() -> None:
    bands = np.random.default_rng(3).random((SIDE, SIDE, 4), np.float32)
    mix = nn.Conv2d(4, 4, 1, bias=False)
    mix.weight.data = torch.eye(4)[:, :, None, None]
    net = vizapp.wrap(nn.Sequential(mix), (4, SIDE, SIDE), mean=0.0, std=1.0)
    found = vizapp.ask("predict", net, picture=bands).arrays
    np.testing.assert_array_equal(found["label"], bands.argmax(2))
    np.testing.assert_allclose(found["scores"], bands.transpose(2, 0, 1), atol=1e-6)
