"""A walk goes to what speaks most for the first number, also through negative weights, and says where it ends."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.engine.arithmetic.test_cell import Run
from vizapp.engine.arithmetic.operands import record_operands
from vizapp.engine.arithmetic.origins import Origins
from vizapp.engine.arithmetic.walk import walk_down
from vizapp.engine.trace.sites import Unit, survey


def walked(module: nn.Module, photo: Tensor, unit: Unit, steps: int = 99) -> tuple[list[tuple[object, ...]], str]:
    sites = {site.name: site for site in survey(module, photo)}
    origins = Origins(record_operands(module, photo, set(sites)), sites)
    found, end = walk_down(origins, unit, steps)
    return [(one.below.site, one.below.channel, one.below.cell) for one in found], end


def convolution(rows: list[list[float]]) -> nn.Conv2d:
    layer = nn.Conv2d(len(rows[0]), len(rows), 1)
    layer.weight.data = torch.tensor(rows)[..., None, None]
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def test_a_negative_weight_turns_the_walk_to_what_lowers_the_number_below() -> None:
    module = nn.Sequential(convolution([[1.0, 2.0, -4.0], [1.0, 1.0, 1.0]]), convolution([[-1.0, 0.5]]))
    photo = torch.ones(1, 3, 2, 2)  # -1 and 3 in the middle, then 1 + 1.5: the second channel gives more
    photo[0, :, 1, 0] = torch.tensor([1.0, 1.0, 2.0])  # -5 and 4: the first channel gives 5 of 7
    path, end = walked(module, photo, Unit("1", 0, (0, 1)))
    assert (path, end) == ([("1", 0, (0, 1)), ("0", 1, (0, 1)), ("", 0, (0, 1))], "")
    path, end = walked(module, photo, Unit("1", 0, (1, 0)))
    assert path == [("1", 0, (1, 0)), ("0", 0, (1, 0)), ("", 2, (1, 0))]  # -4 · 2 makes it so low
    path, _ = walked(module, photo, Unit("1", 0, (1, 0)), steps=1)
    assert path == [("1", 0, (1, 0)), ("0", 0, (1, 0))]


def test_a_negative_scale_of_a_norm_turns_it_too() -> None:
    norm = nn.BatchNorm2d(1).eval()
    module = nn.Sequential(convolution([[1.0, -3.0, 2.0]]), norm)
    photo = torch.ones(1, 3, 2, 2)
    assert walked(module, photo, Unit("1", 0, (0, 1)))[0][-1] == ("", 2, (0, 1))
    nn.init.constant_(norm.weight, -1)
    assert walked(module, photo, Unit("1", 0, (0, 1)))[0][-1] == ("", 1, (0, 1))
    module = nn.Sequential(convolution([[1.0, -3.0, 4.0]]), convolution([[1.0]]), norm)
    assert walked(module, photo, Unit("2", 0, (0, 1)))[0][1:] == [("0", 0, (0, 1)), ("", 1, (0, 1))]


def test_a_negative_winner_is_the_winner() -> None:
    photo = torch.full((1, 1, 2, 2), -2.0)
    photo[0, 0, 1, 0] = -1
    path, _ = walked(nn.Sequential(nn.MaxPool2d(2)), photo, Unit("0", 0, (0, 0)))
    assert path[1] == ("", 0, (1, 0))


def test_it_goes_through_winners_gates_and_softmax_by_their_own_number() -> None:
    def run(self: Run, x: Tensor) -> Tensor:
        x = x * x.mean((2, 3), keepdim=True).sigmoid()
        return nn.functional.max_pool2d(x, 2).flatten(1).softmax(1)

    photo = torch.zeros(1, 2, 4, 2)
    photo[0, 1, 3, 1], photo[0, 0] = 2.0, 9.0
    path, end = walked(Run(run), photo, Unit("softmax", 3))
    assert path == [("softmax", 3, None), ("max_pool2d", 1, (1, 0)), ("mul", 1, (3, 1)), ("", 1, (3, 1))]
    assert end == ""


def test_it_ends_with_a_sentence_where_there_is_no_sum() -> None:
    def run(self: Run, x: Tensor) -> Tensor:
        return self.last(torch.einsum("nchw,ndhw->ncd", x, x)[..., None])  # type: ignore[operator]

    module = Run(run, last=nn.Conv2d(2, 2, 1))
    path, end = walked(module, torch.ones(1, 2, 3, 3), Unit("last", 0, (0, 0)))
    assert len(path) == 2
    assert "'einsum'" in end or "no layer" in end
    silent = nn.Sequential(convolution([[1.0, 1.0]]), nn.ReLU(), convolution([[1.0]]))
    path, end = walked(silent, -torch.ones(1, 2, 2, 2), Unit("2", 0, (0, 0)))
    assert path == [("2", 0, (0, 0))]
    assert end == "what the photo gives to the number is zero"


def test_a_step_tells_what_its_channel_gave_and_what_its_cell_alone() -> None:
    layer = convolution([[1.0, -1.0]])
    photo = torch.tensor([[[[1.0, 4.0]], [[2.0, 1.0]]]])
    module = Run(lambda self, x: self.first(x).mean((2, 3)), first=layer)  # the mean of -1 and 3
    sites = {site.name: site for site in survey(module, photo)}
    found, _ = walk_down(Origins(record_operands(module, photo, set(sites)), sites), Unit("mean", 0), 1)
    assert found[1].below.cell == (0, 1)
    assert (found[1].contribution, found[1].product) == (1.0, 1.5)
