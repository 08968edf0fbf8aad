"""Observed activations are those of a plain pass, channels first, whatever the layout."""

from __future__ import annotations

import pytest
import torch
import torchvision

from tests.networks import Branching, seeded
from vizapp.engine.trace.observe import observe
from vizapp.engine.trace.sites import Site, survey
from vizapp.errors import VizError


def find(sites: tuple[Site, ...], name: str) -> Site:
    return next(site for site in sites if site.name == name)


def test_a_batch_is_observed_as_its_pictures_are() -> None:
    module, batch = seeded(Branching()), torch.randn(3, 3, 32, 40)
    sites = survey(module, batch[:1])
    chosen = [find(sites, name) for name in ("stem", "cat", "head")]
    together = observe(module, batch, chosen)
    assert torch.equal(together["stem"], module.stem(batch))
    assert torch.equal(together["head"], module(batch))
    for number in range(3):
        alone = observe(module, batch[number : number + 1], chosen)
        torch.testing.assert_close(alone["cat"], together["cat"][number : number + 1])


def test_channels_stand_first_in_every_layout() -> None:
    swin = torchvision.models.swin_t(weights=None).eval()
    picture = torch.randn(1, 3, 64, 64)
    site = find(survey(swin, picture), "features.1.0.norm1")
    assert (site.layout, site.shape) == ("hwc", (96, 16, 16))
    found = observe(swin, picture, [site])[site.name]
    with torch.no_grad():
        expected = swin.features[1][0].norm1(swin.features[0](picture)).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected)


def test_tokens_are_laid_out_as_a_map_without_the_class_token() -> None:
    vit = torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 32).eval()
    picture = torch.randn(1, 3, 32, 32)
    site = find(survey(vit, picture), "encoder.layers.encoder_layer_0.ln_1")
    assert (site.layout, site.shape) == ("tokens", (16, 4, 4))
    found = observe(vit, picture, [site])[site.name]
    kept = {}
    handle = vit.encoder.layers.encoder_layer_0.ln_1.register_forward_hook(lambda m, i, o: kept.update(out=o.detach()))
    vit(picture)
    handle.remove()
    torch.testing.assert_close(found[0, :, 2, 3], kept["out"][0, 1 + 2 * 4 + 3])


def test_a_site_that_the_pass_does_not_produce_is_told() -> None:
    module, batch = seeded(Branching()), torch.randn(1, 3, 32, 32)
    sites = survey(module, batch)
    missing = Site("nowhere", "other", (1, 1, 1), "chw", "add")
    with pytest.raises(VizError, match="'nowhere'"):
        observe(module, batch, [sites[0], missing])


def test_a_site_without_one_answer_per_picture_is_told() -> None:
    module = torchvision.models.get_model("shufflenet_v2_x0_5", weights=None).eval()
    sites = survey(module, torch.rand(1, 3, 64, 64))
    changed = Site(sites[0].name, "other", (1,), "vector", "view")
    with pytest.raises(VizError, match="depends on what the network finds"):
        observe(module, torch.rand(1, 3, 64, 64), [changed])


def test_the_picture_is_not_written_into() -> None:
    module = torch.nn.Sequential(torch.nn.ReLU(inplace=True), torch.nn.Conv2d(3, 2, 1)).eval()
    picture = torch.randn(1, 3, 8, 8)
    before = picture.clone()
    sites = survey(module, picture)
    observe(module, picture, sites)
    assert torch.equal(picture, before)
