"""Networks of 1, 2, 4 and 13 channels: known answers, and every method answers or says why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import vizapp
from tests.networks import saved_run
from vizapp.__main__ import main
from vizapp.errors import VizError
from vizapp.media.channels import Channels, luminance, read_channel_map
from vizapp.media.picture import Picture
from vizapp.methods import methods
from vizapp.zoo.network import Network

SIDE = 48
COUNTS = (1, 2, 4, 13)


def planted(channels: int) -> nn.Module:
    """Class k is the mean of channel k, times k + 1: known by hand."""
    pick = nn.Conv2d(channels, channels, 1, bias=False)
    pick.weight.data = torch.diag(torch.arange(1.0, channels + 1))[:, :, None, None]
    return nn.Sequential(pick, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def wrapped(module: nn.Module, channels: int, **options: Any) -> Network:
    return vizapp.wrap(module, (channels, SIDE, SIDE), mean=0, std=1, **options)


def stack(channels: int, kind: str = "uint16", side: int = SIDE, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    if kind == "float32":
        return random.normal(0, 3, (side, side, channels)).astype(np.float32)
    return random.integers(0, np.iinfo(kind).max, (side, side, channels), kind)


def values(array: np.ndarray) -> np.ndarray:
    """What the network must get: integers from 0 to 1, floats as they are."""
    return array.astype(np.float64) / (np.iinfo(array.dtype).max if array.dtype.kind in "ui" else 1)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("channels", COUNTS)
def test_the_input_holds_each_band_in_full(channels: int, kind: str) -> None:
    array = stack(channels, kind)
    got = wrapped(planted(channels), channels).prepare(array)
    assert got.shape == (1, channels, SIDE, SIDE)
    np.testing.assert_allclose(got[0].permute(1, 2, 0).numpy(), values(array), rtol=1e-6)


def test_mean_and_std_are_of_the_scaled_values() -> None:
    array = stack(4)
    mean, std = (0.1, 0.2, 0.3, 0.4), (1, 2, 3, 4)
    got = vizapp.wrap(planted(4), (4, SIDE, SIDE), mean=mean, std=std).prepare(array)
    np.testing.assert_allclose(got[0].permute(1, 2, 0).numpy(), (values(array) - mean) / std, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels", COUNTS)
def test_the_answers_of_a_planted_network_are_known_by_hand(channels: int) -> None:
    network, array = wrapped(planted(channels), channels, categories=channels), stack(channels)
    means = values(array).mean((0, 1))
    unit = vizapp.class_unit(network, channels - 1)
    logits = vizapp.ask("predict", network, array).arrays["logits"]
    np.testing.assert_allclose(logits, means * np.arange(1, channels + 1), rtol=1e-5)
    maps = vizapp.ask("activations", network, array, unit=vizapp.Unit("0", 0)).arrays["activations"]
    np.testing.assert_allclose(
        maps, values(array).transpose(2, 0, 1) * np.arange(1, channels + 1)[:, None, None], rtol=1e-5
    )
    down = vizapp.ask("projection", network, array, unit=unit, rule="gradient", seed="one").arrays["projection"]
    assert down.shape == (SIDE, SIDE, 3 if channels == 1 else channels)
    expected = np.zeros_like(down)
    expected[:, :, slice(None) if channels == 1 else channels - 1] = channels / SIDE**2
    np.testing.assert_allclose(down, expected, rtol=1e-5)
    kind = vizapp.ask("attribution", network, array, unit=unit, kind="integrated_gradients", steps=8).arrays[
        "attribution"
    ]
    np.testing.assert_allclose(kind, values(array)[:, :, channels - 1] * channels / SIDE**2, rtol=1e-4)


@pytest.mark.parametrize("kind", ["uint16", "float32"])
@pytest.mark.parametrize("fill", ["grey", "black", "mean"])
def test_occlusion_hides_all_bands(kind: str, fill: str) -> None:
    network, array = wrapped(planted(4), 4, categories=4), stack(4, kind)
    whole = values(array)
    low, high = (0, 1) if kind == "uint16" else (whole.min((0, 1)), whole.max((0, 1)))
    fills = {"grey": low + (np.asarray(high) - low) * 128 / 255, "black": low, "mean": whole.mean((0, 1))}
    found = vizapp.ask(
        "occlusion", network, array, unit=vizapp.class_unit(network, 2), window=16, stride=16, grid="inside", fill=fill
    )
    for row in range(3):
        for column in range(3):
            hidden = whole.copy()
            hidden[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = fills[fill]
            assert found.arrays["logit"][row, column] == pytest.approx(3 * hidden[:, :, 2].mean(), rel=1e-4, abs=1e-5)


def test_bands_are_resized_one_by_one_as_photos_are() -> None:
    array = np.random.default_rng(0).integers(0, 256, (70, 90, 5), np.uint8)
    network = wrapped(planted(5), 5)
    photo = wrapped(planted(3), 3).prepare(array[:, :, 2:])
    assert torch.equal(network.prepare(array)[:, 2:], photo)
    fine = network.prepare(array.astype(np.uint16) * 257)
    assert (fine - network.prepare(array)).abs().max() < 1 / 255


def test_a_photo_gives_the_inputs_that_it_gave_before() -> None:
    photo = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    expected = torch.from_numpy(photo).permute(2, 0, 1).float().div(255)
    assert torch.equal(wrapped(planted(3), 3).prepare(photo)[0], expected)
    assert torch.equal(wrapped(planted(1), 1).prepare(photo)[0, 0], torch.from_numpy(luminance(photo)).float().div(255))
    network = wrapped(planted(3), 3)
    assert network.crop(photo) is not None
    assert np.array_equal(network.crop(photo), network.seen(photo))


def test_a_network_for_photos_gets_the_shown_bands_of_a_stack() -> None:
    picture = vizapp.open_picture(stack(13), bands=(3, 2, 1))
    expected = torch.from_numpy(picture.pixels.copy()).permute(2, 0, 1).float().div(255)
    assert torch.equal(wrapped(planted(3), 3).prepare(picture)[0], expected)
    assert "bands 3, 2, 1, from the 2nd" in vizapp.ask("predict", wrapped(planted(3), 3), picture).facts["picture"]


def test_a_channel_map_says_what_feeds_each_channel() -> None:
    photo = np.random.default_rng(2).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    network = wrapped(planted(6), 6, channel_map="b, R,L,mean,ZERO,1")
    got = network.prepare(photo)[0].permute(1, 2, 0).numpy()
    share = photo / 255
    expected = [share[..., 2], share[..., 0], luminance(photo) / 255, share.mean(2), 0 * share[..., 0], share[..., 1]]
    np.testing.assert_allclose(got, np.stack(expected, 2), atol=1e-6)
    array = stack(13)
    bands = wrapped(planted(2), 2, channel_map=(12, "mean")).prepare(array)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(bands, np.stack([values(array)[..., 12], values(array).mean(2)], 2), rtol=1e-5)


def test_channel_maps_tell_networks_apart_and_share_the_weights() -> None:
    plain = wrapped(planted(4), 4)
    one, two = plain.with_channels("R,G,B,L"), plain.with_channels("R,G,B,mean")
    assert len({plain.digest, one.digest, two.digest}) == 3
    assert len({repr(each.preprocessing) for each in (plain, one, two)}) == 3
    assert one.module is plain.module
    assert one.with_channels("").digest == plain.digest
    assert one.with_channels(["R", "G", "B", "L"]) is one


@pytest.mark.parametrize(
    ("network", "given", "found"),
    [
        (
            {},
            stack(3, "uint8"),
            'takes 4 channels and picture has 3 (R, G, B); say what feeds each, such as "R,G,B,mean"',
        ),
        ({}, stack(13), 'takes 4 channels and picture has 13; say what feeds each, such as "0,1,2,3"'),
        ({}, stack(2), 'such as "0,1,zero,zero"'),
        ({"channel_map": "R,G,B"}, None, "The map R,G,B has 3 entries, but the network takes 4 channels"),
        ({"channel_map": "R,G,B,lumi"}, None, "A channel map has 'lumi'"),
        ({"channel_map": "R,G,B,-1"}, None, "A channel map has '-1'"),
        ({"channel_map": (0, 1, 2, 13)}, stack(13), "asks for band 13 of picture, which has bands 0 to 12"),
    ],
)
def test_a_count_that_does_not_fit_is_one_sentence_with_a_way_out(
    network: dict[str, Any], given: np.ndarray | None, found: str
) -> None:
    with pytest.raises(VizError) as caught:
        wrapped(planted(4), 4, **network).prepare(given)  # type: ignore[arg-type]
    assert found in str(caught.value)


def test_inputs_are_shown_by_three_bands_or_one() -> None:
    for channels in COUNTS:
        network = wrapped(planted(channels), channels)
        shown = network.display(network.prepare(stack(channels, "float32")))
        assert shown.shape == (SIDE, SIDE, 3)
        assert shown.dtype == np.uint8
        assert (shown[..., 0] == shown[..., 1]).all() == (channels < 3)
    photo = stack(3, "uint8")
    mapped = wrapped(planted(4), 4, channel_map="mean,B,G,R")
    assert np.array_equal(mapped.display(mapped.prepare(photo)), photo)


def test_the_command_takes_a_map_and_bands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", stack(13))
    shown = ["--picture", str(tmp_path / "a.npy"), "--network", "vizapp/lenet5-digits", "--json", "--device", "cpu"]
    answers = []
    for more in ([], ["--bands", "3,2,1"], ["--channel-map", "7"], ["--channel-map", "L", "--bands", "3,2,1"]):
        assert main(["predict", *shown, *more]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert "bands 3, 2, 1" in answers[1]["facts"]["picture"]
    logits = [[row["logit"] for row in sorted(answer["table"], key=lambda row: row["class"])] for answer in answers]
    assert logits[0] != logits[2] != logits[1] != logits[0]
    np.testing.assert_allclose(logits[1], logits[3], atol=0.05)  # L is taken before the photo is resized
    for wrong in (["--bands", "3,2"], ["--bands", "a,b,c"], ["--channel-map", "1,2"]):
        assert main(["predict", *shown, *wrong]) == 2


def test_channel_maps_are_read_from_text_and_sequences() -> None:
    assert read_channel_map("") == read_channel_map(()) == ()
    assert read_channel_map(" r ,MEAN, 12") == read_channel_map(["R", "mean", 12]) == ("R", "mean", "12")
    with pytest.raises(VizError):
        Channels(2, ("R", "١"))


# Every method


def small(channels: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


UNIT = vizapp.Unit("4", 3)
MORE: dict[str, dict[str, Any]] = {
    "arithmetic": {"unit": vizapp.Unit("0", 3, (9, 9))},
    "atlas": {"site": "6"},
    "attribution": {"kind": "integrated_gradients", "steps": 8},
    "colours": {"unit": UNIT},
    "correspondence": {"draws": 1},
    "dense": {},
    "evaluate": {"workers": 0},
    "evolution": {"site": "4", "units": 2},
    "filters": {},
    "gallery": {"top": 2, "workers": 0},
    "ideal": {"steps": 2},
    "neighbours": {"site": "6", "k": 2},
    "occlusion": {"window": 24, "stride": 16},
    "probe": {"photos": 3, "splits": 1, "sites": "6"},
    "transform": {"kind": "rotate", "amounts": "0,10"},
    "trust": {"kinds": "guided,edges", "measures": "deletion"},
}


@pytest.fixture(scope="module", params=[2, 4])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, Path]:
    """A network and a folder of stacks in two classes."""
    folder = tmp_path_factory.mktemp("stacks")
    for number in range(8):
        place = folder / "ab"[number % 2]
        place.mkdir(exist_ok=True)
        array = stack(request.param, side=SIDE, seed=number)
        np.save(place / f"{number}.npy", array // 2 if number % 2 else array)
    return wrapped(small(request.param), request.param, categories=["a", "b", "c", "d"]), folder


@pytest.mark.parametrize("key", sorted(methods()))
def test_every_method_answers_about_stacks(
    key: str, asked: tuple[Network, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, folder = asked
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path / "cache"))
    channels, method = network.input_size[0], methods()[key]
    options = dict(MORE.get(key, {}))
    if (
        "unit" in method.inputs
        and "unit" not in options
        and key not in ("occlusion", "correspondence", "neighbours", "teach")
    ):
        options["unit"] = UNIT
    if "picture" in method.needs or key == "atlas":
        options["picture"] = picture(channels)
    if "folder" in method.needs:
        options["folder"] = vizapp.open_folder(folder)
    if key == "gallery":
        options["out"] = str(tmp_path / "out")
    if key == "correspondence":
        files = sorted(folder.rglob("*.npy"))[:3]
        options["parts"] = [(file, (9, 9, 30, 30)) for file in files]
    if key == "evolution":
        options["checkpoints"] = saved_run(network.module, tmp_path / "run")
    if key == "matching":
        options["other"] = "vizapp/lenet5-digits"
    result = vizapp.ask(key, network, **options)
    assert result.arrays or result.table or result.store
    assert all(panel.pixels.dtype == np.uint8 and panel.pixels.shape[2] == 3 for panel in result.panels)


def picture(channels: int) -> Picture:
    return vizapp.open_picture(stack(channels, side=2 * SIDE, seed=99))


@pytest.mark.parametrize("kind", ["rotate", "shift-x", "scale", "contrast", "blur", "noise", "brightness", "jpeg"])
def test_stacks_are_transformed_band_by_band_or_not_at_all(kind: str) -> None:
    network, array = wrapped(small(4), 4, categories=4), stack(4, side=2 * SIDE)
    if kind in ("brightness", "jpeg"):
        with pytest.raises(VizError, match="defined for photos in RGB, and the network takes 4"):
            vizapp.ask("transform", network, array, kind=kind, amounts="0,2")
        return
    found = vizapp.ask("transform", network, array, kind=kind, amounts="1,2").arrays["distance"]
    assert found[:, -1].min() > 0


@pytest.mark.parametrize("kind", ["grey", "mean", "blur", "noise"])
def test_a_mask_hides_bands(kind: str) -> None:
    from vizapp.methods.base import Question  # the hidden part alone is asked for
    from vizapp.methods.occlusion.mask import hide

    network = wrapped(planted(2), 2, categories=2)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:24] = True
    found = hide(Question(network, vizapp.open_picture(stack(2))), mask, kind)
    assert np.abs(found.arrays["logits"] - found.arrays["clean_logits"]).min() > 0
