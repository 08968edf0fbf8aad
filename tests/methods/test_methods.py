"""Every method gives a result or says why not; predict and activations equal a plain pass through the network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import vizapp
from tests.errors import refuses
from tests.media.files import noise, saved
from tests.networks import Aliasing, Branching, Breaking, saved_run, seeded
from tests.watched import Block
from vizapp.engine.precision import arithmetic
from vizapp.errors import VizError
from vizapp.methods import base, methods
from vizapp.methods.output import Output
from vizapp.zoo.network import Network

CLASSES = ("cat", "dog", "coffee cup", "rocket", "flower")


@pytest.fixture(scope="module")
def network() -> Network:
    return vizapp.wrap(seeded(Branching()), input_size=(3, 48, 40), categories=CLASSES)


@pytest.fixture(scope="module")
def picture() -> vizapp.media.picture.Picture:  # type: ignore[name-defined]
    return vizapp.open_picture(np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8), "noise")


# What makes a method quick here; all else stands at its default.
QUICK: dict[str, dict[str, object]] = {
    "occlusion": {"window": 24, "stride": 24},
    "ideal": {"steps": 2},
    "gallery": {"workers": 0},
    "architecture": {"repeats": 0},
    "probe": {"photos": 3, "splits": 1},
    "attribution": {"steps": 2},
    "trust": {"kinds": "gradcam,random", "measures": "deletion"},
    "correspondence": {
        "parts": [(np.full((60, 50, 3), grey, np.uint8), (2, 3, 20, 18)) for grey in (0, 60, 250)],
        "draws": 1,
    },
}


def asked(key: str, network: Network, picture: object, folder: Path) -> dict[str, object]:
    """Everything that the method needs, of a tiny network."""
    for label in ("cat", "dog"):  # the same photo, so that one of them is a mistake
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.pixels).save(folder / label / "a.png")  # type: ignore[attr-defined]
    if key in ("probe", "teach"):  # need classes
        for number in range(10):
            (folder / f"class {number % 2}").mkdir(exist_ok=True)
            (folder / f"class {number % 2}" / f"{number}.png").write_bytes(saved(noise(48, 40, seed=number)))
    site = next((site for site in network.sites if site.is_map), network.sites[-1])
    given = {"picture": picture, "folder": str(folder), "unit": vizapp.Unit(site.name, 1)}
    more = {"checkpoints": saved_run(network.module, folder.parent / "run")} if key == "evolution" else {}
    return {need: given[need] for need in methods()[key].needs} | QUICK.get(key, {}) | more


def matches(output: Output, values: np.ndarray) -> bool:
    """Whether an array has the shape and type that its kind promises."""
    if output.kind == "curves":
        return values.ndim in (1, 2)
    if output.kind in ("signed image", "images") and values.shape[-1] != 3:
        return False
    dimensions = {"signed image": 3, "per-class map": 3, "images": 3}.get(output.kind, 2)
    return values.ndim >= dimensions and values.dtype.kind in {"label map": "iu", "images": "u"}.get(output.kind, "f")


@pytest.mark.parametrize("key", methods())
def test_every_method_gives_back_what_it_declares(key: str, network, picture, tmp_path: Path) -> None:
    shares: list[float] = []
    result = vizapp.ask(key, network, **asked(key, network, picture, tmp_path / "photos"), tick=shares.append)
    method = methods()[key]
    assert method.shows
    for output in method.shows:
        if output.kind == "table":
            assert result.table
            continue
        if key == "predict":  # what it declares beside the table is of segmenters: see `test_predict_kinds`
            continue
        assert matches(output, result.arrays[output.array]), output
        if output.is_map and output.kind != "per-class map":
            drawn = [output.draw(item) for item in output.items(result.arrays[output.array])[:2]]
            assert all((pixels.dtype, pixels.shape[2]) == (np.uint8, 3) for pixels in drawn)
    assert all(panel.pixels.dtype == np.uint8 and panel.pixels.shape[2] == 3 for panel in result.panels)
    assert method.summary
    assert method.source
    assert shares[0] == 0
    assert shares[-1] == 1
    result.save(tmp_path / "saved")
    assert (tmp_path / "saved" / ("_result" if result.store else "") / "arrays.npz").is_file()


def reduced_precision() -> tuple[bool, bool, str]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()


class Convolutions(TorchDispatchMode):
    """Notes what torch is told about rounding at each convolution, on the way forth and back: readable without a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[bool, bool, str]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if "convolution" in func.__name__:
            self.seen.add(reduced_precision())
        return func(*args, **kwargs or {})


