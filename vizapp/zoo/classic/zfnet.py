"""ZFNet: Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", 2013, section 3."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vizapp.zoo.classic import alexnet


class ZFNet(nn.Module):
    """A ZFNet classifier of any width.

    A 7x7/2 first layer, a 5x5/2 second layer, three 3x3 layers, overlapping 3x3/2 max pools, two hidden fully
    connected layers. At 224 px the maps are 110, 55, 26, 13, 13, 13, 13, 6 wide.

    Args:
        channels: Channels of the five convolutions.
        hidden: Width of the two hidden layers.
        classes: Number of classes.
        size: Side of the square training input, which sets the number of inputs of the first linear layer.
        response_norm: Whether the paper's local contrast normalization follows the first two pools.
        batch_norm: Batch norm after each convolution, for training only; `fold_batch_norm` removes it.
    """

    def __init__(
        self,
        channels: Sequence[int] = (96, 256, 384, 384, 256),
        hidden: int = 4096,
        classes: int = 1000,
        size: int = 224,
        response_norm: bool = True,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = channels
        layers: OrderedDict[str, nn.Module] = OrderedDict()

        def convolution(number: int, inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> None:
            layers[f"conv{number}"] = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=not batch_norm)
            if batch_norm:
                layers[f"bn{number}"] = nn.BatchNorm2d(outputs)
            layers[f"relu{number}"] = nn.ReLU(inplace=True)

        def pool(number: int) -> None:
            layers[f"pool{number}"] = nn.MaxPool2d(3, 2, ceil_mode=True)
            if response_norm and number < 5:
                layers[f"norm{number}"] = alexnet.response_norm()

        convolution(1, 3, c1, kernel=7, stride=2, padding=1)
        pool(1)
        convolution(2, c1, c2, kernel=5, stride=2, padding=0)
        pool(2)
        convolution(3, c2, c3, kernel=3, stride=1, padding=1)
        convolution(4, c3, c4, kernel=3, stride=1, padding=1)
        convolution(5, c4, c5, kernel=3, stride=1, padding=1)
        pool(5)
        self.features = nn.Sequential(layers)
        with torch.no_grad():
            was_training = self.features.training
            inputs = self.features.eval()(torch.zeros(1, 3, size, size)).flatten(1).shape[1]
            self.features.train(was_training)
        self.classifier = alexnet.hidden_layers(inputs, (hidden, hidden), classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `[N classes]` of pictures `[N 3 size size]`."""
        x = self.features(x)  # [N c5 h w]
        return self.classifier(torch.flatten(x, 1))


def zfnet_mini(classes: int = 101, batch_norm: bool = False) -> ZFNet:
    """The bundled small ZFNet for 160 px photos: 4.1 million weights, no contrast normalization."""
    return ZFNet((64, 160, 320, 320, 256), 384, classes, 160, response_norm=False, batch_norm=batch_norm)


def fold_batch_norm(trained: ZFNet, plain: ZFNet) -> ZFNet:
    """`plain` (built without batch norm), with the weights of `trained` and its batch norms folded into them."""
    source, target = trained.features, plain.features
    for number in range(1, 6):
        convolution, norm = source.get_submodule(f"conv{number}").eval(), source.get_submodule(f"bn{number}").eval()
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        fused = nn.utils.fusion.fuse_conv_bn_eval(convolution, norm)
        target.get_submodule(f"conv{number}").load_state_dict(fused.state_dict())
    plain.classifier.load_state_dict(trained.classifier.state_dict())
    return plain.eval()
