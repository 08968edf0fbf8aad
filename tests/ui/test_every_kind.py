"""Every page on a layer of every kind of every classic family, with random weights: no stack trace, no unexpected error."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import chain
from pathlib import Path

import pytest
import torch
from streamlit.testing.v1 import AppTest
from torch import nn
from torchvision.models import SwinTransformer
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

import vizapp
from tests.media.files import noise, saved
from tests.test_every_network import built
from tests.ui.app import ASKING, Open, press, sentences, turn_to, went_well
from vizapp.engine.trace.sites import Site
from vizapp.ui.inputs import networks
from vizapp.zoo.network import Network

Visit = tuple[str, dict[str, str], str]  # a page, its address, and the button to press there, if any


def _convnext() -> nn.Module:
    return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, 24, 1), CNBlockConfig(24, None, 1)], num_classes=10)


def _swin() -> nn.Module:
    return SwinTransformer([4, 4], 8, [2, 2], [2, 2], [4, 4], num_classes=10)


# Networks that are quick on one core, each with what the others lack; a small one stands for one whose variants are large.
SMALL: dict[str, Callable[[], Network]] = {
    name: partial(built, name)
    for name in (
        "vizapp/lenet5-digits", "vizapp/lenet5-1998", "vizapp/zfnet-mini", "vizapp/resnet20-cifar",
        "vizapp/network-in-network-cifar", "vizapp/highway19-cifar", "torchvision/squeezenet1_1",
        "torchvision/shufflenet_v2_x0_5",
    )
}  # fmt: skip
SMALL["torchvision/convnext_tiny"] = lambda: vizapp.wrap(_convnext().eval(), input_size=(3, 32, 32), name="a ConvNeXt")
SMALL["torchvision/swin_t"] = lambda: vizapp.wrap(_swin().eval(), input_size=(3, 48, 48), name="a Swin")
FAMILIES: dict[str, Callable[[], Network]] = {
    name: partial(built, name)
    for name in (
        "vizapp/alexnet-2012", "torchvision/alexnet", "vizapp/zfnet", "vizapp/overfeat-accurate", "vizapp/vgg-a-lrn",
        "torchvision/vgg11_bn", "vizapp/all-cnn-cifar", "vizapp/deeply-supervised-companions-cifar", "torchvision/googlenet",
        "vizapp/googlenet-2014", "vizapp/googlenet-2014-auxiliary", "vizapp/inception-v2", "torchvision/inception_v3",
        "vizapp/inception-v4", "vizapp/xception", "vizapp/resnet50-2015", "torchvision/resnet18", "torchvision/resnext50_32x4d",
        "vizapp/stochastic-depth110-cifar", "vizapp/preactivation-resnet164-cifar", "vizapp/wide-resnet16-8-cifar",
        "vizapp/fractalnet-cifar", "vizapp/densenet40-12-cifar", "vizapp/densenet-bc100-12-cifar",
        "torchvision/densenet121", "torchvision/mobilenet_v2", "torchvision/mobilenet_v3_small",
    )
} | SMALL  # fmt: skip
QUICK = (  # of the families that are not among the small ones; the others take half a minute each
    "vizapp/densenet40-12-cifar", "torchvision/resnext50_32x4d", "torchvision/mobilenet_v3_small",
)  # fmt: skip
PATIENCE = 600  # seconds for a page: what is tested here is whether it comes
MANY_CHANNELS = 64  # more make Knock out slow
QUICK_MAPS = {"trust.kinds": "gradcam,random", "trust.measures": "road"}


@cache
def small(name: str) -> Network:
    return SMALL[name]()


def kind_of(network: Network, site: Site) -> tuple[object, ...]:
    """What pages may treat in their own way: the operation, the kernel, the groups, the layout, the cells."""
    kernel: tuple[object, ...] = ()
    module = dict(network.module.named_modules()).get(site.name)
    if isinstance(module, nn.Conv2d):
        kernel = (module.kernel_size == (1, 1), 1 if module.groups == 1 else "grouped")
    cells = "none" if not site.is_map else "one" if site.shape[1:] == (1, 1) else "located" if site.located else "mixed"
    return site.kind, site.layout == "chw" or not site.is_map, cells, *kernel


def kinds(network: Network) -> dict[tuple[object, ...], Site]:
    """The first layer of each kind, and the first and the last of all."""
    found: dict[tuple[object, ...], Site] = {}
    for site in network.sites:
        found.setdefault(kind_of(network, site), site)
    return found | {("first",): network.sites[0], ("last",): network.sites[-1]}


def main_visits(network: Network, site: Site, photos: str) -> Iterator[Visit]:
    """Every page that takes a layer."""
    unit = {"layer": site.name, "channel": str(site.channels - 1)} | ({"cell": "0,0"} if site.is_map else {})
    side = str(max(1, min(network.input_size[1:]) // 2))
    yield "feature_maps", unit | {"view": "maps"}, ""
    yield "projection", unit | {"mode": "one"}, ""
    yield "filters", unit | {"view": "maps"}, ""
    yield "gallery", {"layer": site.name, "layers": site.name, "channel": "0", "data": photos}, "gallery.build"
    yield "occlusion", {"occlusion.site": site.name, "map": "0", "window": side, "stride": side, "way": "sweep"}, ""
    yield "transform", {"transform.sites": site.name, "transform.kind": "scale", "transform.amounts": "1,1.5"}, ""
    yield "attribution", unit | QUICK_MAPS | {"attribution.explain": "unit"}, ""
    yield "sanity", unit | {"sanity.explain": "unit"}, ""
    yield "neighbours", unit | {"data": photos, "colour": "unit"}, ""


def more_visits(network: Network, site: Site, photos: str) -> Iterator[Visit]:
    """The other states of these pages."""
    unit = {"layer": site.name, "channel": str(site.channels - 1)}
    side = str(max(1, min(network.input_size[1:]) // 2))
    yield "feature_maps", unit | {"view": "numbers"}, ""
    yield "projection", unit | {"mode": "nine"}, ""
    yield "projection", unit | {"mode": "one", "projection.extent": "map", "part": "whole"}, "projection.check"
    yield "filters", unit | {"view": "numbers"}, "filters.paint"
    yield "gallery", {"layer": site.name, "layers": site.name, "data": photos}, "gallery.build"
    yield (
        "occlusion",
        {"occlusion.site": site.name, "window": side, "stride": side, "way": "several", "photos": photos},
        ("occlusion.several.run"),
    )
    yield (
        "transform",
        {"transform.sites": site.name, "transform.kind": "jpeg", "several": "on", "photos": photos},
        "transform.several.run",
    )
    names = ("digit%200", "digit%208", "digit%209") if side == "14" else ("chelsea", "coffee", "camera")
    parts = ",".join(["8x8", *(f"{name}:2:2:6:6" for name in names)])
    yield "correspondence", {"correspondence.sites": site.name, "correspondence.draws": "2", "parts": parts}, ""
    yield "neighbours", {"layer": site.name, "data": photos, "neighbours.of": "cell"}, ""
    yield "neighbours", {"layer": site.name, "data": photos, "neighbours.of": "flat", "neighbours.metric": "cosine"}, ""
    yield "colours", {"layer": site.name, "photos": photos} | ({"cell": "0,0"} if site.is_map else {}), ""
    yield "colours", {"layer": site.name, "photos": photos, "colours.parts": "2", "colours.foreground": "negative"}, ""
    yield "compare", {"match": site.name, "match2": site.name, "other_weights": "random"}, "compare.match"
    yield "attribution", {"attribution.explain": "class", "class": "1", "attribution.kind": "edges"} | QUICK_MAPS, ""
    yield "attribution", {"several": "on", "photos": photos} | QUICK_MAPS, "attribution.several.run"
    yield "feature_maps", unit | {"stages": "cell"}, ""
    if site.channels <= MANY_CHANNELS:
        yield "knockout", unit, ""


def visits_without_a_layer(network: Network, photos: str) -> Iterator[Visit]:
    side = str(max(1, min(network.input_size[1:]) // 2))
    yield "start", {}, ""
    yield "predict", {"crops": "multi"}, ""
    yield "dense", {"dense.input": "crop", "place": "0,0", "tint": "class"}, ""
    yield "dense", {"dense.input": "photo", "dense.zoom": "0.5", "dense.flips": "True"}, ""
    yield "probe", {"data": photos, "probe.splits": "1"}, "probe.run"
    yield "architecture", {"aspect": "drawing"}, ""
    for rows in ("layers", "operations", "modules"):
        yield "architecture", {"aspect": "table", "architecture.rows": rows, "architecture.repeats": "0"}, ""
    yield "occlusion", {"way": "hand"}, ""
    yield "occlusion", {"way": "sweep", "network2": "vizapp/lenet5-digits", "weights2": "random", "picture2": "coffee",
                        "window": side, "stride": side}, ""  # fmt: skip
    yield "compare", {"other": "vizapp/lenet5-digits", "other_weights": "random"}, ""
    yield "transform", {"transform.kind": "shift-y", "network2": "vizapp/lenet5-digits", "weights2": "random"}, ""
    yield "gallery", {"data": photos, "layers": ""}, "gallery.build"
    yield "evaluate", {"data": photos}, "evaluate.run"
    yield "evolution", {"data": photos, "evolution.units": "2"}, ""
    yield "about", {}, ""


def _reverse(count: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """The order in which the sanity check shuffles weights, in none of the time: sixty million took most of this test."""
    return torch.arange(count - 1, -1, -1)


class Visitor:
    """One session that goes from network to network and from page to page."""

    def __init__(self, open_app: Open, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.photos = str(photos)
        self._networks: dict[str, Network] = {}
        load = networks.load

        def opened(name: str, weights: str = "default", **options: object) -> Network:
            known = self._networks.get(name) if weights == "none" else None
            return load(name, weights=weights, **options) if known is None else known  # type: ignore[arg-type]

        monkeypatch.setattr(networks, "load", opened)
        monkeypatch.setattr(torch, "randperm", _reverse)
        self._open = open_app
        self._app: AppTest | None = None
        self.failures: list[str] = []

    def visit(self, name: str, network: Network, visit: Visit) -> None:
        """Open a page as a link does, and press its button."""
        page, address, button = visit
        self._networks[name] = network
        shared = {"network": name, "weights": "random"}
        whole = shared | ({"other": name} if page == "compare" else {}) | address
        if self._app is None:
            self._app = self._open(**shared)
            self._app.default_timeout = PATIENCE
        app = self._app
        app.query_params.clear()
        for key, value in whole.items():
            app.query_params[key] = value
        turn_to(app, page)
        if went_well(app) and button:
            self._press(app, button)
        if not went_well(app):
            self.failures.append(f"{page} of {name}, {address}: {sentences(app) or app.exception}")
            self._app = None  # a new session

    def _press(self, app: AppTest, button: str) -> None:
        if button == "compare.match":
            app.text_input(key="compare.folder").set_value(self.photos).run()
        elif button == "filters.paint" and "form.ideal.steps" in [box.key for box in app.number_input]:
            app.number_input(key="form.ideal.steps").set_value(1).run()
        if button in [shown.key for shown in app.button]:
            press(app, button)


@pytest.fixture
def visitor(open_app: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Visitor:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(2):
        (photos / f"{number}.png").write_bytes(saved(noise(36, 40, seed=number)))
    return Visitor(open_app, photos, monkeypatch)


def test_every_page_that_takes_a_layer_is_visited() -> None:
    network = small("vizapp/lenet5-digits")
    site = network.sites[0]
    layered = chain(main_visits(network, site, "x"), more_visits(network, site, "x"))
    assert {page for page, *_ in chain(layered, visits_without_a_layer(network, "x"))} == {*ASKING, "about"}


@cache
def kinds_of_small() -> list[list[tuple[str, Site]]]:
    """The small networks that have a layer of a kind, with that layer; a list per kind."""
    known: dict[tuple[object, ...], list[tuple[str, Site]]] = {}
    for name in SMALL:
        for kind, site in kinds(small(name)).items():
            known.setdefault(kind, []).append((name, site))
    return list(known.values())


@pytest.mark.parametrize("rest", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", range(9))
def test_a_page_opens_on_a_layer_of_every_kind(visitor: Visitor, number: int, rest: bool) -> None:
    """A ninth of the kinds, another one on the next page, or the rest; another network for the same kind on each page."""
    for place, choices in enumerate(kinds_of_small()):
        if (place % 9 == number) == rest:
            continue
        name, site = choices[number % len(choices)]
        visits = list(main_visits(small(name), site, visitor.photos))
        assert len(visits) == 9
        visitor.visit(name, small(name), visits[number])
    assert not visitor.failures, "\n".join(visitor.failures)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_family_opens_a_page_of_every_kind(visitor: Visitor, name: str) -> None:
    """One state of one page per kind, another one for the next kind and the next family."""
    network, first = FAMILIES[name](), list(FAMILIES).index(name)
    for number, site in enumerate(kinds(network).values()):
        visits = [*main_visits(network, site, visitor.photos), *more_visits(network, site, visitor.photos)]
        visitor.visit(name, network, visits[(first * 7 + number * 5) % len(visits)])
    alone = list(visits_without_a_layer(network, visitor.photos))
    visitor.visit(name, network, alone[first % len(alone)])
    assert not visitor.failures, "\n".join(visitor.failures)
    del network
    gc.collect()


@pytest.mark.families
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_opens_every_page_of_every_kind(visitor: Visitor, name: str) -> None:
    network = FAMILIES[name]()
    for site in kinds(network).values():
        for visit in (*main_visits(network, site, visitor.photos), *more_visits(network, site, visitor.photos)):
            visitor.visit(name, network, visit)
    for visit in visits_without_a_layer(network, visitor.photos):
        visitor.visit(name, network, visit)
    assert not visitor.failures, "\n".join(visitor.failures)
    del network
    gc.collect()
