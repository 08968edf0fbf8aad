"""The maps of pytorch-grad-cam, TorchCAM and Captum: where they are right ours are equal, and where they are wrong is told.

`docs/attribution.md` lists these cases. The judge of each is a formula in float64, a batch of two, or the same network
written otherwise.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vizapp
from tests.methods.test_attribution import PICTURE, NormThenTokens
from tests.methods.test_cams import eigen_cam, grad_cam_plus_plus, resized
from tests.networks import seeded
from vizapp.zoo.network import Network

pytestmark = pytest.mark.slow  # the import of pytorch-grad-cam takes seconds
SIZE = (48, 40)


@pytest.fixture(scope="module", autouse=True)
def peers() -> dict[str, Any]:
    """The CAMs of pytorch-grad-cam and of TorchCAM by our names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pytorch_grad_cam as first  # takes seconds
        import torchcam.methods as second  # as the line above
    known = {
        "gradcam": "GradCAM", "gradcam++": "GradCAMPlusPlus", "hirescam": "HiResCAM", "layercam": "LayerCAM",
        "eigencam": "EigenCAM", "ablationcam": "AblationCAM", "scorecam": "ScoreCAM",
    }  # fmt: skip
    torch_cams = {"gradcam": second.GradCAM, "gradcam++": second.GradCAMpp, "layercam": second.LayerCAM}
    return {
        "pytorch-grad-cam": {key: getattr(first, name) for key, name in known.items()},
        "TorchCAM": torch_cams,
        "guided": first.GuidedBackpropReLUModel,
    }


