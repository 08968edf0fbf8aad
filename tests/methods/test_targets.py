"""Every method toward a cell, a region and an embedding, against loops of whole passes, formulas and autograd."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vizapp
from tests.media.files import noise, saved
from tests.networks import saved_run
from vizapp.engine.occlusion.sweep import Answers, Sweep
from vizapp.errors import VizError
from vizapp.methods import methods
from vizapp.methods.occlusion.occluder import positions
from vizapp.zoo.network import Network
from vizapp.zoo.target import Target, toward

SIDE, CELL, CLASS = 32, (11, 20), 1
BOX = (8, 4, 24, 16)
PHOTO = vizapp.open_picture(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8))
OTHER = vizapp.open_picture(np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8))


class Segmenter(nn.Module):
    """An encoder and decoder with a skip connection. `kind` says what it returns."""

    def __init__(self, kind: str = "dict", classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.down = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, classes, 1)
        self.norm.running_mean.normal_(0, 0.1)
        self.norm.running_var.uniform_(0.5, 1.5)
        self.head.weight.data *= 5

    def forward(self, x: Tensor) -> Any:
        if self.kind == "pairs":  # each picture sees the mean of the batch
            x = x + x.mean(0)
        skip = F.relu(self.norm(self.down(x)))
        coarse = self.head(F.relu(self.deep(skip)) + skip)
        fine = F.interpolate(coarse, size=x.shape[-2:], mode="bilinear", align_corners=False)
        if self.kind == "list":
            return [fine, coarse]
        if self.kind == "softmax":
            return fine.softmax(1)
        return {"coarse": coarse, "sigmoid": fine.sigmoid(), "dict": {"out": fine}}.get(self.kind, fine)


class Embedder(nn.Module):
    """A vector of length 1, or the scores of a linear layer whose input is the embedding."""

    def __init__(self, classes: bool = False) -> None:
        super().__init__()
        self.classes = classes
        torch.manual_seed(1)
        self.first, self.second = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 8, 3)
        self.out = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(self.first(x).relu()).relu().mean((2, 3))
        return self.out(hidden) if self.classes else F.normalize(self.out(hidden), dim=1)


def segmenter(kind: str = "dict", classes: int = 3) -> Network:
    names = [f"thing {n}" for n in range(classes)]
    return vizapp.wrap(Segmenter(kind, classes), (3, SIDE, SIDE), categories=names, name="segmenter")


def embedder() -> Network:
    return vizapp.wrap(Embedder(), (3, SIDE, SIDE), name="embedder")


def vector(net: Network, batch: Tensor) -> Tensor:
    """The embedding `[N D]` by the module alone: its answer, or the input of its last layer."""
    kept: list[Tensor] = []
    handle = net.module.out.register_forward_hook(lambda m, args, output: kept.append(args[0]))
    answer = net.module(batch)
    handle.remove()
    return kept[0] if net.categories else answer


def class_map(net: Network, batch: Tensor) -> Tensor:
    """The logits `[N classes h w]` by the module alone."""
    found = net.module(batch)
    if isinstance(found, dict):
        return found["out"]
    return found[0] if isinstance(found, list) else found


TARGETS = {
    "cell": (Target(CLASS, cell=CELL), lambda maps: maps[:, :, CELL[0], CELL[1]]),
    "region": (Target(CLASS, region=BOX), lambda maps: maps[:, :, BOX[0] : BOX[2], BOX[1] : BOX[3]].mean((2, 3))),
}


def predicted(net: Network) -> Tensor:
    """Where the class is the strongest on the photo, bool `[h w]`."""
    return class_map(net, net.prepare(PHOTO))[0].argmax(0) == CLASS


def scores_by_hand(net: Network, name: str, batch: Tensor) -> Tensor:
    """The class scores `[N classes]` toward a target, from the module's answers."""
    if name in EMBEDDINGS:
        return F.cosine_similarity(vector(net, batch), vector(net, net.prepare(OTHER)))[:, None]
    maps = class_map(net, batch)
    return maps[:, :, predicted(net)].mean(2) if name == "predicted" else TARGETS[name][1](maps)


