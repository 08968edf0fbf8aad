"""Every method splits its work to fit into memory with the same result; if one item does not fit, a message says what would."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import vizapp
from tests.media.files import noise, saved
from tests.networks import saved_run
from vizapp.engine.memory.chunks import DoesNotFit
from vizapp.engine.memory.trim import MemoryTrim
from vizapp.methods import methods
from vizapp.methods.base import Method, Result
from vizapp.zoo.network import Network

Plenty = Callable[[str], tuple[Result, tuple[str, ...], int]]
ROOT = Path(__file__).resolve().parents[2]
SIDE = 96
UNIT = vizapp.Unit("2", 3, (40, 40))  # the second convolution of `wide`

# What is asked of the methods, and the arrays to compare; rounding alone may tell batches of several sizes apart.
_ASKED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "activations": ({"unit": UNIT}, ("activations",)),
    "architecture": ({"repeats": 0}, ("table",)),
    "arithmetic": ({"unit": UNIT}, ("contributions", "value")),
    "atlas": ({"site": "2"}, ("positions", "photo", "answers")),
    "attribution": ({"unit": UNIT, "steps": 16}, ("attribution",)),
    "colours": ({"unit": vizapp.Unit("4", 0), "parts": 2}, ("colours", "components", "photo_factors")),
    "correspondence": (
        {"parts": [(noise(SIDE, SIDE, seed=n), (9, 9, 60, 60)) for n in range(6)], "draws": 1, "sites": "4, 7"},
        ("parts", "random", "shared"),
    ),
    "dense": ({}, ("scores", "label", "boxes", "prediction", "difference")),
    "evaluate": ({"crops": "ten"}, ("top1", "mistakes", "calibration_error")),
    "evolution": ({"site": "3", "units": 2}, ("activation", "picture", "projection")),
    "filters": ({"unit": UNIT}, ("kernels", "spectrum")),
    "gallery": ({"top": 3}, ("channels", "pictures")),
    "ideal": ({"unit": UNIT, "channels": "0, 1, 2", "steps": 3, "size": SIDE}, ("pictures", "activation")),
    "knockout": ({"site": "1"}, ("logit_change", "probability_change")),
    "neighbours": ({"site": "2", "k": 3}, ("indices", "distances")),
    "occlusion": ({"window": 90, "stride": 16}, ("probability", "logit", "activation")),
    "predict": ({"crops": "ten"}, ("probabilities", "logits")),
    "probe": ({"photos": 3, "splits": 1, "sites": "3, 6"}, ("accuracy", "accuracy_pixels")),
    "projection": ({"unit": UNIT}, ("projection", "activation")),
    "sanity": ({"unit": UNIT}, ("projection", "all", "similarity")),
    "trust": ({"kinds": "gradcam", "measures": "road,randomisation"}, ("scores", "road", "maps")),
}


def _by_itself(method: Method) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What is asked of a method that is not in the list."""
    arrays = tuple(output.array for output in method.shows if output.kind != "table")
    return ({"unit": UNIT} if "unit" in method.needs else {}), arrays


ASKED = {key: _ASKED.get(key) or _by_itself(method) for key, method in methods().items()}
SPLIT = {key for key, method in methods().items() if method.memory_hint}  # have several items, or a photo in tiles


class Convolutions(TorchFunctionMode):
    """Notes how many numbers go into each convolution; where those are more than `fits`, it fails for want of memory."""

    def __init__(self, fits: int = 2**62, failure: BaseException | None = None) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.fits, self.failure = fits, failure or MemoryError()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d:
            self.sizes.append(args[0].numel())
            if self.sizes[-1] > self.fits:
                raise self.failure
        return func(*args, **kwargs or {})


