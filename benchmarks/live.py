"""Live: how many frames of a camera each page answers in a second, in Chromium with its fake camera beside the server.

    python benchmarks/live.py [--seconds 5] [--networks vizapp/zfnet-mini …]

The bars are for two cores that do nothing else. `vizapp/efficientnet-lite0` is measured without one: its projections and
attribution maps are several passes of a larger network.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from app import FLAGS, server, wait_for

CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
PAGES = ("predict", "feature_maps", "projection", "occlusion", "attribution")
NETWORKS = {  # those of boxes and class maps explain one photo on the other pages, and those of embeddings on the last two
    "vizapp/zfnet-mini": PAGES, "vizapp/lenet5-digits": PAGES, "vizapp/shapes-segmenter": PAGES[:2],
    "vizapp/shapes-detector": PAGES[:2], "vizapp/shapes-embedding": PAGES[:3], "vizapp/efficientnet-lite0": PAGES,
}  # fmt: skip
BARS = {"occlusion": 2.0}  # frames per second; 8 on the other pages
WITHOUT = {"vizapp/efficientnet-lite0"}


def rate(page: Any, address: str, key: str, network: str, seconds: float) -> float:
    """Frames per second that the page answers, after the first five."""
    page.goto(f"{address}/{key}?network={network}")
    page.locator('[class*="st-key-live-"] label').first.click()
    canvas = page.locator("canvas[data-answered]")
    canvas.wait_for(state="attached")

    def answered() -> int:
        return int(canvas.get_attribute("data-answered"))

    while answered() < 5:
        time.sleep(0.05)
    first, began = answered(), time.perf_counter()
    time.sleep(seconds)
    return (answered() - first) / (time.perf_counter() - began)


def main() -> None:
    """Print the rates, and which of them are below their bar."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        environment = {"VIZAPP_CACHE": folder, "VIZAPP_DEVICE": "cpu"}
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=program, args=[*FLAGS, *CAMERA])
        with server(Path(folder) / "log", **environment) as (address, _):
            wait_for(address)
            for network in asked.networks:
                for key in NETWORKS.get(network, PAGES):
                    page = browser.new_context(reduced_motion="reduce").new_page()
                    page.set_default_timeout(60_000)
                    found, bar = rate(page, address, key, network, asked.seconds), BARS.get(key, 8.0)
                    page.context.close()
                    below = network not in WITHOUT and found < bar
                    told = f", below the bar of {bar:g}" if below else ""
                    print(
                        f"{network:28} {key:13} {found:5.1f} frames/s{told}  (load {os.getloadavg()[0]:.1f})",
                        flush=True,
                    )
        browser.close()


if __name__ == "__main__":
    main()