@pytest.fixture
def a_caller_who_rounds() -> Iterator[None]:
    torch.set_float32_matmul_precision("high")
    assert reduced_precision() == (True, True, "high")
    yield
    assert reduced_precision() == (True, True, "high"), "as before"
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("key", methods())
@pytest.mark.usefixtures("a_caller_who_rounds")
def test_every_method_computes_in_the_precision_of_the_type(key: str, network, picture, tmp_path: Path) -> None:
    asking, ticks = asked(key, network, picture, tmp_path), set()
    with Convolutions() as convolutions:
        vizapp.ask(key, network, **asking, tick=lambda share: ticks.add(reduced_precision()))
    assert convolutions.seen == {(False, False, "highest")}
    assert ticks == {(True, True, "high")}, "others may compute meanwhile"


@pytest.mark.usefixtures("a_caller_who_rounds")
def test_a_sweep_that_is_to_be_rounded_is(network, picture, monkeypatch: pytest.MonkeyPatch) -> None:
    as_on_a_gpu = lambda device, precision: arithmetic(torch.device("cuda"), precision)  # noqa: E731
    monkeypatch.setattr("vizapp.engine.occlusion.sweep.arithmetic", as_on_a_gpu)
    with Convolutions() as convolutions:
        vizapp.ask("occlusion", network, picture=picture, precision="tf32", window=24, stride=24)
    assert convolutions.seen == {(False, False, "highest"), (True, True, "high")}, "it is checked against exact passes"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (60, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def used_cache(tmp_path_factory: pytest.TempPathFactory, network, photos: Path) -> Path:
    """The cache of somebody who has built a gallery of every layer over these photos."""
    folder = tmp_path_factory.mktemp("used")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIZAPP_CACHE", str(folder))
        for sites in ({"sites": "all"}, {}):
            vizapp.ask("gallery", network, folder=photos, workers=0, **sites)
    return folder


WITH_CACHE: dict[str, tuple[str, dict[str, object]]] = {
    **{key: (key, {}) for key in methods()},
    "occlusion beside a folder": ("occlusion", {"folder": True}),
    "occlusion with a pass": ("occlusion", {"folder": True, "others": "pass"}),
}


@pytest.mark.parametrize("name", WITH_CACHE)
def test_a_used_cache_changes_no_answer(
    name: str, network, picture, photos: Path, used_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, more = WITH_CACHE[name]
    asking = asked(key, network, picture, tmp_path) | more | ({"folder": str(photos)} if "folder" in more else {})
    if key == "gallery":
        asking["folder"] = str(photos)
    monkeypatch.setattr("vizapp.methods.occlusion.other_images.LOOKED", 5)  # photos of a pass; a gallery has all 12
    answers = []
    for cache in (used_cache, tmp_path / "empty"):
        monkeypatch.setenv("VIZAPP_CACHE", str(cache))
        answers.append(vizapp.ask(key, network, **asking))
    used, empty = answers
    assert used.arrays.keys() == empty.arrays.keys()
    for array in used.arrays:
        np.testing.assert_array_equal(used.arrays[array], empty.arrays[array], strict=True)
    assert [panel.title for panel in used.panels] == [panel.title for panel in empty.panels]
    assert all((a.pixels == b.pixels).all() for a, b in zip(used.panels, empty.panels, strict=True))
    if more.get("others"):
        monkeypatch.setenv("VIZAPP_CACHE", str(used_cache))
        found = vizapp.ask(key, network, **asking | {"others": "gallery"})
        assert found.facts["others"].startswith("From the gallery of 12 photos"), "the used cache does hold a gallery"


def refusal(key: str, network: Network, asking: dict[str, object]) -> VizError | None:
    """Why the method does not answer; None where it does."""
    try:
        vizapp.ask(key, network, **asking)
    except VizError as error:
        return error
    return None


@pytest.mark.parametrize("key", methods())
def test_every_method_answers_or_says_why_not_where_there_are_no_maps(key: str, picture, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(108, 7), nn.ReLU(), nn.Linear(7, 3))
    network = vizapp.wrap(seeded(module), input_size=(3, 6, 6))
    error = refusal(key, network, asked(key, network, picture, tmp_path))
    assert error is None or str(error).endswith(".")


def test_predict_is_the_softmax_of_the_networks_scores(network, picture) -> None:
    result = vizapp.ask("predict", network, picture, top=3)
    with torch.no_grad():
        logits = network.module(network.prepare(picture))[0]
    np.testing.assert_allclose(result.arrays["logits"], logits.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.arrays["probabilities"], logits.softmax(0).numpy(), rtol=1e-5)
    order = logits.argsort(descending=True)[:3].tolist()
    assert [row["class"] for row in result.table] == order
    assert result.table[0]["name"] == CLASSES[order[0]]


def test_ten_crops_are_the_corners_and_the_centre_with_their_mirror_images(network, picture) -> None:
    from torchvision.transforms import functional as tv

    result = vizapp.ask("predict", network, picture, crops="ten")
    resize = network.preprocessing.resize or round(48 * 256 / 224)
    image = tv.resize(Image.fromarray(picture.pixels), resize, tv.InterpolationMode.BILINEAR)
    crops = tv.ten_crop(image, (48, 40))
    how = network.preprocessing
    batch = torch.stack([tv.normalize(tv.to_tensor(crop), how.mean, how.std) for crop in crops])
    with torch.no_grad():
        expected = network.module(batch).softmax(1).mean(0)
    np.testing.assert_allclose(result.arrays["probabilities"], expected.numpy(), atol=2e-6)
    assert result.facts["crops"] == "mean of ten crops"


def test_multi_crop_takes_three_scales(network, picture) -> None:
    shares: list[float] = []
    result = vizapp.ask("predict", network, picture, crops="multi", tick=shares.append)
    assert "30 crops" in result.facts["crops"]
    assert result.arrays["probabilities"].sum() == pytest.approx(1, abs=1e-5)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_activations_are_those_of_the_layer(network, picture) -> None:
    result = vizapp.ask("activations", network, picture, unit=vizapp.Unit("stem", 2))
    with torch.no_grad():
        expected = network.module.stem(network.prepare(picture))[0].numpy()
    np.testing.assert_allclose(result.arrays["activations"], expected, rtol=1e-5, atol=1e-6)
    assert expected.min() < 0, "the in-place ReLU after the layer did not rewrite it"
    by_channel = {row["channel"]: row for row in result.table}
    assert by_channel[2]["max"] == pytest.approx(expected[2].max(), rel=1e-5)
    assert by_channel[2]["mean"] == pytest.approx(expected[2].mean(), rel=1e-4)
    peaks = expected.reshape(8, -1).max(1)
    assert [row["channel"] for row in result.table] == np.argsort(-peaks, kind="stable").tolist()


def test_fraction_of_zeros_and_silent_channels(network, picture) -> None:
    for site in ("stem", "relu_3"):  # with and without numbers below zero
        result = vizapp.ask("activations", network, picture, unit=vizapp.Unit(site, 0))
        values = result.arrays["activations"]
        for row in result.table:
            assert row["zeros"] == pytest.approx((values[row["channel"]] == 0).mean())


def test_vectors_and_classes_are_activations_too(network, picture) -> None:
    result = vizapp.ask("activations", network, picture, unit=vizapp.class_unit(network, "coffee cup"))
    logits = vizapp.ask("predict", network, picture).arrays["logits"]
    np.testing.assert_allclose(result.arrays["activations"], logits, rtol=1e-5)
    assert result.panels == ()


def test_save_writes_pictures_arrays_and_facts(network, picture, tmp_path: Path) -> None:
    result = vizapp.ask("activations", network, picture, unit=vizapp.Unit("relu", 1))
    folder = result.save(tmp_path / "new" / "folder")
    with np.load(folder / "arrays.npz") as arrays:
        np.testing.assert_array_equal(arrays["activations"], result.arrays["activations"])
    summary = json.loads((folder / "result.json").read_text())
    assert summary["facts"]["layer"].startswith("relu, activation")
    for panel, entry in zip(result.panels, summary["panels"], strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(folder / entry["file"])), panel.pixels)


def test_saving_into_a_file_is_refused(network, picture, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with refuses("unwritable"):
        vizapp.ask("predict", network, picture).save(tmp_path / "file")


@pytest.mark.parametrize(
    ("unit", "code", "name"),
    [
        (vizapp.Unit("stm", 0), "no-such-layer", "'stm'"),
        (vizapp.Unit("stem", 8), "no-such-channel", "0 to 7"),
        (vizapp.Unit("stem", -1), "no-such-channel", "-1"),
        (vizapp.Unit("stem", 0, (24, 0)), "no-such-cell", "23,19"),
        (vizapp.Unit("head", 0, (0, 0)), "no-cells", "head"),
    ],
)
def test_units_that_do_not_exist(network, picture, unit, code: str, name: str) -> None:
    with refuses(code, name):
        vizapp.ask("activations", network, picture, unit=unit)


def test_a_missing_picture_unit_or_method_is_told(network, picture) -> None:
    with refuses("missing-input", "picture"):
        vizapp.ask("predict", network)
    with refuses("missing-input", "unit"):
        vizapp.ask("activations", network, picture)
    with refuses("no-such-method", "predict"):
        vizapp.ask("predct", network, picture)


class Leave(BaseException):
    """Leaving is no error."""


def test_pictures_and_folders_may_be_what_opens_them(network, picture, tmp_path: Path) -> None:
    path = tmp_path / "cat" / "noise.png"
    path.parent.mkdir()
    Image.fromarray(picture.pixels).save(path)
    expected = vizapp.ask("predict", network, picture).arrays["logits"]
    for given in (path, str(path), path.read_bytes(), picture.pixels):
        np.testing.assert_array_equal(vizapp.ask("predict", network, given).arrays["logits"], expected)
        assert torch.equal(network.prepare(given), network.prepare(picture))
    folder = vizapp.ask("gallery", network, folder=str(tmp_path), sites=("stem",))
    assert folder.arrays["pictures"] == 1


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"network": "resnet50"}, "not-a-network"),
        ({"network": Branching()}, "not-a-network"),
        ({"picture": 3}, "not-a-picture"),
        ({"folder": 3}, "not-a-folder"),
        ({"unit": "stem:1"}, "not-a-unit"),
        ({"unit": vizapp.Unit("stem", "1")}, "not-a-unit"),
        ({"unit": vizapp.Unit("stem", 1.0)}, "not-a-unit"),
        ({"unit": vizapp.Unit("stem", 1, (1, 2, 3))}, "not-a-unit"),
        ({"unit": vizapp.Unit("stem", 1, 5)}, "not-a-unit"),
        ({"unit": vizapp.Unit("stem", 1, (1.5, 2))}, "not-a-unit"),
    ],
)
def test_what_is_none_of_the_nouns_is_told(network, picture, given, code: str) -> None:
    asked = {"network": network, "picture": picture, "unit": vizapp.Unit("stem", 1)} | given
    with refuses(code):
        vizapp.ask("activations", **asked)