def wide() -> nn.Module:
    """A network of wide maps."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.AvgPool2d(4), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


@pytest.fixture(scope="module")
def network() -> Network:
    found = vizapp.wrap(wide(), (3, SIDE, SIDE), name="wide")
    assert found.sites
    return found


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        (folder / f"{number}.png").write_bytes(saved(pixels))
    return folder


def ask(key: str, network: Network, photos: Path, out: Path) -> tuple[Result, tuple[str, ...]]:
    options, arrays = ASKED[key]
    options = dict(options)
    needs = methods()[key].needs
    if "folder" in needs or key == "colours":
        options |= {"folder": vizapp.open_folder(photos)}
    if key in ("probe", "teach"):  # need classes; a new folder, so that its table is not in the cache
        shutil.copytree(photos, out / "photos", copy_function=shutil.copy, dirs_exist_ok=True)
        (out / "classes.csv").write_text("".join(f"photos/{n}.png,{'ab'[n % 2]}\n" for n in range(20)))
        options |= {"folder": vizapp.open_folder(out / "classes.csv")}
    if key == "gallery":
        options |= {"out": str(out), "workers": 0}
    if key == "evaluate":
        options |= {"folder": labelled(photos), "workers": 0}
    if key == "evolution":
        options |= {"checkpoints": saved_run(network.module, photos.parent / "run")}
    if "picture" in needs or key == "atlas":
        # A side of the photo to spare, so that a dense map has cells.
        pixels = np.random.default_rng(1).integers(0, 256, (4 * SIDE, 3 * SIDE, 3), np.uint8)
        options["picture"] = vizapp.open_picture(pixels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIZAPP_CACHE", str(out / "cache"))  # so that each question makes its own pass
        return vizapp.ask(key, network, **options), arrays


def labelled(photos: Path) -> Path:
    """A list of the photos with the numbers of classes as labels."""
    place = photos.parent / f"{photos.name}.csv"
    place.write_text("path,label\n" + "".join(f"{photos / f'{n}.png'},{n % 10}\n" for n in range(17)))
    return place


def leave(monkeypatch: pytest.MonkeyPatch, megabytes: float) -> None:
    """Leave so much memory to questions. What earlier ones freed is given back now, and not while it is measured."""
    gc.collect()
    MemoryTrim(clock=itertools.count(0, 60).__next__).after_work()
    limit = psutil.Process().memory_info().rss + megabytes * 2**20
    monkeypatch.setenv("VIZAPP_MEMORY_GB", str(limit / 2**30))


@pytest.fixture(scope="module")
def plenty(network: Network, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Plenty:
    """What a method answers where there is enough memory, the arrays to compare, and its largest convolution."""

    @cache
    def asked(key: str) -> tuple[Result, tuple[str, ...], int]:
        with Convolutions() as whole:
            found = ask(key, network, photos, tmp_path_factory.mktemp("plenty"))
        return *found, max(whole.sizes, default=0)

    return asked


def assert_same(first: Result, second: Result, names: tuple[str, ...]) -> None:
    for name in names:
        a, b = first.arrays[name], second.arrays[name]
        if a.dtype == np.uint8:
            assert np.abs(a.astype(int) - b.astype(int)).max() <= 1, name
        elif name != "difference":
            size = np.nanmax(np.abs(a.astype(np.float64)), initial=1e-9)
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5 * size, err_msg=name)


@pytest.mark.parametrize("key", sorted(ASKED))
def test_with_little_memory_a_question_is_split_and_gives_the_same(
    key: str, network: Network, photos: Path, plenty: Plenty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, arrays, largest = plenty(key)
    leave(monkeypatch, 48)
    with Convolutions() as split:
        scarce, _ = ask(key, network, photos, tmp_path / "scarce")
    assert_same(whole, scarce, arrays)
    if key in SPLIT:
        assert max(split.sizes) < largest, "smaller parts"


@pytest.mark.parametrize("key", sorted(ASKED))
def test_what_does_not_fit_with_one_item_is_told_with_what_would(
    key: str, network: Network, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(monkeypatch, 1)
    with pytest.raises(DoesNotFit) as told, Convolutions() as begun:
        ask(key, network, photos, tmp_path)
    method, sentence = methods()[key], str(told.value)
    assert f"not enough memory on the CPU for {method.title.lower()} with wide: " in sentence
    assert "B more are needed and" in sentence
    assert "are free" in sentence
    assert (method.memory_hint or "A smaller network")[1:] in sentence
    assert not begun.sizes, "nothing was begun"
    monkeypatch.delenv("VIZAPP_MEMORY_GB")
    ask(key, network, photos, tmp_path)


FAILURES = [
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "failure"),
    [*((key, FAILURES[0]) for key in sorted(ASKED)), *(("attribution", f) for f in FAILURES), ("ideal", FAILURES[1])],
)
def test_an_operation_that_runs_out_of_memory_is_tried_with_less_or_told(
    key: str, failure: BaseException, network: Network, photos: Path, plenty: Plenty, tmp_path: Path
) -> None:
    good, arrays, largest = plenty(key)
    with pytest.raises(DoesNotFit, match="There is not enough memory"), Convolutions(0, failure):
        ask(key, network, photos, tmp_path / "none")
    one = 32 * SIDE**2 if key != "dense" else largest // 2
    with Convolutions(one, failure) as split:
        less, _ = ask(key, network, photos, tmp_path / "less")
    assert_same(good, less, arrays)
    if key in SPLIT:
        assert largest > one
        assert min(split.sizes) <= one


def test_what_a_failed_operation_held_is_let_go(network: Network, photos: Path, tmp_path: Path) -> None:
    """Also while somebody still holds the error: its frames would hold the tensors."""
    import weakref

    held: list[weakref.ref[Tensor]] = []
    kept: list[DoesNotFit] = []

    def fail(module: nn.Module, inputs: Any, output: Tensor) -> None:
        held.append(weakref.ref(inputs[0]))
        raise MemoryError

    with network.module.get_submodule("2").register_forward_hook(fail):
        try:
            ask("predict", network, photos, tmp_path)
        except DoesNotFit as error:
            kept.append(error)
    assert held
    assert kept
    assert all(reference() is None for reference in held)


MEASURED = """
import os, sys, traceback
import numpy as np, torch
import vizapp
from torch import nn
import captum.attr, pandas, pyarrow.parquet, cv2, PIL.Image, scipy.sparse  # what is imported is not the question's
import torch.utils.flop_counter, vizapp.engine.projection.project, vizapp.engine.optimize.activation_maximization
from vizapp.methods import methods
methods()
keys, side, out, photos = sys.argv[1].split(), int(sys.argv[2]), sys.argv[3], sys.argv[4]
pixels = np.random.default_rng(1).integers(0, 256, (2 * side, 2 * side, 3), np.uint8)

