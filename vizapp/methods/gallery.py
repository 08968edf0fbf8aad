"""Top-activation galleries: the pictures that activate each unit of the chosen layers most."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from vizapp.engine.trace.sites import Site
from vizapp.errors import plural, showable
from vizapp.files import local_path
from vizapp.gallery import GalleryOptions, build, open_gallery, shipped
from vizapp.gallery.build import identity
from vizapp.gallery.folder_pass import Progress
from vizapp.gallery.reader import Gallery, load_crop, top_image
from vizapp.gallery.search import TopClasses, require_places, search, shipped_classes, top_classes
from vizapp.gallery.shards import rank_and_world_size
from vizapp.gallery.store import MANIFEST
from vizapp.media.drawing import sheet
from vizapp.media.source import Source, skipped_note
from vizapp.methods.base import Job, Method, Panel, Question, Result
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob
from vizapp.settings import settings
from vizapp.zoo.network import Network

_BATCH = {"cpu": 16, "cuda": 64}  # on two cores ResNet-50 ran a third faster with 16 than with 32
_SHOWN_SITES, _SHOWN_UNITS = 6, 12  # of the panels


@dataclass(frozen=True)
class GalleryParams(Params):
    """`sites`: names of layers, kinds of layers (convolution, activation …), or "all". By default the maps of
    all activation functions, as in Zeiler & Fergus, and the class scores; for ReLU6, which clips the strongest activations
    to 6, the maps that it reads."""

    sites: tuple[str, ...] = knob(
        (), "Layers by name, or kinds such as convolution; empty: activations (before ReLU6) and classes"
    )
    top: int = knob(9, "Photos to keep per unit", low=1, high=1000)
    batch: int = knob(0, "Batch size; 0: 16 on a CPU, 64 on a GPU", low=0, high=4096)
    workers: int = knob(-1, "Processes that decode photos; 0: no extra process, -1: automatic", low=-1, high=256)
    every: int = knob(32, "Batches between checkpoints", low=1)
    out: str = knob("", "Folder for the gallery; empty: the cache folder")
    search: tuple[str, ...] = knob(
        (), "Find the units for these classes of the photos: names, kinds (dog: every breed) or WordNet's numbers"
    )


def chosen_sites(network: Network, wanted: Sequence[str]) -> tuple[Site, ...]:
    """The layers for names, kinds or "all", in execution order; by default as in `GalleryParams`.

    Raises:
        VizError: there is no such layer or kind.
    """
    sites = network.sites
    if not wanted:
        found = [
            before if site.operation in {"hardtanh", "relu6"} and before.shape == site.shape else site
            for before, site in zip((sites[0], *sites), sites, strict=False)
            if site.kind == "activation" and site.is_map and site.shape[1:] != (1, 1)
        ]
        found = found or [site for site in sites if site.kind == "convolution"] or list(sites)
        last = network.class_site or sites[-1]
        return tuple(found if last in found or last.is_map else [*found, last])
    names: set[str] = set()
    for text in wanted:
        of_kind = [site.name for site in sites if text in (site.kind, f"{site.kind}s", "all")]
        names |= set(of_kind) if of_kind else {network.site(text).name}
    return tuple(site for site in sites if site.name in names)


def revealing_site(network: Network, sites: Sequence[Site]) -> Site:
    """The last of the maps whose units see a part of the photo only; the last map, or layer, where there is none."""
    maps = [site for site in sites if site.is_map and site.shape[1:] != (1, 1)]
    parts = [
        site
        for site in maps
        if (field := site.receptive_field) is not None and field.size is not None
        and all(seen <= side for seen, side in zip(field.size, network.input_size[1:], strict=True))
    ]  # fmt: skip
    return (parts or maps or list(sites))[-1]


def plan_of(network: Network, params: GalleryParams) -> GalleryOptions:
    """The options for building a gallery of this network."""
    batch = params.batch or _BATCH.get(network.device.type, 16)
    return GalleryOptions(params.top, batch, None if params.workers < 0 else params.workers, params.every)


def gallery(question: Question, params: GalleryParams, job: Job) -> Result:
    """The photos that activate each unit of the chosen layers most, with statistics of the units.

    Writes a Parquet file per layer, with a row per unit and rank, to `out` or to a folder of the cache
    (`facts["folder"]`). `arrays`: `channels` and `pictures`, their numbers. `table`: a row per unit. `panels`: the patches of
    the most selective units of each layer. An interrupted pass resumes when the same gallery is requested again.

    With `search`, `table` has the units of all layers that have photos of these classes among their strongest, the best
    first (`score`: see `vizapp.gallery.search`), and the panel shows the first of them. `facts["classes"]` says which
    classes were meant.
    """
    network, source = question.network, question.require_folder()
    sites = chosen_sites(network, params.sites)
    plan = plan_of(network, params)
    out = local_path(params.out, "gallery") if params.out else place_for(network, question, sites, plan)

    def watch(progress: Progress) -> None:
        job.report(0.98 * progress.share)

    note = build(network, source, sites, out, plan, watch)
    if rank_and_world_size()[0]:
        return Result("gallery", {})
    found = open_gallery(out)
    result = _told(question, found, note)
    return _search(question, found, params.search, result) if params.search else result


def place_for(network: Network, question: Question, sites: Sequence[Site], plan: GalleryOptions) -> Path:
    """The cache folder of this gallery; the same for the same question, so that a pass can resume.

    If vizapp ships the gallery, it is copied there.
    """
    text = json.dumps(identity(network, question.require_folder(), sites, plan), sort_keys=True)
    place = settings().cache / "galleries" / hashlib.sha256(text.encode()).hexdigest()[:32]
    shipped.copy_to(place)
    return place


def _told(question: Question, found: Gallery, note: str) -> Result:
    units = found.units.drop(columns="histogram")
    dead = int(units["dead"].sum())
    facts = {
        "folder": showable(str(found.folder)),
        "pictures": f"{found.pictures} of {found.manifest['data']['name']}",
        "units": f"{plural(len(units), 'unit')} of {plural(len(found.sites), 'layer')}, "
        f"the {plural(found.top, 'strongest photo')} of each",
    }
    if dead:
        facts["dead"] = f"{plural(dead, 'unit')} above zero on no photo."
    if found.unreadable:
        facts["unreadable"] = skipped_note([row["reason"] for row in found.unreadable])
    if note:
        facts["note"] = note
    arrays = {
        "channels": np.array([len(found.units_of(site)) for site in found.sites], np.int64),
        "pictures": np.array(found.pictures, np.int64),
    }
    table = tuple(units.to_dict("records"))
    return Result("gallery", arrays, tuple(_panels(question, found)), facts, table, found.folder, MANIFEST)


def _search(question: Question, found: Gallery, classes: Sequence[str], result: Result) -> Result:
    """The result with the units for these classes in place of all."""
    source = question.require_folder()
    known = photos_with_classes(question.network, found, source, classes)
    meant = known.meant(classes)
    places = require_places(meant, known.labels)
    table = search(known, places)
    told = [f"{text}: {', '.join(known.labels[place] for place in some)}" for text, some in meant.items()]
    facts = result.facts | {
        "classes": ". ".join(told),
        "score": f"Average precision of the {known.top.shape[1]} strongest of {known.about}; of all of them, "
        f"{100 * known.share_of_photos(places):.1f} % are of these classes.",
    }
    table = table.drop(columns="row")
    first = [(row.site, row.channel) for row in table[:_SHOWN_UNITS].itertuples()]
    named = ", ".join(f"{site}:{channel}" for site, channel in first)
    opened = lru_cache(256)(partial(load_crop, question.network, source))
    nines = [nine for site, channel in first if (nine := _nine(question, found, site, channel, opened)) is not None]
    panels = (Panel("found", sheet(nines, 4, gap=6), f"The best units: {named}."),) if nines else ()
    return replace(result, table=tuple(table.to_dict("records")), facts=facts, panels=panels)


def photos_with_classes(network: Network, found: Gallery, source: Source, texts: Sequence[str]) -> TopClasses:
    """What to search for these classes: the gallery, or the strongest ImageNet photos that vizapp knows of its network.

    The latter are for photos without classes, and for the sample crops, whose classes are the photos that they are of.
    """
    own, shipped_ones = partial(top_classes, found, source.labels), partial(shipped_classes, network.digest)
    named = bool(source.classes) and source.root != Path("samples")
    first, second = (own, shipped_ones) if named else (shipped_ones, own)
    known = first()
    if known is not None and all(known.meant(texts).values()):
        return known
    other = second()
    better = other is not None and other.labels and texts and all(other.meant(texts).values())
    return other if other is not None and (known is None or better) else known or own()


def _panels(question: Question, found: Gallery) -> list[Panel]:
    """The patches of the most selective units of some layers, three by three as in figure 2 of the paper."""
    opened = lru_cache(256)(partial(load_crop, question.network, question.require_folder()))
    step = -(-len(found.sites) // _SHOWN_SITES)
    panels = []
    for site in found.sites[::step]:
        units = found.units_of(site).sort_values(["selectivity", "channel"], ascending=[False, True])
        chosen = [int(channel) for channel in units["channel"][:_SHOWN_UNITS]]
        tiles = [_nine(question, found, site, channel, opened) for channel in chosen]
        nines = [nine for nine in tiles if nine is not None]
        if nines:
            named = ", ".join(map(str, chosen))
            panels.append(Panel(site, sheet(nines, 4, gap=6), f"{site}, the most selective units: {named}."))
    return panels


def _nine(
    question: Question, found: Gallery, site: str, channel: int, opened: Callable[[int], np.ndarray | None]
) -> np.ndarray | None:
    """The patches of a unit, three by three; None if it has none."""
    rows = found.rows(site, channel)[:9]
    tiles = [item.patch for item in top_image(question.network, question.require_folder(), rows, opened)]
    return sheet(tiles, 3, enlarge=max(1, 32 // tiles[0].shape[0])) if tiles else None


def _nothing_to_see(question: Question) -> str | None:
    """Why a question cannot be answered, or None."""
    if len(question.require_folder()) == 0:
        return f"There is no photo in {question.require_folder().name}."
    return None


METHOD = Method(
    key="gallery",
    title="Gallery",
    source="Zeiler & Fergus 2013, section 4.1 and figure 2",
    params=GalleryParams,
    run=gallery,
    needs=frozenset({"folder"}),
    incompatibility=_nothing_to_see,
    memory_hint="a smaller batch",
    shows=(Output("table", "table"),),
)