def by_pytorch_grad_cam(kind: Any, module: nn.Module, layer: nn.Module, picture: Tensor, class_: int) -> np.ndarray:
    """`[H W]`, scaled to 0..1."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # as above

    with kind(module, [layer]) as cam:
        found: np.ndarray = cam(picture.clone().requires_grad_(), [ClassifierOutputTarget(class_)])[0]
    return found.astype(float)


def by_torch_cam(kind: Any, module: nn.Module, layer: str, picture: Tensor, class_: int) -> np.ndarray:
    """`[H W]`, scaled to 0..1 at the size of the layer."""
    with kind(module, layer) as cam:
        (found,) = cam(class_, module(picture.clone().requires_grad_()))
    one = found.detach().double().squeeze()[None, None]
    return F.interpolate(one, SIZE, mode="bilinear", align_corners=False)[0, 0].numpy()


def apart(first: np.ndarray, second: np.ndarray) -> float:
    """The largest difference as a share of the range, after the best scale and shift: the peers scale their maps to 0..1."""
    if np.corrcoef(first.ravel(), second.ravel())[0, 1] < 0:
        return 1.0
    columns = np.stack([first.ravel(), np.ones(first.size)], 1)
    fitted = columns @ np.linalg.lstsq(columns, second.ravel(), rcond=None)[0]
    return float(np.abs(fitted - second.ravel()).max() / np.ptp(second))


def ours(network: Network, class_: int, kind: str, layer: str = "") -> np.ndarray:
    unit = vizapp.class_unit(network, class_)
    found = vizapp.ask("attribution", network, PICTURE, unit=unit, kind=kind, layer=layer)
    return found.arrays["attribution"].astype(float)


class Convolutional(nn.Module):
    """Two convolutions and a linear layer that reads each cell in its own way; its scores are multiplied by `scale`."""

    def __init__(
        self, scale: float = 1.0, activation: Callable[[], nn.Module] = nn.ReLU, in_place: bool = False
    ) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 3, 2)
        self.one, self.two = nn.ReLU(), activation() if not in_place else nn.ReLU(inplace=True)
        self.head, self.scale = nn.Linear(8 * 11 * 9, 5), scale

    def features(self, x: Tensor) -> Tensor:
        return self.two(self.second(self.one(self.first(x))))

    def above(self, maps: Tensor) -> Tensor:
        return self.head(maps.flatten(1)) * self.scale

    def forward(self, x: Tensor) -> Tensor:
        return self.above(self.features(x))


def built(**options: Any) -> tuple[Network, Convolutional, Tensor]:
    module = seeded(Convolutional(**options))
    network = vizapp.wrap(module, input_size=(3, *SIZE))
    return network, module, network.prepare(PICTURE)


def maps_and_gradient(module: Convolutional, picture: Tensor, class_: int) -> tuple[np.ndarray, np.ndarray]:
    """`[C h w]` of the second activation, from a batch of two in float64."""
    module = module.double()
    maps = module.features(torch.cat([picture, picture]).double()).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(module.above(maps)[0, class_], maps)
    module.float()
    return maps[0].detach().numpy(), gradient[0].numpy()


# ------------------------------------------------------------------------------------------------------ where they are right


@pytest.mark.parametrize("kind", ["gradcam", "hirescam", "layercam", "ablationcam", "gradcam++"])
def test_maps_are_those_of_pytorch_grad_cam(kind: str, peers: dict[str, Any]) -> None:
    network, module, picture = built(
        scale=1000.0 if kind == "gradcam++" else 1.0
    )  # its 1e-6 counts for small gradients
    scores, compared = module(picture)[0].detach(), 0
    for class_ in range(5):
        if kind == "ablationcam" and scores[class_] < 0:
            continue
        peer = by_pytorch_grad_cam(peers["pytorch-grad-cam"][kind], module, module.two, picture, class_)
        assert apart(peer, ours(network, class_, kind, "two")) < 1e-5
        compared += 1
    assert compared >= 2


@pytest.mark.parametrize("kind", ["gradcam", "layercam"])
def test_maps_are_those_of_torch_cam(kind: str, peers: dict[str, Any]) -> None:
    network, module, picture = built()
    for class_ in range(5):
        peer = by_torch_cam(peers["TorchCAM"][kind], module, "two", picture, class_)
        assert apart(peer, ours(network, class_, kind, "two")) < 1e-5


# ------------------------------------------------------------------------------------------------------ where they are wrong


def test_grad_cam_plus_plus_of_pytorch_grad_cam_adds_a_number_that_counts_for_small_gradients(
    peers: dict[str, Any],
) -> None:
    network, module, picture = built(scale=0.01)
    judge = resized(grad_cam_plus_plus(*maps_and_gradient(module, picture, 1)), SIZE)
    peer = by_pytorch_grad_cam(peers["pytorch-grad-cam"]["gradcam++"], module, module.two, picture, 1)
    assert apart(ours(network, 1, "gradcam++", "two"), judge) < 1e-5
    assert apart(peer, judge) > 0.005


def test_grad_cam_plus_plus_of_torch_cam_does_not_divide(peers: dict[str, Any]) -> None:
    """It divides a copy, so that its weights are the sums of the third powers of the positive gradients."""
    network, module, picture = built()
    maps, gradient = maps_and_gradient(module, picture, 1)
    undivided = resized(np.einsum("khw,kij->ij", np.maximum(gradient, 0) ** 3, maps), SIZE)
    peer = by_torch_cam(peers["TorchCAM"]["gradcam++"], module, "two", picture, 1)
    judge = resized(grad_cam_plus_plus(maps, gradient), SIZE)
    assert apart(peer, undivided) < 1e-5
    assert apart(peer, judge) > 0.02
    assert apart(ours(network, 1, "gradcam++", "two"), judge) < 1e-5


def test_eigen_cam_of_pytorch_grad_cam_is_centred_and_of_any_sign(peers: dict[str, Any]) -> None:
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection  # as above

    network, module, picture = built()
    maps, gradient = maps_and_gradient(module, picture, 0)
    judge = resized(eigen_cam(maps, gradient), SIZE)
    assert apart(ours(network, 0, "eigencam", "two"), judge) < 1e-5
    peer = by_pytorch_grad_cam(peers["pytorch-grad-cam"]["eigencam"], module, module.two, picture, 0)
    assert apart(peer, judge) > 0.1
    signs = set()
    for seed in range(8):  # the same maps, their channels in another order
        order = np.random.default_rng(seed).permutation(len(maps))
        signs.add(np.sign(np.corrcoef(get_2d_projection(maps[None, order])[0].ravel(), maps.sum(0).ravel())[0, 1]))
    assert signs == {1.0, -1.0}


def without_each(module: Convolutional, picture: Tensor, class_: int) -> np.ndarray:
    """Desai & Ramaswamy 2020 with |S|: one whole pass for each channel, in which it is zero."""
    with torch.no_grad():
        maps = module.features(picture)
        clean, heat = module.above(maps)[0, class_], torch.zeros_like(maps[0, 0])
        for k in range(maps.shape[1]):
            changed = maps.clone()
            changed[:, k] = 0
            heat += (clean - module.above(changed)[0, class_]) / clean.abs() * maps[0, k]
    return resized(heat.double().numpy(), SIZE)


def test_ablation_cam_of_pytorch_grad_cam_puts_a_huge_number_where_values_are_below_zero(peers: dict[str, Any]) -> None:
    network, module, picture = built(activation=nn.Tanh)
    class_ = int(module(picture)[0].argmax())
    judge = without_each(module, picture, class_)
    peer = by_pytorch_grad_cam(peers["pytorch-grad-cam"]["ablationcam"], module, module.two, picture, class_)
    assert apart(ours(network, class_, "ablationcam", "two"), judge) < 1e-5
    assert apart(peer, judge) > 0.1


def test_ablation_cam_of_pytorch_grad_cam_is_upside_down_for_a_score_below_zero(peers: dict[str, Any]) -> None:
    network, module, picture = built()
    class_ = int(module(picture)[0].argmin())
    assert float(module(picture)[0, class_]) < 0
    judge = without_each(module, picture, class_)
    peer = by_pytorch_grad_cam(peers["pytorch-grad-cam"]["ablationcam"], module, module.two, picture, class_)
    assert apart(ours(network, class_, "ablationcam", "two"), judge) < 1e-5
    assert apart(peer, judge) > 0.1


def test_a_rectifier_in_place_behind_the_layer_changes_grad_cam_of_pytorch_grad_cam(peers: dict[str, Any]) -> None:
    """It keeps the activation as it is after the rectifier, and the gradient as it is before."""
    found = []
    for in_place in (False, True):
        network, module, picture = built(in_place=in_place)
        peer = by_pytorch_grad_cam(peers["pytorch-grad-cam"]["gradcam"], module, module.second, picture, 1)
        found.append((peer, ours(network, 1, "gradcam", "second")))
    assert apart(found[0][0], found[0][1]) < 1e-5
    np.testing.assert_array_equal(found[0][1], found[1][1])
    assert apart(found[1][0], found[0][0]) > 0.02


class Functional(nn.Module):
    def __init__(self, functional: bool) -> None:
        super().__init__()
        self.a, self.relu, self.b, self.functional = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), functional
        self.last, self.head = nn.ReLU(), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.functional:
            return self.head(F.relu(self.b(F.relu(self.a(x)))).mean((2, 3)))
        return self.head(self.last(self.b(self.relu(self.a(x)))).mean((2, 3)))


def test_guided_backpropagation_of_captum_and_pytorch_grad_cam_is_the_plain_gradient_of_functional_rectifiers(
    peers: dict[str, Any],
) -> None:
    from captum.attr import GuidedBackprop  # as above

    modules = [seeded(Functional(functional)) for functional in (False, True)]
    networks = [vizapp.wrap(module, input_size=(3, *SIZE)) for module in modules]
    maps = [ours(network, 2, "guided") for network in networks]
    picture = networks[0].prepare(PICTURE)
    inputs = torch.cat([picture, picture]).requires_grad_()
    (gradient,) = torch.autograd.grad(modules[0](inputs)[0, 2], inputs)
    np.testing.assert_allclose(maps[0], maps[1], rtol=1e-5, atol=1e-8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        captum = [
            GuidedBackprop(module).attribute(picture.clone().requires_grad_(), 2)[0].sum(0).detach().numpy()
            for module in modules
        ]
    peer = [peers["guided"](module)(picture.clone(), 2).sum(2) for module in modules]
    for right, wrong in (captum, peer):
        np.testing.assert_allclose(right, maps[0], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(wrong, gradient[0].sum(0), rtol=1e-4, atol=1e-7)
    assert apart(maps[0], gradient[0].sum(0).numpy()) > 0.1


class Tokens(nn.Module):
    """Patches as tokens `[N T C]`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.head = nn.Conv2d(3, 6, 8, 8), nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.mix(self.stem(x).flatten(2).transpose(1, 2))).mean(1))


