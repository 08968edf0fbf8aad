"""Panel (c) for other pictures: those that activate the late map most, with its projections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from vizapp.engine.trace.observe import observe
from vizapp.engine.trace.sites import Unit
from vizapp.errors import VizError
from vizapp.gallery.reader import find_galleries, open_gallery
from vizapp.gallery.store import read_manifest
from vizapp.media.drawing import contrast_limit, sheet, signed
from vizapp.media.source import Source, spread
from vizapp.media.sources import open_folder
from vizapp.media.stacks import shown_values
from vizapp.methods.base import Job, Panel, Question, Result
from vizapp.methods.occlusion.sweep import Occlusion
from vizapp.methods.projection import ProjectionParams, revealing_rule
from vizapp.methods.top_projections import top_projections
from vizapp.zoo.network import Network

NINE = 9
LOOKED = 200  # largest number of pictures in a pass; a gallery uses all
_TOGETHER = 8  # batch size


def with_others(question: Question, work: Occlusion, result: Result, job: Job) -> Result:
    """The result of a sweep with the other pictures of panel (c), or with a fact that says how to get them."""
    if work.params.others == "none":
        unused = {"others": "The folder is not used. For the other photos of (c), set others to gallery or pass."}
        return replace(result, facts=result.facts | unused) if question.folder is not None else result
    if work.site is None or work.channel is None:
        return result
    unit, network = Unit(work.site.name, work.channel), question.network
    try:
        source = question.folder or bundled(network)
        rows, told = rows_of_gallery(network, source, unit) if work.params.others == "gallery" else (None, "")
        if rows is None and (question.folder is not None or work.params.others == "pass"):
            rows, told = rows_of_pass(network, source, unit, job)
        if rows is None:
            return replace(result, facts=result.facts | {"others": told})
        arrays, names = other_pictures(question, source, rows, job)
    except VizError as error:
        return replace(result, facts=result.facts | {"others": f"Other photos are left out: {error}"})
    if not names:
        none = f"No other photo activates {unit.site}:{unit.channel}. {told}"
        return replace(result, facts=result.facts | {"others": none})
    facts = result.facts | {"others": f"{told} Strongest first: {', '.join(names)}."}
    panel = Panel("c-others", drawn(arrays), "(c) The same map on other photos: the photos and its projections.")
    at = next((n + 1 for n, one in enumerate(result.panels) if one.title == "c-projection"), len(result.panels))
    panels = (*result.panels[:at], panel, *result.panels[at:])
    return replace(result, arrays=result.arrays | arrays, panels=panels, facts=facts)


def bundled(network: Network) -> Source:
    """The bundled data set that suits the network: digits if it takes one channel, else crops of the samples."""
    return open_folder("digits" if network.input_size[0] == 1 else "samples")


def rows_of_gallery(network: Network, source: Source, unit: Unit) -> tuple[pd.DataFrame | None, str]:
    """The unit's rows in a gallery of these pictures in the cache, and a sentence about it.

    None if there is no such gallery; the sentence then says how to build one.
    """
    place = gallery_of(network, source.listing_digest(), unit.site) if find_galleries(network) else None
    if place is not None:
        found = open_gallery(place)
        return found.rows(unit.site, unit.channel), f"From the gallery of {found.pictures} photos of {source.name}."
    return None, (
        f"There is no gallery of {unit.site} over {source.name}. 'python -m vizapp gallery --sites {unit.site}' with the "
        "same network, weights and folder builds one; --others pass works without."
    )


def gallery_of(network: Network, listing: str, site: str) -> Path | None:
    """The folder in the cache of a gallery of that layer over the pictures with that `Source.listing_digest`."""
    for folder in find_galleries(network):
        manifest = read_manifest(folder)
        if manifest is None or manifest["data"]["listing"] != listing:
            continue
        if any(entry["name"] == site for entry in manifest["sites"]):
            return folder
    return None


def rows_of_pass(network: Network, source: Source, unit: Unit, job: Job) -> tuple[pd.DataFrame, str]:
    """The same from a pass over at most `LOOKED` evenly spaced pictures, the strongest first."""
    chosen = spread(len(source), LOOKED)
    site, found = network.site(unit.site), []
    for start in range(0, len(chosen), _TOGETHER):
        seen = opened(network, source, chosen[start : start + _TOGETHER])
        job.report(0.9 + 0.05 * start / len(chosen))
        if not seen:
            continue
        maps = observe(network.module, network.batch(list(seen.values())), [site])[site.name][:, unit.channel]
        values, cells = maps.float().flatten(1).max(1)
        width = maps.shape[-1]
        for picture, value, cell in zip(seen, values.tolist(), cells.tolist(), strict=True):
            found.append((picture, value, *divmod(cell, width)))
    rows = pd.DataFrame(found, columns=["picture", "activation", "row", "column"])
    rows = rows.sort_values(["activation", "picture"], ascending=[False, True], ignore_index=True)
    sides = dict(zip(("bottom", "right"), network.input_size[1:], strict=True))
    rows = rows.assign(site=unit.site, channel=unit.channel, top=0, left=0, **sides)
    rows["path"] = [source.path(int(number)) for number in rows["picture"]]
    return rows, f"From a pass over {len(chosen)} of the {len(source)} photos of {source.name}."


def opened(network: Network, source: Source, numbers: Sequence[int]) -> dict[int, np.ndarray]:
    """The network's crops of the readable pictures, by number."""
    return {number: network.crop(picture) for number, picture in source.open_readable(numbers)}


