"""Class activation maps whose weights come from one pass: from the gradient at a layer, or from its activations."""

from __future__ import annotations

import torch
from torch import Tensor

from vizapp.errors import VizError
from vizapp.methods.attribution.gradients import projected
from vizapp.methods.attribution.kind import Cam
from vizapp.methods.attribution.layer import RecordedLayer
from vizapp.methods.attribution.request import Request

_SPREAD = 0.1  # largest share of the squared gradient that the mean over cells may lose before Grad-CAM is called rough

_ROUNDING = 1e-4  # a sum over channels that is a smaller share of the sum of its sizes is one of numbers that cancel


class GradCam(Cam):
    """Each channel weighted by the mean of the unit's gradient over its cells."""

    key, title = "gradcam", "Grad-CAM"
    source = "Selvaraju et al. 2017, section 3"
    caution = (
        "Bright cells need not have raised the score: the mean over cells can mark places that the network did not use "
        "(Draelos & Carin 2020)."
    )

    def weights(self, layer: RecordedLayer, size: int) -> tuple[Tensor, dict[str, str]]:
        """`[1 C 1 1]`, and whether the mean loses much."""
        assert layer.gradient is not None
        mean, facts = layer.gradient.mean((2, 3), keepdim=True), dict[str, str]()
        spread = float((layer.gradient - mean).square().sum() / layer.gradient.square().sum())
        if spread > _SPREAD:
            facts["rough"] = (
                f"A rough guide: Grad-CAM averages the gradient over the cells of {layer.site.name}, but the layers above read "
                f"each cell in their own way, so {100 * spread:.0f} % of the gradient is lost."
            )
        return mean, facts


class GradCamPlusPlus(Cam):
    """Grad-CAM whose mean over cells counts a cell the more, the less of the map it needs to explain the score.

    For the exponential of the unit, whose higher derivatives are powers of the gradient where the unit is linear in the maps
    (equation 19). The exponential itself scales the whole map and is left out, as it overflows for large scores.
    """

    key, title = "gradcam++", "Grad-CAM++"
    source = "Chattopadhay et al. 2018, section 3"
    caution = (
        "Like Grad-CAM it can mark places that the network did not use (Draelos & Carin 2020), and its weights are those of "
        "the score's exponential, for layers without negative values."
    )

    def weights(self, layer: RecordedLayer, size: int) -> tuple[Tensor, dict[str, str]]:
        """`[1 C 1 1]`: the sum over cells of the positive gradient g, each divided by 2 + g times the sum of the map."""
        assert layer.gradient is not None
        gradient, facts = layer.gradient.double().relu(), dict[str, str]()
        below = 2 + gradient * layer.maps.double().sum((2, 3), keepdim=True)
        defined = below > 0
        if not defined.all():
            facts["rough"] = (
                f"A rough guide: Grad-CAM++ is defined for maps without negative values; {layer.site.name} has some, and "
                f"{int((~defined).sum())} of its numbers get no weight."
            )
        alpha = defined / below.where(defined, torch.ones_like(below))
        return (alpha * gradient).sum((2, 3), keepdim=True).to(layer.maps), facts


class HiResCam(Cam):
    """Each number of the layer times the unit's gradient there, summed over channels."""

    key, title = "hirescam", "HiResCAM"
    source = "Draelos & Carin 2020, section 3"
    caution = (
        "Exact where the unit is linear in the layer, as under one average and one linear layer (Draelos & Carin 2020); "
        "elsewhere the gradient only says what a small change would do."
    )

    def weights(self, layer: RecordedLayer, size: int) -> tuple[Tensor, dict[str, str]]:
        """The gradient `[1 C h w]`.

        Raises:
            VizError: its product with the maps sums to zero in each cell, so that only rounding would show.
        """
        assert layer.gradient is not None
        product = layer.gradient * layer.maps
        if product.sum(1).abs().max() < _ROUNDING * product.abs().sum(1).max():
            raise VizError(
                f"HiResCAM is zero at every cell of {layer.site.name}: the layers above do not depend on the length of a "
                "cell's vector, as behind a layer norm. Choose another kind, or a layer behind the norm.",
                code="no-attribution",
            )
        return layer.gradient, {}


class LayerCam(Cam):
    """Each number of the layer times the unit's gradient there where that is positive, summed over channels."""

    key, title = "layercam", "LayerCAM"
    source = "Jiang et al. 2021, section III"
    caution = (
        "What lowers the score is left out before the sum, so the map adds up to more than the score, and in early layers "
        "it shows noisy detail (Jiang 2021)."
    )

    def weights(self, layer: RecordedLayer, size: int) -> tuple[Tensor, dict[str, str]]:
        """The positive gradient `[1 C h w]`."""
        assert layer.gradient is not None
        return layer.gradient.relu(), {}


class EigenCam(Cam):
    """The layer along its first principal direction: the direction in channels that holds most of the squared activations.

    As in the paper, the vectors of the cells are not centred. The sign is open; the map is made to sum to more than 0.
    """

    key, title = "eigencam", "Eigen-CAM"
    source = "Muhammad & Yeasin 2020, section III"
    caution = (
        "It is the same for every class and unit: it shows what the layer is active about, not what speaks for the class "
        "(Muhammad & Yeasin 2020)."
    )
    needs_gradient = False

    def weights(self, layer: RecordedLayer, size: int) -> tuple[Tensor, dict[str, str]]:
        """The direction `[1 C 1 1]`, of length 1."""
        cells = layer.maps[0].flatten(1).double()  # [C cells]
        directions, lengths, _ = torch.linalg.svd(cells, full_matrices=False)
        first = directions[:, 0] * (1 if (directions[:, 0] @ cells).sum() >= 0 else -1)
        share = 100 * float(lengths[0].square() / lengths.square().sum().clamp_min(1e-300))
        return first.to(layer.maps)[None, :, None, None], {"share": f"{share:.0f} % of the squared activations."}


class GuidedGradCam(GradCam):
    """Grad-CAM times the projection of the unit by the guided rule."""

    key, title = "guided_gradcam", "Guided Grad-CAM"
    source = "Selvaraju et al. 2017, section 3.2"
    caution = (
        "Its fine lines come from guided backpropagation, which mostly redraws the photo and hardly depends on later layers "
        "(Nie 2018, Adebayo 2018)."
    )
    signed = True

    def pixels(self, request: Request, size: int) -> tuple[Tensor, dict[str, str]]:
        """The product `[H W]`."""
        heat, facts = super().pixels(request, size)
        fine, more = projected(request, "guided")
        return fine * heat, facts | more