def test_torch_cam_gives_tokens_a_map_over_channels(peers: dict[str, Any]) -> None:
    module = seeded(Tokens())
    network = vizapp.wrap(module, input_size=(3, *SIZE))
    picture = network.prepare(PICTURE)
    with peers["TorchCAM"]["gradcam"](module, "mix") as cam:
        (found,) = cam(0, module(picture.clone().requires_grad_()))
    assert found.shape[-1] == 6, "the channels, not the 6 x 5 patches"
    result = vizapp.ask(
        "attribution", network, PICTURE, unit=vizapp.class_unit(network, 0), kind="gradcam", layer="mix"
    )
    assert network.site("mix").shape == (6, 6, 5)
    assert result.arrays["attribution"].shape == SIZE


def test_what_torch_differentiates_wrongly_the_peers_show(peers: dict[str, Any]) -> None:
    """Of one picture behind a batch norm and a transpose, in some versions of torch on the CPU."""
    module = seeded(NormThenTokens())
    module.norm.running_var.copy_(torch.linspace(0.5, 2, 16))
    network = vizapp.wrap(module, input_size=(3, *SIZE))
    picture = network.prepare(PICTURE)
    kept: list[Tensor] = []
    handle = module.stem.register_forward_hook(lambda *args: kept.append(args[2]))
    gradients = []
    for number in (1, 2):
        inputs = torch.cat([picture] * number).requires_grad_()
        gradients.append(torch.autograd.grad(module(inputs)[0, 1], kept[-1 if number == 1 else 1])[0][0])
    handle.remove()
    heat = (gradients[1].mean((1, 2))[:, None, None] * kept[1][0]).sum(0).detach().double().numpy()
    judge = resized(heat, SIZE)
    assert apart(ours(network, 1, "gradcam", "stem"), judge) < 1e-4
    if torch.allclose(gradients[0], gradients[1], rtol=1e-4, atol=1e-7):
        pytest.skip("this version of torch differentiates it rightly")
    for peer in (
        by_pytorch_grad_cam(peers["pytorch-grad-cam"]["gradcam"], module, module.stem, picture, 1),
        by_torch_cam(peers["TorchCAM"]["gradcam"], module, "stem", picture, 1),
    ):
        assert apart(peer, judge) > 0.01


