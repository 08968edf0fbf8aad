"""All kinds of attribution, in the order in which people see them."""

from __future__ import annotations

from vizapp.methods.attribution import baselines, cams, gradients, masks, perturbations, relevance, transformers
from vizapp.methods.attribution.kind import Kind

KINDS: dict[str, Kind] = {
    kind.key: kind
    for kind in (
        cams.GradCam(),
        cams.GradCamPlusPlus(),
        cams.HiResCam(),
        cams.LayerCam(),
        cams.EigenCam(),
        masks.ScoreCam(),
        masks.AblationCam(),
        gradients.IntegratedGradients(),
        gradients.SmoothGrad(),
        gradients.DeepLift(),
        gradients.Guided(),
        gradients.Deconvnet(),
        cams.GuidedGradCam(),
        relevance.Lrp(),
        perturbations.Rise(),
        perturbations.OcclusionMap(),
        transformers.Rollout(),
        transformers.LeGrad(),
        baselines.RandomMap(),
        baselines.Edges(),
    )
}