def asked(name: str) -> tuple[Network, Target, int]:
    """A network, the target of that name, and the number of its class."""
    if name in EMBEDDINGS:
        if name == "embedding":
            return embedder(), Target(embedding=OTHER), 0
        classifier = vizapp.wrap(Embedder(classes=True), (3, SIDE, SIDE), categories=list("abcdef"), name="classifier")
        return classifier, Target(embedding=OTHER), 0
    return segmenter(), Target(CLASS, region="predicted") if name == "predicted" else TARGETS[name][0], CLASS


EMBEDDINGS = ("embedding", "hidden")
NAMES = [*TARGETS, "predicted", *EMBEDDINGS]


@pytest.mark.parametrize("fill", ["grey", "mean"])
@pytest.mark.parametrize("name", NAMES)
def test_occlusion_is_a_loop_of_whole_passes(name: str, fill: str) -> None:
    net, target, class_ = asked(name)
    found = vizapp.ask("occlusion", net, picture=PHOTO, target=target, window=12, stride=11, fill=fill).arrays
    seen = net.seen(PHOTO)
    colour = (128, 128, 128) if fill == "grey" else np.rint(seen.reshape(-1, 3).mean(0))
    boxes = positions((SIDE, SIDE), (12, 12), 11).boxes
    for row, column in np.ndindex(*boxes.shape[:2]):
        top, left, bottom, right = boxes[row, column]
        hidden = seen.copy()
        hidden[max(top, 0) : bottom, max(left, 0) : right] = colour
        logits = scores_by_hand(net, name, net.batch([hidden]))[0].double()
        assert found["logit"][row, column] == pytest.approx(float(logits[class_]), abs=1e-5)
        share = logits[class_] if name in EMBEDDINGS else logits.softmax(0)[class_]
        assert found["probability"][row, column] == pytest.approx(float(share), abs=1e-5)
        assert found["label"][row, column] == logits.argmax()


