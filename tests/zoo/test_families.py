"""Projections of one small network of each of timm's families, against autograd steered by the rules in float64 at batch 2."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from tests.oracles import Steered, out_of_place
from vizapp.engine.projection.project import project
from vizapp.engine.projection.rules import rule_named
from vizapp.engine.tap import Tap
from vizapp.engine.trace.sites import Site, Unit, survey
from vizapp.errors import VizError

timm = pytest.importorskip("timm")

# The smallest network (of those with small names) of each module of `timm.models`.
FAMILIES = """
beit_base_patch16_224 caformer_s18 cait_xxs24_224 coat_tiny convit_tiny convmixer_768_32 cpubone_nano
crossvit_tiny_240 cs3darknet_focus_s csatv2 cspnext_tiny davit_tiny deepseek_vit_412m deit_tiny_patch16_224
densenet121 dla34 dpn48b edgenext_xx_small efficientformer_l1 efficientformerv2_s0 efficientvim_m1 efficientvit_b0
efficientvit_m0 eva02_tiny_patch14_224 fasternet_t0 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny gemma4_vit_167m
ghostnet_050 gmlp_ti16_224 halonet_h1 hardcorenas_b hgnetv2_b0 hiera_tiny_224 hrnet_w18_small iformer_t
inception_next_atto inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small legacy_seresnet18 legacy_xception
levit_128s lowformer_b0 mobilenetv3_small_050 mobilenetv5_base mobilevit_xxs mvitv2_tiny naflexvit_base_patch16_gap
nasnetalarge nest_tiny nextvit_small pit_ti_224 pnasnet5large pvt_v2_b0 qwen3_vit_306m rdnet_tiny regnetx_002
repghostnet_050 repvit_m1 res2next50 resnest14d resnetv2_18 rexnet_100 sam2_hiera_tiny samvit_base_patch16 selecsls42
sequencer2d_s shvit_s1 skresnet18 starnet_s050 swiftformer_xs swin_tiny_patch4_window7_224 swinv2_cr_tiny_224
swinv2_tiny_window16_256 test_byobnet test_coatnet test_convnext test_efficientnet test_mambaout test_nfnet
test_resnet test_vit test_vit_relpos tiny_vit_5m_224 tnt_s_legacy_patch16_224 tresnet_m twins_svt_small vgg11
visformer_tiny vit_tiny_r_s16_p8_224 vitamin_small_224 volo_d1_224 vovnet39a xception41p xcit_nano_12_p8_224
""".split()  # noqa: SIM905
# Families without a network below 60 million parameters, built with fewer blocks and channels.
_SHALLOW = {"embed_dim": 64, "depth": 3, "num_heads": 2}
SHRUNK: dict[str, dict[str, float]] = {
    **dict.fromkeys(["beit_base_patch16_224", "deepseek_vit_412m", "gemma4_vit_167m", "naflexvit_base_patch16_gap"], _SHALLOW),
    "qwen3_vit_306m": _SHALLOW,
    "samvit_base_patch16": _SHALLOW | {"depth": 4},  # the third block attends globally, the others in windows
    "mobilenetv5_base": {"channel_multiplier": 0.25},
    "nasnetalarge": {"num_features": 1344},
    "vgg11": {"mlp_ratio": 0.05},
}  # fmt: skip
# About a second each; the others run with `pytest -m families tests/zoo/test_families.py` (minutes), not in CI.
QUICK = {
    "test_byobnet", "test_convnext", "test_efficientnet", "test_mambaout", "test_nfnet", "test_resnet", "test_vit",
    "mobilenetv3_small_050", "fasternet_t0",
}  # fmt: skip
KINDS = ("convolution", "activation", "add", "norm", "linear")
RULES = ("deconvnet", "guided", "gradient")


def built(name: str) -> tuple[nn.Module, Tensor]:
    """The network in float64 with random weights, and a picture of the smallest side that it takes."""
    own = timm.models.get_pretrained_cfg(name).input_size[1] if timm.models.get_pretrained_cfg(name) else 224
    for side in (64, 96, 128, own):
        for options in ({"img_size": side}, {}):
            torch.manual_seed(0)
            try:
                module = (
                    timm.create_model(name, num_classes=5, **SHRUNK.get(name, {}), **options)
                    .eval()
                    .double()
                    .requires_grad_(False)
                )
                picture = torch.randn(1, 3, side, side, dtype=torch.float64)
                with torch.no_grad():
                    module(picture)
            except (RuntimeError, TypeError, AssertionError, ValueError, IndexError, AttributeError):
                continue
            randomize_zeros(module)
            return module, picture
    pytest.fail(f"{name} takes no picture")


def randomize_zeros(module: nn.Module) -> None:
    """Weights that begin as zeros, such as those of the last layer, would hide everything below them."""
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)


def index_of(site: Site, channel: int, cell: tuple[int, int] | None, tokens: int) -> tuple[int, ...]:
    """Where the site's own tensor holds a unit."""
    if cell is None:
        return (channel,)
    row, column = cell
    if site.layout == "tokens":
        return (tokens - site.shape[1] * site.shape[2] + row * site.shape[2] + column, channel)
    return (row, column, channel) if site.layout == "hwc" else (channel, row, column)


