"""Class activation maps whose weights come from the gradient at a layer."""

from __future__ import annotations

from torch import Tensor

from vizapp.engine.projection.project import project
from vizapp.engine.projection.rules import rule_named
from vizapp.methods.attribution.kind import Cam
from vizapp.methods.attribution.layer import RecordedLayer
from vizapp.methods.attribution.request import Request
from vizapp.methods.projection import certificate_text

_SPREAD = 0.1  # largest share of the squared gradient that the mean over cells may lose before Grad-CAM is called rough


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
        gradient = layer.gradient
        mean, facts = gradient.mean((2, 3), keepdim=True), dict[str, str]()
        spread = float((gradient - mean).square().sum() / gradient.square().sum())
        if spread > _SPREAD:
            facts["rough"] = (
                f"A rough guide: Grad-CAM averages the gradient over the cells of {layer.site.name}, but the layers above read "
                f"each cell in their own way, so {100 * spread:.0f} % of the gradient is lost."
            )
        return mean, facts


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
        network = request.network
        (down,) = project(network.module, request.batch, [request.unit], network.sites, rule_named("guided"), "one")
        return down.values[0].sum(0) * heat, facts | {"certificate": certificate_text(down.certificate, "guided")}