@pytest.mark.parametrize("name", NAMES)
def test_projections_by_the_gradient_are_those_of_autograd(name: str) -> None:
    net, target, class_ = asked(name)
    found = vizapp.ask("projection", net, picture=PHOTO, target=target, rule="gradient", seed="one").arrays[
        "projection"
    ]
    batch = net.prepare(PHOTO).repeat(2, 1, 1, 1).requires_grad_()
    with torch.enable_grad():
        score = scores_by_hand(net, name, batch)[:, class_].sum()
    (right,) = torch.autograd.grad(score, batch)
    np.testing.assert_allclose(found, right[0].permute(1, 2, 0), atol=1e-6 * float(right.abs().max()) + 1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_grad_cam_is_its_formula(name: str) -> None:
    net, target, class_ = asked(name)
    layer = "second" if name in EMBEDDINGS else "deep"
    found = vizapp.ask("attribution", net, picture=PHOTO, target=target, kind="gradcam", layer=layer).arrays
    kept: list[Tensor] = []
    batch = net.prepare(PHOTO).repeat(2, 1, 1, 1).requires_grad_()
    region = predicted(net) if name == "predicted" else None
    reference = vector(net, net.prepare(OTHER)) if name in EMBEDDINGS else None
    handle = net.module.get_submodule(layer).register_forward_hook(lambda m, args, output: kept.append(output))
    try:
        with torch.enable_grad():
            if reference is not None:
                score = F.cosine_similarity(vector(net, batch), reference).sum()
            elif region is not None:
                score = class_map(net, batch)[:, class_][:, region].mean(1).sum()
            else:
                score = TARGETS[name][1](class_map(net, batch))[:, class_].sum()
            (gradient,) = torch.autograd.grad(score, kept[0])
    finally:
        handle.remove()
    heat = (gradient[0].mean((1, 2), keepdim=True) * kept[0][0]).sum(0).relu()
    right = F.interpolate(heat[None, None], (SIDE, SIDE), mode="bilinear", align_corners=False)[0, 0].detach()
    np.testing.assert_allclose(found["attribution"], right, atol=1e-5 * float(right.max()) + 1e-9)


def test_cams_of_a_cell_take_the_last_features_not_the_class_map() -> None:
    """There HiResCAM is the contribution of each cell of the features; at the class map it would be the cell itself."""
    maps = [
        vizapp.ask("attribution", segmenter(), picture=PHOTO, target=Target(CLASS, cell=cell), kind="hirescam")
        for cell in (CELL, (25, 5))
    ]
    assert {one.facts["layer"] for one in maps} == {"add"}
    assert np.abs(maps[0].arrays["attribution"] - maps[1].arrays["attribution"]).max() > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_knocked_out_units_are_whole_passes_with_zeros(name: str) -> None:
    net, target, class_ = asked(name)
    layer = "second" if name in EMBEDDINGS else "deep"
    found = vizapp.ask("knockout", net, picture=PHOTO, target=target, site=layer)
    region = vector(net, net.prepare(OTHER)) if name in EMBEDDINGS else predicted(net)
    batch = net.prepare(PHOTO)
    clean = scores_by_hand(net, name, batch)[0, class_]
    for unit in range(8):
        handle = getattr(net.module, layer).register_forward_hook(lambda m, a, output, unit=unit: _zeroed(output, unit))
        answer = vector(net, batch) if name in EMBEDDINGS else class_map(net, batch)
        handle.remove()
        if name in EMBEDDINGS:
            score = F.cosine_similarity(answer, region)[0]
        else:
            maps = answer
            score = (maps[:, :, region].mean(2) if name == "predicted" else TARGETS[name][1](maps))[0, class_]
        assert found.arrays["logit_change"][unit] == pytest.approx(float(score - clean), abs=1e-5)
    assert ("cosine change" in found.table[0]) == (name in EMBEDDINGS)


def _zeroed(output: Tensor, unit: int) -> Tensor:
    output = output.clone()
    output[:, unit] = 0
    return output


@pytest.mark.parametrize("name", NAMES)
def test_transformed_photos_get_the_scores_of_whole_passes(name: str) -> None:
    net, target, _ = asked(name)
    found = vizapp.ask("transform", net, picture=PHOTO, target=target, kind="shift-x", amounts=(0, 3), edge="grey")
    moved = np.full_like(PHOTO.pixels, 128)
    moved[:, 3:] = PHOTO.pixels[:, :-3]
    logits = scores_by_hand(net, name, net.batch([PHOTO.pixels, moved]))
    right = logits if name in EMBEDDINGS else logits.softmax(1)
    np.testing.assert_allclose(found.arrays["probability"], right, atol=1e-5)
    assert found.table[1]["cosine" if name in EMBEDDINGS else "probability"] == pytest.approx(
        float(right[1, int(right[0].argmax())]), abs=1e-5
    )


def test_measures_of_trust_are_of_the_targets_own_score() -> None:
    net, target, _ = asked("embedding")
    found = vizapp.ask("trust", net, picture=PHOTO, target=target, kinds="random", measures="deletion,insertion")
    whole = float(scores_by_hand(net, "embedding", net.prepare(PHOTO)))
    assert found.arrays["curves"][0, 0, 0] == pytest.approx(whole, abs=1e-5)
    assert found.arrays["curves"][0, 1, -1] == pytest.approx(whole, abs=1e-5)
    assert found.facts["score"] == "The cosine, as the target defines it."
    assert "%" not in found.facts["explained"]


def test_answers_that_are_no_probabilities_are_not_called_so() -> None:
    net, target, _ = asked("embedding")
    found = vizapp.ask("occlusion", net, picture=PHOTO, target=target, window=12, stride=11)
    drawn = [panel.title for panel in found.panels]
    assert "e-label" not in drawn, "one score has no most probable class"
    words = " ".join([*(panel.caption for panel in found.panels), found.facts["class"], found.facts["evaluation"]])
    assert "robab" not in words
    assert "Cosine" in words
    assert "scores differ" in words
    assert "%" not in found.facts["class"]
    segments = vizapp.ask("occlusion", segmenter(), picture=PHOTO, target=TARGETS["cell"][0], window=12, stride=11)
    assert "e-label" in [panel.title for panel in segments.panels]
    assert "Probability of thing 1" in segments.panels[3].caption


def test_a_wrong_plan_of_one_score_is_found() -> None:
    """The softmax of one score is 1 whatever the score is."""
    net, target, _ = asked("embedding")
    aimed, _ = toward(net, target, PHOTO)
    batch = aimed.prepare(PHOTO)
    sweep = Sweep(aimed.module, aimed.scores, batch, torch.zeros_like(batch), [(0, 0, 9, 9), (4, 4, 20, 20)])
    occluders = sweep._batches
    assert occluders is not None, sweep.facts
    expected = sweep.answer_by_whole_passes([0, 1])
    sweep._compare(expected, Answers((0, 1), expected.scores + 2e-5, None), occluders)
    assert sweep._batches is None
    assert sweep.facts["evaluation"].startswith("A whole pass for each occluder: windows gave numbers that are off")


@pytest.mark.parametrize("kind", ["dict", "list", "coarse", "softmax", "sigmoid", "pairs", "one"])
def test_maps_of_every_form_are_explained_alike(kind: str) -> None:
    """Dicts, lists, coarse maps, probabilities, one class, and a network that answers otherwise in a batch."""
    net = segmenter(kind, 1) if kind == "one" else segmenter(kind)
    cell, class_ = (5, 10), 0 if kind == "one" else 1
    target = Target(class_, cell=cell)
    found = vizapp.ask("occlusion", net, picture=PHOTO, target=target, window=16, stride=16).arrays
    twice = vizapp.ask(
        "occlusion", net, picture=PHOTO, target=target, window=16, stride=16,
        interventions=[vizapp.Intervention("deep", 2, "scale", 3.0)],
    ).arrays  # fmt: skip
    plain = Segmenter("coarse" if kind == "coarse" else "plain", 1 if kind == "one" else 3)
    plain.kind = "pairs" if kind == "pairs" else plain.kind
    plain = plain.eval()
    for arrays, factor in ((found, 1.0), (twice, 3.0)):
        changed = Segmenter(plain.kind, len(plain.head.weight)).eval()
        changed.deep.register_forward_hook(lambda m, a, output, factor=factor: _scaled(output, 2, factor))
        for row, column in np.ndindex(2, 2):
            hidden = PHOTO.pixels.copy()
            hidden[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 128
            with torch.no_grad():
                logits = changed(net.batch([hidden]))[0, :, cell[0], cell[1]].double()
            right = logits.log_softmax(0) if kind == "softmax" else logits
            assert arrays["logit"][row, column] == pytest.approx(float(right[class_]), abs=2e-5)
            chance = logits.softmax(0) if kind not in ("sigmoid", "one") else logits.sigmoid()
            assert arrays["probability"][row, column] == pytest.approx(float(chance[class_]), abs=1e-5)


def _scaled(output: Tensor, unit: int, factor: float) -> Tensor:
    output = output.clone()
    output[:, unit] *= factor
    return output


def test_the_predicted_region_of_one_photo_is_not_that_of_others(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(saved(noise(SIDE, SIDE, seed=number)))
    net, target, _ = asked("predicted")
    for key, more in (
        ("occlusion", {"window": 16}),
        ("transform", {"kind": "shift-x"}),
        ("trust", {"kinds": "random"}),
    ):
        with pytest.raises(VizError, match="predicted region") as alone:
            vizapp.ask(key, net, folder=tmp_path, target=target, **more)
        assert alone.value.code == "missing-input"
        if key != "occlusion":
            with pytest.raises(VizError, match=r"predicted.* of one photo"):
                vizapp.ask(key, net, picture=PHOTO, folder=tmp_path, target=target, **more)
    several = vizapp.ask("occlusion", net, folder=tmp_path, target=TARGETS["cell"][0], window=16, stride=16)
    assert several.arrays["logit"].shape == (2, 2, 2)
    cosines = vizapp.ask("occlusion", embedder(), folder=tmp_path, target=Target(embedding=OTHER), window=16, stride=16)
    named = Target(embedding=vizapp.open_picture(OTHER.pixels, name="predicted.png"))
    vizapp.ask("transform", embedder(), picture=PHOTO, folder=tmp_path, target=named, kind="shift-x", amounts=(0, 2))
    assert "cosine" in cosines.facts["summary"]
    assert "cosine" in cosines.panels[0].caption


# What each method is asked beside the target, and why it may refuse.
_MORE: dict[str, dict[str, Any]] = {
    "architecture": {"repeats": 0}, "occlusion": {"window": 12, "stride": 11}, "colours": {"parts": 2},
    "evolution": {"units": 2}, "gallery": {"top": 2, "workers": 0}, "probe": {"photos": 3, "splits": 1},
    "ideal": {"steps": 2, "size": SIDE}, "evaluate": {"workers": 0}, "neighbours": {"k": 2}, "arithmetic": {},
    "trust": {"kinds": "gradcam", "measures": "deletion"}, "attribution": {"kind": "gradcam"},
    "transform": {"kind": "shift-x", "amounts": (0, 2)},
}  # fmt: skip
_REFUSE = {
    "colours": "vector without cells", "dense": "convolutional|other form", "filters": "kernels|needs a unit",
    "teach": "taught", "evaluate": "the answer is a cosine",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cell", "embedding"])
@pytest.mark.parametrize("key", methods())
def test_every_method_answers_or_says_why_not(
    key: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, target, _ = asked(name)
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path / "cache"))
    photos = tmp_path / "photos"
    photos.mkdir()
    names = ("thing 0", "thing 1")
    for number in range(8):
        (photos / f"{number}.png").write_bytes(saved(noise(SIDE, SIDE, seed=number)))
    (tmp_path / "classes.csv").write_text("".join(f"photos/{n}.png,{names[n % 2]}\n" for n in range(8)))
    options, needs = dict(_MORE.get(key, {})), methods()[key].needs
    if "folder" in needs or key == "colours":
        labelled = key in ("evaluate", "probe", "teach")
        options["folder"] = vizapp.open_folder(tmp_path / "classes.csv" if labelled else photos)
    if "picture" in needs or key == "atlas":
        options["picture"] = PHOTO
    if key == "correspondence":
        options |= {"parts": [(noise(SIDE, SIDE, seed=n), (9, 9, 20, 20)) for n in range(4)], "draws": 1}
    if key == "gallery":
        options |= {"out": str(tmp_path / "gallery"), "sites": "second" if name in EMBEDDINGS else "deep"}
    if key == "evolution":
        options["checkpoints"] = saved_run(net.module, tmp_path / "run")
    refused = ""
    try:
        found = vizapp.ask(key, net, target=target, **options)
    except VizError as error:
        refused = str(error)
    if refused:
        assert re.search(_REFUSE.get(key, "$^"), refused), f"{key}: {refused}"
        return
    assert found.facts["target"]
    for output in methods()[key].shows:
        array = found.arrays.get(output.array, np.zeros(1))
        if output.kind != "table":  # whose cells are NaN where a layer has no such number
            assert array.dtype.kind not in "fc" or np.isfinite(array).all(), output.array