@dataclass
class Verdict:
    """How many projections equal autograd (of these, how many are zero), the codes of the refusals, and what is wrong."""

    agreed: int = 0
    zero: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        word = "WRONG" if self.wrong else "AGREED" if not self.refused else "MIXED" if self.agreed else "REFUSED"
        codes = ", ".join(f"{code} x{count}" for code, count in self.refused.items())
        return f"{word:8}{self.agreed} agreed ({self.zero} zero){codes and '; refused: '}{codes}" + "".join(
            f"\n    {line}" for line in self.wrong
        )


def judged(name: str) -> Verdict:
    """Compare three rules at three sites of a network with autograd."""
    module, picture = built(name)
    verdict = Verdict()
    with refusals(verdict, name):
        sites = survey(module, picture)
        maps = [site for site in sites if site.is_map and site.kind in KINDS]
        chosen = dict.fromkeys([*(maps[len(maps) * part // 4] for part in (1, 2) if maps), sites[-1]])
        plain = out_of_place(module)
        for rule in RULES:
            twice = picture.repeat(2, 1, 1, 1).requires_grad_()  # at batch 1 torch is wrong behind some batch norms
            with Steered(rule), Tap(plain, {site.name for site in chosen}) as tap:
                plain(twice)
            for site in chosen:
                with refusals(verdict, f"{site.name} {rule}"):
                    unit = Unit(site.name, site.channels // 2)
                    (down,) = project(module, picture, [unit], sites, rule_named(rule), seed="one")
                    value = tap.kept[site.name]
                    number = value[(0, *index_of(site, unit.channel, down.cells[0], value.shape[1]))]
                    expected = torch.autograd.grad(number, twice, retain_graph=True)[0][0]
                    off = float((down.values[0] - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
                    if off < 1e-6:
                        verdict.agreed += 1
                        verdict.zero += not expected.any()
                    else:
                        verdict.wrong.append(f"{site.name} {rule}: off by {off:.1e}; {down.certificate}")
    return verdict


@contextmanager
def refusals(verdict: Verdict, what: str) -> Iterator[None]:
    """Count refusals by their code; they need one, and a whole sentence."""
    try:
        yield
    except VizError as error:
        verdict.refused[error.code] += 1
        if not error.code or not str(error).endswith("."):
            verdict.wrong.append(f"{what}: {error}")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in QUICK else pytest.mark.families) for name in FAMILIES]
)
def test_projections_of_a_family_equal_steered_autograd_or_are_refused(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    if not timm.is_model(name):
        pytest.skip("this timm has no such network")
    verdict = judged(name)
    gc.collect()
    record_property("verdict", f"{name:30}{verdict}")
    print(f"{name:30}{verdict}", flush=True)
    assert not verdict.wrong
