"""The CAMs against their formulas in every layout, their identities, and the peers where these are right."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vizapp
from tests.methods.test_attribution import NETWORKS, PICTURE, SIZE, Block, wrapped
from tests.networks import seeded
from vizapp.errors import VizError
from vizapp.zoo.network import Network

Formula = Callable[[np.ndarray, np.ndarray], np.ndarray]  # maps and gradients [C h w] -> heat [h w], before the ReLU


def grad_cam(maps: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Selvaraju et al. 2017, equations 1 and 2."""
    return sum(gradient[k].mean() * maps[k] for k in range(len(maps)))


def grad_cam_plus_plus(maps: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Chattopadhay et al. 2018, equations 5 and 19, without the common factor exp(S)."""
    heat = np.zeros(maps.shape[1:])
    for k, one in enumerate(maps):
        weight = 0.0
        for g in gradient[k].ravel():
            if g > 0 and 2 * g**2 + one.sum() * g**3 > 0:
                weight += g**2 / (2 * g**2 + one.sum() * g**3) * g
        heat += weight * one
    return heat


def hires_cam(maps: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Draelos & Carin 2020, section 3: elementwise, then the sum over channels."""
    return sum(gradient[k] * maps[k] for k in range(len(maps)))


def layer_cam(maps: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Jiang et al. 2021, equations 5 to 7."""
    return sum(np.maximum(gradient[k], 0) * maps[k] for k in range(len(maps)))


def eigen_cam(maps: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Muhammad & Yeasin 2020, equations 1 to 3, by the power method instead of an SVD; the sum is positive."""
    cells = maps.reshape(len(maps), -1).T
    direction = np.random.default_rng(0).normal(size=len(maps))
    for _ in range(20_000):
        direction = cells.T @ (cells @ direction)
        direction /= np.linalg.norm(direction)
    heat = (cells @ direction).reshape(maps.shape[1:])
    return heat if heat.sum() >= 0 else -heat


FORMULAS: dict[str, Formula] = {
    "gradcam": grad_cam, "gradcam++": grad_cam_plus_plus, "hirescam": hires_cam, "layercam": layer_cam,
    "eigencam": eigen_cam,
}  # fmt: skip


def resized(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rectified = torch.from_numpy(np.maximum(heat, 0))[None, None]
    return F.interpolate(rectified, size, mode="bilinear", align_corners=False)[0, 0].numpy()


def canonical(tensor: Tensor, layout: str) -> np.ndarray:
    """`[C h w]` of the first picture of a batch in one of the layouts of NETWORKS, whose maps have 3 x 5 cells."""
    one = tensor[0].detach().double()
    if layout == "chw":
        return one.numpy()
    if layout == "hwc":
        return one.permute(2, 0, 1).numpy()
    return (one if layout == "tokens-last" else one[2:-1].T).reshape(6, 3, 5).numpy()


@pytest.mark.parametrize("key", FORMULAS)
@pytest.mark.parametrize("block", NETWORKS)
def test_a_cam_is_its_formula_in_every_layout(key: str, block: type[Block]) -> None:
    network, shown = wrapped(block), 0
    module, picture = network.module, network.prepare(PICTURE)
    for class_ in range(4):
        maps = module.features(torch.cat([picture, picture])).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(module.classify(maps)[0, class_], maps)
        heat = FORMULAS[key](canonical(maps, block.layout), canonical(gradient, block.layout))
        result = vizapp.ask("attribution", network, PICTURE, unit=vizapp.class_unit(network, class_), kind=key)
        expected = resized(heat, SIZE[1:])
        np.testing.assert_allclose(
            result.arrays["attribution"], expected, rtol=1e-3, atol=1e-5 * max(1, np.abs(expected).max())
        )
        assert result.facts["layer"] == block.layer
        shown += bool(expected.any())
    assert shown >= 2, "the formula has something to show"


# --------------------------------------------------------------------------------------------------------- identities


def averaging(depth: int = 2) -> nn.Sequential:
    """Convolutions, rectifiers, the average of each map and one linear layer."""
    torch.manual_seed(depth)
    layers: list[nn.Module] = []
    for number in range(depth):
        layers += [nn.Conv2d(3 if number == 0 else 8, 8, 3, stride=2), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_hirescam_is_grad_cam_under_a_global_average_and_a_linear_layer(depth: int) -> None:
    network = vizapp.wrap(averaging(depth), input_size=(3, 48, 40))
    shown = 0
    for class_ in range(5):
        unit = vizapp.class_unit(network, class_)
        found = [
            vizapp.ask("attribution", network, PICTURE, unit=unit, kind=kind).arrays["attribution"]
            for kind in ("gradcam", "hirescam")
        ]
        shown += bool(found[0].any())
        np.testing.assert_allclose(found[1], found[0], rtol=1e-6, atol=1e-6 * found[0].max(initial=0))
    assert shown >= 3


def test_hirescam_and_grad_cam_differ_where_a_layer_reads_each_cell_in_its_own_way() -> None:
    module = seeded(nn.Sequential(nn.Conv2d(3, 6, 5, 5), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 5 * 4, 3)))
    network = vizapp.wrap(module, input_size=(3, 25, 20))
    unit = vizapp.class_unit(network, 1)
    found = {
        kind: vizapp.ask("attribution", network, PICTURE, unit=unit, kind=kind) for kind in ("gradcam", "hirescam")
    }
    values = [result.arrays["attribution"] / result.arrays["attribution"].max() for result in found.values()]
    assert np.abs(values[0] - values[1]).max() > 0.1
    assert found["gradcam"].facts["rough"].startswith("A rough guide")
    assert "rough" not in found["hirescam"].facts


def test_hirescam_refuses_a_layer_that_is_read_through_a_layer_norm_alone() -> None:
    """A layer norm does not depend on the length of a vector, so gradient and activation are perpendicular in a cell."""

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm, self.head = nn.Conv2d(3, 6, 8, 8), nn.LayerNorm(6, eps=1e-6), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.norm(self.stem(x).flatten(2).transpose(1, 2))).mean(1))

    network = vizapp.wrap(seeded(Normed()), input_size=SIZE)
    unit = vizapp.class_unit(network, 0)
    with pytest.raises(VizError, match="HiResCAM is zero at every cell of stem") as error:
        vizapp.ask("attribution", network, PICTURE, unit=unit, kind="hirescam", layer="stem")
    assert error.value.code == "no-attribution"
    assert (
        vizapp.ask("attribution", network, PICTURE, unit=unit, kind="hirescam", layer="norm")
        .arrays["attribution"]
        .any()
    )


def exponential_weights(network: Network, class_: int) -> np.ndarray:
    """The weights of Grad-CAM++ by equation 10 of the paper, with the derivatives of exp(S) by each number from autograd."""
    module, picture = copy.deepcopy(network.module).double(), network.prepare(PICTURE).double()
    maps = module[:2](picture).detach()
    numbers = maps.flatten().clone().requires_grad_()
    score = module[2:](numbers.view_as(maps))[0, class_].exp()
    (first,) = torch.autograd.grad(score, numbers, create_graph=True)
    total, weights = maps.sum((0, 2, 3)), np.zeros(maps.shape[1])
    cells = maps.shape[2] * maps.shape[3]
    for number in range(len(numbers)):
        (second,) = torch.autograd.grad(first[number], numbers, create_graph=True, retain_graph=True)
        (third,) = torch.autograd.grad(second[number], numbers, retain_graph=True)
        one, two, three = (float(value[number]) for value in (first, second, third))
        weights[number // cells] += two / (2 * two + float(total[number // cells]) * three) * max(one, 0)
    return weights / float(score)


def test_the_weights_of_grad_cam_plus_plus_are_those_of_the_true_derivatives_of_the_exponential() -> None:
    network = vizapp.wrap(averaging(1), input_size=(3, 16, 12))
    for class_ in range(3):
        found = vizapp.ask("attribution", network, PICTURE, unit=vizapp.class_unit(network, class_), kind="gradcam++")
        weights = exponential_weights(network, class_)
        maps = network.module[:2](network.prepare(PICTURE))[0].detach().double().numpy()
        expected = resized(np.einsum("k,khw->hw", weights, maps), (16, 12))
        np.testing.assert_allclose(found.arrays["attribution"], expected, rtol=1e-4, atol=1e-7)


def test_grad_cam_plus_plus_says_where_its_layer_has_values_below_zero() -> None:
    module = seeded(nn.Sequential(nn.Conv2d(3, 6, 5, 5), nn.AdaptiveAvgPool2d((2, 2)), nn.Flatten(), nn.Linear(24, 3)))
    with torch.no_grad():
        module[0].bias -= 30
    network = vizapp.wrap(module, input_size=(3, 25, 20))
    found = vizapp.ask("attribution", network, PICTURE, unit=vizapp.class_unit(network, 1), kind="gradcam++", layer="0")
    assert "is defined for maps without negative values" in found.facts["rough"]
    assert np.isfinite(found.arrays["attribution"]).all()


def test_eigencam_is_the_same_for_every_class_and_shows_where_the_layer_is_active() -> None:
    network = vizapp.wrap(averaging(), input_size=(3, 48, 40))
    found = [
        vizapp.ask("attribution", network, PICTURE, unit=vizapp.class_unit(network, class_), kind="eigencam")
        for class_ in range(5)
    ]
    for result in found[1:]:
        np.testing.assert_array_equal(result.arrays["attribution"], found[0].arrays["attribution"])
    assert (found[0].arrays["attribution"] >= 0).all()
    assert found[0].arrays["attribution"].any()
    with torch.no_grad():
        maps = network.module[:4](network.prepare(PICTURE))[0].flatten(1).double()
    lengths = torch.linalg.eigvalsh(maps @ maps.T)
    assert found[0].facts["share"].startswith(f"{100 * float(lengths[-1] / lengths.sum()):.0f} %")