def deep_lift_by_captum(module: nn.Module, picture: Tensor, class_: int) -> np.ndarray:
    from captum.attr import DeepLift  # as above

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = DeepLift(module).attribute(picture.clone(), torch.zeros_like(picture), target=class_)
    return found[0].sum(0).detach().double().numpy()


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2)])
def test_deep_lift_of_captum_loses_what_overlapping_windows_share(kernel: int, stride: int) -> None:
    """Its max pool writes one window over the other, so that its numbers do not add up; ours do."""
    layers = [nn.Conv2d(3, 6, 5), nn.MaxPool2d(kernel, stride), nn.Conv2d(6, 6, 3), nn.Sigmoid(), nn.Flatten()]
    module = seeded(nn.Sequential(*layers, nn.Linear(6 * 4 * 4, 3))).double()
    network = vizapp.wrap(module, input_size=(3, 17, 17))
    picture = network.prepare(PICTURE)
    for class_ in range(3):
        found, captum = ours(network, class_, "deeplift"), deep_lift_by_captum(module, picture, class_)
        with torch.no_grad():
            rise = float((module(picture) - module(torch.zeros_like(picture)))[0, class_])
        assert found.sum() == pytest.approx(rise, rel=1e-5)
        if kernel == stride:
            np.testing.assert_allclose(found, captum, rtol=1e-4, atol=1e-6 * np.abs(captum).max())
        else:
            assert abs(captum.sum() - rise) > 1e-3 * abs(rise)


def test_deep_lift_of_captum_is_the_plain_gradient_of_functional_rectifiers() -> None:
    modules = [seeded(Functional(functional)).double() for functional in (False, True)]
    networks = [vizapp.wrap(module, input_size=(3, *SIZE)) for module in modules]
    picture = networks[0].prepare(PICTURE)
    maps = [ours(network, 2, "deeplift") for network in networks]
    np.testing.assert_array_equal(*maps)
    captum = [deep_lift_by_captum(module, picture, 2) for module in modules]
    np.testing.assert_allclose(captum[0], maps[0], rtol=1e-4, atol=1e-6 * np.abs(maps[0]).max())
    with torch.no_grad():
        rise = float((modules[0](picture) - modules[0](torch.zeros_like(picture)))[0, 2])
    assert maps[1].sum() == pytest.approx(rise, rel=1e-5)
    assert abs(captum[1].sum() - rise) > 0.01 * abs(rise)
