"""Networks that compute the same get the same relevance, however they are written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.engine.projection.test_relevance import COMPOSITES, difference, photo, sent_back, with_norms
from vizapp.engine.projection.relevance_rule import Composite
from vizapp.engine.trace.sites import Unit, survey


class Plain(nn.Module):
    """Convolution, norm, rectifier, twice, a norm before a convolution, a skip, a pool, a head: as modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.before, self.conv2, self.norm2 = nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv3 = nn.Conv2d(6, 6, 1)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.pool, self.head = nn.AvgPool2d(2), nn.Linear(6, 4)

    def first(self, x: Tensor) -> Tensor:
        return self.relu1(self.norm1(self.conv1(x)))

    def second(self, x: Tensor) -> Tensor:
        return self.relu2(self.norm2(self.conv2(self.before(x))) + x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.second(self.first(x)))
        return self.head(self.relu3(self.conv3(x)).mean((2, 3)))


class Functional(Plain):
    def first(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.conv1.weight, self.conv1.bias, padding=1)
        return F.relu(
            F.batch_norm(x, self.norm1.running_mean, self.norm1.running_var, self.norm1.weight, self.norm1.bias)
        )


class InPlace(Plain):
    def first(self, x: Tensor) -> Tensor:
        return F.relu_(self.norm1(self.conv1(x)))

    def second(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.before(x)))
        y += x
        return y.relu_()


class Shared(Plain):
    def first(self, x: Tensor) -> Tensor:
        return self.relu3(self.norm1(self.conv1(x)))

    def second(self, x: Tensor) -> Tensor:
        return self.relu3(self.norm2(self.conv2(self.before(x))) + x)


class Clamped(Plain):
    def first(self, x: Tensor) -> Tensor:
        return self.norm1(self.conv1(x)).clamp(min=0)

    def second(self, x: Tensor) -> Tensor:
        x = self.norm2(self.conv2(self.before(x))) + x
        return torch.where(x > 0, x, 0)


class Assigned(Plain):
    """Rectifiers that write zeros into a copy; what they copied is gone by then."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone().mul_(1).sub_(0)
        x = self.pool(self.second(self.first(x)))
        return self.head(rectified(self.conv3(x)).mean((2, 3)))

    def first(self, x: Tensor) -> Tensor:
        return rectified(self.norm1(self.conv1(x)))

    def second(self, x: Tensor) -> Tensor:
        return rectified(self.norm2(self.conv2(self.before(x))) + x)


class NormsByHand(Plain):
    def first(self, x: Tensor) -> Tensor:
        scale, shift = scale_and_shift(self.norm1)
        return self.relu1(self.conv1(x) * scale + shift)

    def second(self, x: Tensor) -> Tensor:
        norm, scale = self.norm2, scale_and_shift(self.norm2)[0]
        mean, bias = norm.running_mean[:, None, None], norm.bias[:, None, None]  # type: ignore[index]
        before, after = scale_and_shift(self.before)
        y = self.conv2(torch.mul(before, x).add(after))
        return self.relu2(bias + (y - mean) / (1 / scale) + x)


class Folded(Plain):
    def first(self, x: Tensor) -> Tensor:
        scale, shift = scale_and_shift(self.norm1)
        bias = self.conv1.bias * scale.flatten() + shift.flatten()
        return self.relu1(F.conv2d(x, self.conv1.weight * scale[:, None], bias, padding=1))


class Split(Plain):
    """A shared input of several readers, and what changes nothing."""

    def first(self, x: Tensor) -> Tensor:
        y = F.dropout(self.conv1(x), 0.5, training=False).contiguous()
        y.shape, y.size(0)
        left, right = self.norm1(y).chunk(2, 1)
        return torch.cat([left.relu(), F.relu(right)], 1)


class WithMatrices(Plain):
    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.second(self.first(x)))
        x = F.adaptive_avg_pool2d(F.relu(self.conv3(x)), 1).flatten(1)
        return torch.addmm(self.head.bias, x, self.head.weight.T)


def rectified(x: Tensor) -> Tensor:
    x = x.clone()
    x[x < 0] = 0
    return x


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()  # type: ignore[operator]
    return scale[:, None, None], (norm.bias - norm.running_mean * scale)[:, None, None]  # type: ignore[operator]


OTHERS: list[type[Plain]] = [Functional, InPlace, Shared, Clamped, Assigned, NormsByHand, Folded, Split]


@pytest.mark.parametrize("composite", COMPOSITES)
def test_equal_functions_get_equal_relevance(composite: Composite) -> None:
    plain, picture = with_norms(Plain()), photo(12)
    expected = sent_back(plain, picture, [Unit("head", 1)], composite)
    assert float(expected.gap.max()) < 1e-9
    for other in OTHERS:
        written = other().eval().double().requires_grad_(False)
        written.load_state_dict(plain.state_dict())
        assert difference(written(picture), plain(picture)) < 1e-12
        found = sent_back(written, picture, [Unit("head", 1)], composite)
        assert difference(found.values, expected.values) < 1e-8, other.__name__
        assert float(found.biases[0]) == pytest.approx(float(expected.biases[0]), rel=1e-7), other.__name__


def test_a_matrix_product_with_constants_is_a_linear_layer() -> None:
    plain, written = with_norms(Plain()), WithMatrices().eval().double().requires_grad_(False)
    written.load_state_dict(plain.state_dict())
    expected = sent_back(plain, photo(12), [Unit("head", 1)], "epsilon")
    found = sent_back(written, photo(12), [Unit(survey(written, photo(12))[-1].name, 1)], "epsilon")
    assert difference(found.values, expected.values) < 1e-8
    assert float(found.gap) < 1e-9


def test_many_units_are_each_as_if_alone() -> None:
    module, picture = with_norms(Plain()), photo(12)
    units = [Unit("relu2", channel, (row, 3)) for channel in range(6) for row in (0, 5, 11)]
    together = sent_back(module, picture, units, "composite")
    for place, unit in enumerate(units):
        alone = sent_back(module, picture, [unit], "composite")
        assert (together.values[place] - alone.values[0]).abs().max() <= 1e-12 * (1 + alone.values.abs().max())
        assert float(together.biases[place]) == pytest.approx(float(alone.biases[0]), abs=1e-12)


class Normalising(Plain):
    """Takes pixels from 0 to 1, in another order of channels, and normalises them itself."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.flip(1)
        x = torch.cat([(x[:, i : i + 1] - mean) / 2.0 for i, mean in zip((2, 1, 0), (0.1, 0.2, 0.3), strict=True)], 1)
        return super().forward(x)


