"""All-CNN-C: Springenberg et al., "Striving for Simplicity: The All Convolutional Net", 2014, Table 1 and section 3.1."""

from __future__ import annotations

from torch import Tensor, nn

from vizapp.zoo.classic.initial import draw_weights


class AllCNN(nn.Module):
    """Only convolutions: strides of two instead of pools, a 1x1 convolution and a mean instead of linear layers."""

    def __init__(self, classes: int = 10, width: int = 96) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Dropout(0.2)]
        inputs = 3
        # kernel, stride, padding, maps
        for kernel, stride, padding, outputs in (
            (3, 1, 1, width), (3, 1, 1, width), (3, 2, 1, width),
            (3, 1, 1, 2 * width), (3, 1, 1, 2 * width), (3, 2, 1, 2 * width),
            (3, 1, 0, 2 * width), (1, 1, 0, 2 * width), (1, 1, 0, classes),
        ):  # fmt: skip
            layers += [nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.ReLU(inplace=True)]
            layers += [nn.Dropout()] if stride == 2 else []
            inputs = outputs
        self.features = nn.Sequential(*layers)
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `[N classes]` of pictures `[N 3 32 32]`."""
        return self.features(x).mean((2, 3))
