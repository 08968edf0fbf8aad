"""The app in a real browser: from choosing a network to downloading files, and the layout on the way."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser.conftest import downloaded, keep, open_page, settle, went_well
from tests.browser.contrast import faint
from tests.browser.fit import misfits
from vizapp.ui.app.pages import pages

pytestmark = pytest.mark.browser


def _photo() -> bytes:
    from vizapp.media.samples import open_sample

    buffer = io.BytesIO()
    Image.fromarray(open_sample("coffee").pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def test_from_a_network_and_a_photo_to_a_receptive_field_and_the_files(address: str, browser: Any) -> None:
    page = open_page(browser)
    outside: list[str] = []
    page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else outside.append(r.url))
    page.goto(f"{address}/predict?network=vizapp/lenet5-digits")
    page.locator(".bars li").first.wait_for()

    network = page.get_by_role("combobox", name="Network")
    network.click()
    assert "On this machine" in page.locator(".group").first.text_content()
    names = page.locator(".option .name")
    network.fill("resnet50")  # equal before prefix, prefix before word, word before the rest
    found = names.all_text_contents()
    order = [
        found.index(f"timm/{name}") for name in ("resnet50", "resnet50d", "vit_small_resnet50d_s16_224", "seresnet50")
    ]
    assert found[0] == "torchvision/resnet50"
    assert order == sorted(order)
    network.fill("deeplab")
    page.locator(".popup").get_by_role("button", name="Detection").click()
    page.get_by_text("No network of this name.").wait_for()
    page.locator(".popup").get_by_role("button", name="All").click()
    network.fill("zfnet-mini")
    page.get_by_role("option", name="vizapp/zfnet-mini").click()
    page.wait_for_url(lambda url: "lenet5" not in url)
    page.get_by_role("radio", name="Upload").or_(page.get_by_role("button", name="Upload", exact=True)).first.click()
    page.locator('[data-testid="stFileUploaderDropzoneInput"]').set_input_files(
        {"name": "my photo.jpg", "mimeType": "image/jpeg", "buffer": _photo()}
    )
    page.get_by_text("my photo.jpg").first.wait_for()
    settle(page)
    went_well(page)

    page.get_by_role("link", name="Feature maps").click()
    page.locator(".diagram [data-block='3']").click()
    page.locator(".diagram [data-block='3'].chosen").wait_for()
    settle(page)
    page.keyboard.press("ArrowRight")  # the diagram can be walked without a mouse
    page.keyboard.press("Enter")
    page.locator(".diagram [data-block='4'].chosen").wait_for()
    settle(page)
    sheet = page.locator(".stMain .sheet canvas")
    box = sheet.bounding_box()
    sheet.click(position={"x": box["width"] / 2, "y": 20})
    page.wait_for_url(re.compile("channel="))
    channel_map = page.locator(".picture:not(.still)")
    box = channel_map.bounding_box()
    channel_map.click(position={"x": box["width"] * 0.4, "y": box["height"] * 0.5})
    page.wait_for_url(re.compile("cell="))
    page.locator(".picture.still").wait_for()
    page.get_by_text("Receptive field").wait_for()
    settle(page)
    went_well(page)

    assert Image.open(downloaded(page, "Channel PNG")).format == "PNG"
    with np.load(downloaded(page, "Arrays NPZ")) as arrays:
        assert arrays["activations"].ndim == 3
    went_well(page)
    assert outside == []  # nothing is fetched from anywhere else
    page.context.close()


def test_a_unit_is_sent_down_from_a_clicked_cell_and_checked(address: str, browser: Any) -> None:
    page = open_page(browser, 1440, 1750)
    page.goto(f"{address}/feature_maps?{MINI}&layer=features.relu5")
    page.locator(".stMain .sheet canvas").wait_for()
    page.get_by_role("link", name="Projection").click()
    page.get_by_text("How this was computed").wait_for()
    page.locator(".diagram [data-block='11'].chosen").wait_for()  # the layer of the page before
    settle(page)
    page.get_by_text("Nine strongest", exact=True).click()
    tiles = page.locator(".stMain .sheet canvas")
    tiles.nth(1).wait_for()
    settle(page)
    box = tiles.nth(1).bounding_box()
    tiles.nth(1).click(position={"x": box["width"] * 0.5, "y": box["height"] * 0.5})
    page.wait_for_url(re.compile("channel="))
    pictures = page.locator(".stMain .picture.still img.photo")
    pictures.nth(3).wait_for()
    settle(page)
    before = pictures.nth(1).get_attribute("src")
    channel_map = page.locator(".picture:not(.still)")
    box = channel_map.bounding_box()
    channel_map.click(position={"x": box["width"] * 0.5, "y": box["height"] * 0.6})
    page.wait_for_url(re.compile("cell="))
    page.get_by_role("button", name="Use strongest cell", exact=True).wait_for()
    settle(page)
    assert pictures.nth(1).get_attribute("src") != before
    page.get_by_role("button", name="Options").click()
    page.locator(".st-key-form-projection-seed").get_by_text("One", exact=True).click()
    page.wait_for_url(re.compile("projection.seed=one"))
    settle(page)
    assert "extended" not in page.url  # opening the options changes none of them
    assert "Options: seed one." in page.locator(".stMain").inner_text()
    keep(page, "projection-options")
    extended = page.locator(".st-key-form-projection-extended label").first
    extended.click()
    page.wait_for_url(re.compile("projection.extended=False"))
    settle(page)
    extended.click()
    page.wait_for_url(lambda url: "extended" not in url)
    settle(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Compare with randomised networks").click()
    page.get_by_text("rank correlations").wait_for()
    settle(page)
    assert pictures.count() == 8
    keep(page, "projection-checked")
    with np.load(downloaded(page, "Arrays NPZ")) as arrays:
        assert {"deconvnet", "guided", "gradient", "field", "sanity_similarity"} <= set(arrays)
    went_well(page)
    page.context.close()


def test_a_computation_can_be_cancelled_and_asked_again(address: str, browser: Any) -> None:
    page = open_page(browser)
    page.goto(f"{address}/predict?network=torchvision/resnet101&weights=random&crops=multi")
    bars = page.locator(".bars li")
    cancel = page.get_by_role("button", name="Cancel")
    cancel.wait_for()
    page.get_by_text("Computing").wait_for()  # the network is open, its answer takes seconds
    cancel.click()
    page.get_by_text("Cancelled.").wait_for()
    assert bars.count() == 0
    page.get_by_role("button", name="Run again").click()
    bars.first.wait_for()
    went_well(page)
    page.context.close()


def test_a_network_without_class_scores_is_told_and_nothing_else_is_left(address: str, browser: Any) -> None:
    page = open_page(browser)
    page.goto(f"{address}/dense?network=torchvision/deeplabv3_resnet50&weights=random")
    page.locator('[data-testid="stAlert"]').wait_for()
    settle(page)
    assert "Dense takes a classification network" in page.locator('[data-testid="stAlert"]').inner_text()
    assert page.get_by_role("button", name="Cancel").count() == 0
    went_well(page)
    page.context.close()


def test_an_upload_survives_a_reload_and_a_broken_one_is_told(address: str, browser: Any) -> None:
    page = open_page(browser)
    page.goto(f"{address}/predict?network=vizapp/lenet5-digits")
    page.locator(".bars li").first.wait_for()
    page.get_by_role("radio", name="Upload").or_(page.get_by_role("button", name="Upload", exact=True)).first.click()
    page.locator('[data-testid="stFileUploaderDropzoneInput"]').set_input_files(
        {"name": "letter.txt", "mimeType": "text/plain", "buffer": b"Dear network"}
    )
    page.locator('[data-testid="stAlert"]').wait_for()
    assert "letter.txt" in page.locator('[data-testid="stAlert"]').inner_text()
    page.locator(".bars li").first.wait_for(state="detached")  # no older answer under its name
    went_well(page)
    page.get_by_role("button", name="Show another photo").click()
    page.locator(".bars li").first.wait_for()
    photo = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(photo, "PNG")
    page.locator('[data-testid="stFileUploaderDropzoneInput"]').set_input_files(
        {"name": "red.png", "mimeType": "image/png", "buffer": photo.getvalue()}
    )
    page.wait_for_url(re.compile("picture=upload"))
    settle(page)
    answers, link = page.locator(".bars li").all_inner_texts(), page.url
    page.reload()
    page.locator('[data-testid="stSidebar"] .sheet .tip b', has_text="red.png").wait_for()  # in the strip
    page.get_by_text("Using the upload red.png.").wait_for()
    settle(page)
    assert page.locator(".bars li").all_inner_texts() == answers
    assert page.url == link
    page.goto(f"{address}/predict?network=vizapp/lenet5-digits&picture=upload/{'0' * 64}")
    page.get_by_text("The uploaded photo is not on this machine any more.").wait_for()
    assert page.locator(".bars li").count() == 0
    went_well(page)
    page.goto(f"{address}/filters?network=torchvision/squeezenet1_1&weights=none&layer=features.3.squeeze")
    page.get_by_text("Filter 0", exact=True).or_(page.get_by_text("Run feature visualization")).first.wait_for()
    settle(page)
    assert page.locator("canvas").count() >= 2, "kernels of 1 × 1, and one of them"
    assert page.locator('[data-testid="stAlert"]').count() == 0
    assert "top-1" not in page.locator('[data-testid="stSidebar"]').inner_text(), "random weights"
    went_well(page)
    page.context.close()


MINI = "network=vizapp/zfnet-mini"
VIEWS = {
    "start": "",
    "predict": "predict",
    "feature-maps": f"feature_maps?{MINI}&layer=features.relu2&cell=10,12",
    "vector": f"feature_maps?{MINI}&layer=classifier.relu6",
    "numbers": f"feature_maps?{MINI}&layer=features.relu2&view=numbers",
    "deep": "feature_maps?network=torchvision/resnet152&weights=random&layer=layer3.10.relu_2",
    "digits": "feature_maps?network=vizapp/lenet5-digits&layer=features.3&cell=3,4",
    "notice": f"feature_maps?{MINI}&layer=features.relu22",
    "projection": f"projection?{MINI}&layer=features.relu5",
    "projection-cell": f"projection?{MINI}&layer=features.relu2&cell=10,12&part=whole&contrast=own",
    "projection-nine": f"projection?{MINI}&layer=features.relu5&mode=nine",
    "projection-digits": "projection?network=vizapp/lenet5-digits&layer=features.4",
    "projection-deep": "projection?network=torchvision/mobilenet_v2&weights=random&layer=features.6.conv.2&channel=3",
    "projection-class": f"projection?{MINI}&layer=classifier.fc8",
    "gallery": "gallery",
    "occlusion": f"occlusion?{MINI}&picture=rocket&position=8,11",
    "occlusion-two": f"occlusion?{MINI}&picture2=chelsea&network2=vizapp/lenet5-digits&window=20",
    "occlusion-drawn": "occlusion?way=hand&network=vizapp/lenet5-digits",
    "attribution": f"attribution?{MINI}&trust.kinds=gradcam,guided_gradcam,random&trust.measures=deletion&trust.box=9,9,99,99",
    "dense": f"dense?{MINI}&picture=rocket",
    "dense-digits": "dense?network=vizapp/lenet5-digits&picture=camera&dense.zoom=0.25&place=8,9",
    "filters": f"filters?{MINI}&layer=features.conv1",
    "compare": "compare?network=vizapp/lenet5-digits&other=vizapp/lenet5-digits",
    "compare-other": f"compare?{MINI}&other_weights=random",
    "architecture": f"architecture?{MINI}",
    "architecture-drawing": f"architecture?{MINI}&aspect=drawing",
    "architecture-comparison": f"architecture?{MINI}&aspect=comparison",
    "evaluate": "evaluate?network=vizapp/lenet5-digits",
    "probe": "probe?network=vizapp/lenet5-digits",
    "about": "about",
}
_SEEN = {address.partition("?")[0] for address in VIEWS.values()}
VIEWS |= {key: f"{key}?{MINI}" for key, spec in pages().items() if key not in _SEEN and not spec.default}


FIRST = {address.partition("?")[0]: view for view, address in reversed(VIEWS.items())}  # the first view of each page
WIDTHS = {1440: "light", 800: "dark", 390: "dark"}


@pytest.mark.parametrize("view", VIEWS)
def test_how_it_looks(address: str, browser: Any, view: str) -> None:
    """Keeps screenshots for a person to look at; all words fit and can be read, on a phone as well."""
    moves = view == "numbers"  # has a button that slides the kernel, for those who want motion
    widths = WIDTHS if view in FIRST.values() else {800: "dark", 390: "dark"}
    width, scheme = next(iter(widths.items()))
    page = open_page(browser, width, 1900, scheme, moves)
    page.goto(f"{address}/{VIEWS[view]}")
    page.locator(".vz-title").wait_for()
    if view not in {"about", "start", "predict", "gallery", "architecture-drawing", "architecture-comparison"}:
        page.locator('[class*="_downloads"] button').first.wait_for()
    for width, scheme in widths.items():
        page.set_viewport_size({"width": width, "height": 1300 if width > 1000 else 1900})
        page.emulate_media(color_scheme=scheme)
        settle(page)
        keep(page, f"{view}-{width}-{scheme}")
        if view == "architecture-drawing":  # Streamlit's Graphviz rejects with nothing if it is drawn again meanwhile
            page.errors[:] = [error for error in page.errors if error != "undefined"]
        went_well(page)
        assert misfits(page) == []
        assert faint(page) == []
    page.context.close()


def test_what_is_shown_can_be_had_while_something_else_is_computed(address: str, browser: Any) -> None:
    page = open_page(browser)
    page.goto(f"{address}/dense?network=torchvision/resnet101&weights=random&picture=coffee&zoom=2.0&check=0")
    page.get_by_role("button", name="Arrays NPZ").wait_for()
    settle(page)
    with np.load(downloaded(page, "Arrays NPZ")) as arrays:
        shown = arrays["label"]
    settle(page)
    page.get_by_role("combobox", name="Stride").click()
    page.get_by_role("option", name="stride 4").click()  # a minute
    page.get_by_role("button", name="Cancel").wait_for()
    with np.load(downloaded(page, "Arrays NPZ")) as arrays:  # of the answer that still stands there, in grey
        assert (arrays["label"] == shown).all()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Cancelled.").wait_for()
    went_well(page)
    page.context.close()