def other_pictures(
    question: Question, source: Source, rows: pd.DataFrame, job: Job
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The pictures of the first nine rows and their paths, without the picture in question and pictures with a map of zeros.

    `arrays`, an entry per picture: `others` uint8 `[n H W 3]`, the network's crop; `others_projection` `[n H W 3]`
    float32, the whole map projected to the pixels; `others_activation` `[n]`, the maximum of the map; `others_picture`
    `[n]`, the number of the picture in the data set.
    """
    network = question.network
    picture = question.require_picture()
    own, photo = network.crop(picture), Path(picture.name).stem if source.name == "samples" else None
    seen: dict[int, np.ndarray] = {}
    kept = []
    for row in rows[rows["activation"] > 0].itertuples():
        number = int(row.picture)
        if photo is not None and source.labels[number] == photo:  # a crop of the same photo
            continue
        seen |= opened(network, source, [number])
        if number in seen and not np.array_equal(seen[number], own):
            kept.append(row.Index)
        if len(kept) == NINE:
            break
    rows = rows.loc[kept]

    params = ProjectionParams(revealing_rule(network), extent="map")
    down = top_projections(
        network, source, rows, params, Job(lambda share: job.report(0.95 + 0.05 * share)),
        opened=seen.__getitem__,
    )  # fmt: skip
    numbers = [int(number) for number in rows["picture"]]
    arrays = {
        "others": np.stack([shown_values(seen[number]) for number in numbers])
        if numbers
        else np.zeros((0, *own.shape[:2], 3), np.uint8),
        "others_projection": down.arrays["projection"].astype(np.float32),
        "others_activation": rows["activation"].to_numpy(np.float32),
        "others_picture": np.array(numbers, np.int64),
    }
    return arrays, [str(path) for path in rows["path"]]


def drawn(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The pictures in rows of three, next to their projections."""
    across = min(3, len(arrays["others"]))
    both = (list(arrays["others"]), projections(arrays))
    return sheet([sheet(tiles, across, gap=2) for tiles in both], 2, gap=8)


def projections(arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The projections of the other pictures as uint8 `[H W 3]`, on one scale."""
    down = arrays["others_projection"]
    return [signed(values, contrast_limit(down)) for values in down]
