"""Deeply Supervised Net: Lee et al., 2015, section 3 (CIFAR-10): Network in Network with a classifier on each layer."""

from __future__ import annotations

from torch import Tensor, nn

from vizapp.zoo.classic.nin import NetworkInNetwork


class DeeplySupervisedNet(NetworkInNetwork):
    """Three mlpconv layers with max pools; a linear companion classifier on the first convolution of each.

    Training needs the companions: each adds a squared hinge loss. With `companions`, the output is a tuple of the
    network's own scores and theirs.
    """

    def __init__(self, classes: int = 10, companions: bool = False) -> None:
        super().__init__(classes)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        sides = (32, 16, 8) if companions else ()
        self.companions = nn.ModuleList(nn.Linear(192 * side * side, classes) for side in sides)
        self.head_names = ("output", *(f"companion {number}" for number in range(1, len(sides) + 1)))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:  # type: ignore[override]
        """Class scores `[N classes]` of pictures `[N 3 32 32]`; with companions, also their scores."""
        aside = []
        for number, mlpconv in enumerate((self.mlpconv1, self.mlpconv2, self.mlpconv3)):
            if number:
                x = self.drop1(self.pool1(x)) if number == 1 else self.drop2(self.pool2(x))
            first, *rest = mlpconv
            x = first(x)
            if self.companions:
                aside.append(self.companions[number](x.flatten(1)))
            for layer in rest:
                x = layer(x)
        x = x.mean((2, 3))
        return (x, *aside) if self.companions else x