def ask(key):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3, groups=32), nn.ReLU(),
        nn.AvgPool2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    net = vizapp.wrap(module, (3, side, side), name="wide")
    if key == "evolution":
        os.mkdir(f"{photos}/../run")
        torch.save(module.state_dict(), f"{photos}/../run/epoch-1.pt")
    options = {}
    if key not in ("gallery", "evaluate", "filters", "ideal", "architecture", "evolution"):
        options |= {"picture": vizapp.open_picture(pixels)}
    if key not in ("gallery", "evaluate", "occlusion", "predict", "dense", "architecture", "evolution"):
        options |= {"unit": vizapp.Unit("2", 3, (40, 40))}
    options |= {
        "gallery": {"folder": photos, "out": out, "workers": 0} , "neighbours": {"folder": photos}, "atlas": {"folder": photos},
        "colours": {"folder": photos, "unit": vizapp.Unit("4", 3), "parts": 3},
        "evolution": {"folder": photos, "checkpoints": f"{photos}/../run", "units": 2},
        "probe": {"folder": f"{photos}/../two.csv", "photos": 3, "splits": 1}, "teach": {"folder": f"{photos}/../two.csv"},
        "ideal": {"channels": "0,1,2,4,5,6,7,8", "steps": 2, "size": side},
        "evaluate": {"folder": f"{photos}/../few.csv", "crops": "ten", "workers": 0},
        "occlusion": {"window": 64, "stride": side // 4}, "attribution": {"steps": 8},
        "correspondence": {"parts": [(pixels, (9, 9, 99, 99))] * 12, "draws": 1, "sites": "4, 7"},
        "trust": {"kinds": "gradcam", "measures": "deletion,road,randomisation"},
    }.get(key, {})
    vizapp.ask(key, net, **options)

for key in keys:  # each in a process of its own, which has imported everything already
    child = os.fork()
    if child == 0:
        try:
            ask(key)
            # Not ru_maxrss, which a process has from the one that started it.
            peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
            print(key, peak, flush=True)
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.slow
def test_the_peak_of_each_method_in_a_fresh_process_stays_below_the_limit(tmp_path: Path) -> None:
    """A picture of 320 pixels takes 13 MB for a layer: sixteen of them at once take more than the limit."""
    limit, side = 0.9 * 2**30, 320
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(17):
        (photos / f"{number}.png").write_bytes(saved(np.full((side, side, 3), number, np.uint8)))
    rows = labelled(photos).read_text().splitlines()
    (tmp_path / "few.csv").write_text("\n".join(rows[:3]))  # 20 crops, which take 0.8 GB at once
    (tmp_path / "two.csv").write_text("".join(f"photos/{n}.png,{'ab'[n % 2]}\n" for n in range(17)))
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, " ".join(sorted(ASKED)), str(side), str(tmp_path / "out"), str(photos)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "VIZAPP_MEMORY_GB": str(limit / 2**30)},
    )  # fmt: skip
    peaks = {key: int(peak) for key, peak in map(str.split, done.stdout.splitlines())}
    assert set(peaks) == set(ASKED), done.stderr
    assert {key: peak for key, peak in peaks.items() if peak >= limit} == {}


@pytest.mark.gpu
@pytest.mark.parametrize("key", sorted(ASKED))
def test_on_a_gpu_a_question_is_split_or_told(key: str, photos: Path, tmp_path: Path) -> None:
    """The limit is torch's own: what goes above fails as it would on a full GPU."""
    gpu = vizapp.wrap(wide(), (3, SIDE, SIDE), name="wide", device="cuda")
    plenty, arrays = ask(key, gpu, photos, tmp_path / "plenty")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 96 * 2**20) / total)
    try:
        scarce, _ = ask(key, gpu, photos, tmp_path / "scarce")
        assert_same(plenty, scarce, arrays)
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**20) / total)
        with pytest.raises(DoesNotFit, match="not enough memory on the GPU"):
            ask(key, gpu, photos, tmp_path / "none")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    ask(key, gpu, photos, tmp_path / "again")
