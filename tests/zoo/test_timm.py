"""A network of each family of timm: its sites are found, and its gradient projection equals autograd's gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vizapp
from vizapp.media.samples import open_sample

timm = pytest.importorskip("timm")

SMALL = """
cait_xxs24_224 coat_tiny convit_tiny crossvit_tiny_240 cs3darknet_focus_s cspnext_tiny davit_tiny deit_tiny_patch16_224
densenet121 dla46x_c dpn48b edgenext_xx_small efficientformer_l1 efficientformerv2_s0 efficientvit_b0 efficientvit_m0
fastvit_t8 focalnet_tiny_srf gcvit_xxtiny gernet_s ghostnet_050 halonet_h1 hardcorenas_b hgnetv2_b0 hrnet_w18_small
inception_next_atto inception_v3 inception_v4 lambda_resnet26t levit_128s mobilenetv3_small_050 mobilevit_xxs mvitv2_tiny
nest_tiny nextvit_small pit_ti_224 poolformerv2_s12 pvt_v2_b0 regnetx_002 repghostnet_050 repvit_m1 res2next50 resnest14d
resnetv2_50 rexnet_100 selecsls42 legacy_seresnet18 shvit_s1 skresnet18 starnet_s050 swiftformer_xs
swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 swinv2_cr_tiny_224 tf_efficientnet_cc_b0_4e tiny_vit_5m_224
tnt_s_legacy_patch16_224 tresnet_m twins_svt_small visformer_tiny vit_tiny_r_s16_p8_224 vitamin_small_224
ese_vovnet19b_slim_dw legacy_xception xception41p xcit_nano_12_p8_224
""".split()  # noqa: SIM905
FAST = {"mobilenetv3_small_050", "ghostnet_050", "regnetx_002"}
DEAR = """
cait_xxs24_224 coat_tiny davit_tiny focalnet_tiny_srf halonet_h1 inception_v3 inception_v4 legacy_xception mvitv2_tiny
nest_tiny nextvit_small poolformerv2_s12 swinv2_cr_tiny_224 tnt_s_legacy_patch16_224 twins_svt_small vitamin_small_224
xception41p
""".split()  # noqa: SIM905  more than 2 s each; `test_families.py` asks them for all rules as well


def marks(name: str) -> list[pytest.MarkDecorator]:
    """None for a fast test, else slow or families."""
    return [] if name in FAST else [pytest.mark.families if name in DEAR else pytest.mark.slow]


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in SMALL])
def test_the_gradient_of_every_family_is_autograds(name: str) -> None:
    if not timm.is_model(name):
        pytest.skip("this timm has no such network")
    network = vizapp.load(f"timm/{name}", weights="none", device="cpu")
    picture = open_sample("chelsea")
    down = vizapp.ask("projection", network, picture, unit=vizapp.class_unit(network, 3), rule="gradient")
    batch = network.prepare(picture).requires_grad_()
    score = network.scores(batch)[0, 3]
    (gradient,) = torch.autograd.grad(score, batch)
    expected = (gradient[0] * score.detach()).permute(1, 2, 0).numpy()
    assert np.abs(expected).max() > 0
    # float32 through up to two hundred layers, in another order of summation
    assert np.abs(down.arrays["projection"] - expected).max() < 1e-4 * np.abs(expected).max()