class FoldedNormalising(Plain):
    def first(self, x: Tensor) -> Tensor:
        mean = torch.tensor([0.1, 0.2, 0.3], dtype=x.dtype)[:, None, None]
        inside = F.pad((x - mean) / 2.0, (1, 1, 1, 1))
        return self.relu1(self.norm1(F.conv2d(inside, self.conv1.weight, self.conv1.bias)))


@pytest.mark.parametrize("written", [Normalising, FoldedNormalising])
def test_the_box_is_that_of_the_pixels_where_the_network_normalises_them(written: Callable[[], Plain]) -> None:
    """Against the box formula with the normalisation in the weights: only borders, where zeros are padded, lack its shift."""
    plain, module, picture = with_norms(Plain()), written().eval().double().requires_grad_(False), photo(12)
    module.load_state_dict(plain.state_dict())
    found = sent_back(module, picture, [Unit("head", 1)], "composite")
    assert float(found.gap) < 1e-9
    mean = torch.tensor([0.1, 0.2, 0.3], dtype=picture.dtype)
    low, high = (tuple(((torch.tensor(bound) - mean) / 2).tolist()) for bound in ((-2.0, -1.5, -1.0), (2.0, 2.5, 1.0)))
    from vizapp.engine.projection.relevance import relevance
    from vizapp.engine.projection.relevance_rule import Relevance

    seen = (picture - mean[:, None, None]) / 2
    expected = relevance(plain, seen, [Unit("head", 1)], survey(plain, seen), Relevance(low=low, high=high))
    assert difference(found.values, expected.values) < 1e-9


class SeveralReaders(Plain):
    """A convolution read by its norm and by a sum, and a sum by a rectifier and by a later sum."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        y = self.relu1(self.norm1(y)) + y
        z = self.norm2(self.conv2(self.relu2(y))) + y
        y = self.conv3(z)
        return self.head((self.relu3(y) + y).mean((2, 3)))


@pytest.mark.parametrize("composite", COMPOSITES)
def test_nothing_is_lost_where_several_operations_read_a_layer(composite: Composite) -> None:
    module = with_norms(SeveralReaders())
    assert float(sent_back(module, photo(12), [Unit("head", 1)], composite).gap) < 1e-9