def test_numbers_of_numpy_name_a_unit_too(network, picture) -> None:
    cell = [np.int64(2), np.int64(3)]
    found = vizapp.ask("projection", network, picture, unit=vizapp.Unit("stem", np.int64(1), cell))
    expected = vizapp.ask("projection", network, picture, unit=vizapp.Unit("stem", 1, (2, 3)))
    np.testing.assert_array_equal(found.arrays["projection"], expected.arrays["projection"])


def test_leaving_passes_through(network, picture) -> None:
    def leave(share: float) -> None:
        raise Leave

    with pytest.raises(Leave):
        vizapp.ask("predict", network, picture, tick=leave)


def test_the_users_network_is_asked_and_not_changed(picture) -> None:
    module = seeded(Aliasing())
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules()]
    state = {key: value.clone() for key, value in module.state_dict().items()}
    network = vizapp.wrap(module, input_size=(3, 16, 16))
    vizapp.ask("activations", network, picture, unit=vizapp.Unit("conv", 0))
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules()]
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


def test_an_error_inside_the_users_network_is_told_when_it_is_wrapped() -> None:
    with pytest.raises(VizError, match="broken on purpose"):
        vizapp.wrap(seeded(Breaking()), input_size=(3, 16, 16))


def test_activations_that_are_not_finite_are_told(picture) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        module[0].weight[1] = float("nan")
    network = vizapp.wrap(module, input_size=(3, 16, 16))
    result = vizapp.ask("activations", network, picture, unit=vizapp.Unit("0", 1))
    assert "not finite" in result.facts
    assert [row["channel"] for row in result.table][-1] == 1


def test_every_answer_reuses_the_memory_of_its_passes(network, picture, monkeypatch: pytest.MonkeyPatch) -> None:
    block, during = Block(), list[bool]()
    monkeypatch.setattr(base, "reused_memory", block)
    hook = network.module.register_forward_hook(lambda *given: during.append(block.active))
    vizapp.ask("predict", network, picture=picture)
    hook.remove()
    assert during
    assert all(during)
    assert not block.active
