"""How a result came about, in names and numbers: for reports, and to ask the same again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import urlencode

import numpy as np

from vizapp.engine.trace.sites import Unit
from vizapp.errors import without_folders
from vizapp.media.picture import Picture
from vizapp.media.samples import open_sample, sample_names
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knobs
from vizapp.report.section import View
from vizapp.zoo.labels import readable
from vizapp.zoo.network import Network

APP = "http://localhost:8501"  # where `vizapp app` serves
# The pages that show a method under another name than its key, and the names of parameters that the app has as plain choices.
_PAGES = {
    "activations": "feature_maps", "stages": "feature_maps", "arithmetic": "feature_maps", "trust": "attribution",
    "atlas": "neighbours", "teach": "probe", "ideal": "filters",
}  # fmt: skip
_NAMED = re.compile(r"(\bembedding=|\bfreeze:)(.+?)\.(?:png|jpg)(?=$| head=)")
_CHOICES = {"occlusion": ("window", "stride"), "predict": ("top", "crops"), "activations": ("order", "scale")}
# Choices of another name.
_OTHERS = {
    "attribution.kind": "trust.kinds", "attribution.seed": "trust.seed", "knockout.site": "layer", "colours.cell": "cell",
    "predict.threshold": "threshold",
}  # fmt: skip
# Defaults that are not those of the page, as a link gives them.
_ALWAYS = {
    "activations": {"scale": "layer"}, "attribution": {"kind": "integrated_gradients"}, "dense": {"zoom": "1"},
    "occlusion": {"window": "32", "stride": "8"}, "probe": {"photos": "15"}, "projection": {"rule": "deconvnet"},
    "sanity": {"rule": "deconvnet"},
    "trust": {"kinds": "gradcam,layercam,eigencam,integrated_gradients,guided,lrp,random,edges"},
}  # fmt: skip
# Parameters that the page does not take: its link leaves them out.
_NOT_ON_PAGE = {
    "arithmetic": ("top", "walk"), "attribution": ("steps", "noise", "masks", "layer", "rule"), "correspondence": ("parts",),
    "gallery": ("sites", "top", "batch", "workers", "every", "search"), "teach": ("name", "replace", "seed"),
}  # fmt: skip
_WITHOUT_CELL = ("attribution", "trust", "knockout")  # whose pages explain a unit at its strongest cell
# Methods whose page shows units of layers, and a class as a unit.
_OF_UNITS = ("activations", "arithmetic", "colours", "filters", "ideal", "neighbours", "projection")
_PARTS = {
    "ideal": {"ideal": "on"},
    "arithmetic": {"stages": "cell"},
    "stages": {"stages": "all"},
}  # what of a page to show


@dataclass(frozen=True, eq=False)
class Provenance:
    """What was asked: the method, the network, the inputs and the parameters. Holds no network, tensor or path of the machine.

    `network`, `weights`, `picture`, `folder`: names. `sample`: the sample photo that the picture is, if it is one.
    `options`: with which the network was opened, as the command line takes them. `unit`,
    and `class_`, the class that it is, if it is one. `interventions` and `target`: as the options `--set` and `--target`
    take them. `params`: the parameters that differ from their defaults, as texts. `categories`: the names of the classes.
    `quantity`: what the network's answers are. `seen`: the crop that it saw, uint8 `[H W 3]`. `shows` and `views`: see
    `Method`. `size`: height and width of the photo. `link_function`: what makes probabilities of the scores, if
    `views` may need it.
    `repeatable`: whether a command and a link ask the same; not with a module or a value that only Python has.
    """

    method: str
    title: str
    source: str
    network: str
    weights: str
    output: str = ""
    options: str = ""
    channels: str = ""
    picture: str = ""
    sample: str = ""
    bands: str = ""
    folder: str = ""
    unit: Unit | None = None
    class_: int | None = None
    interventions: tuple[str, ...] = ()
    target: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    categories: tuple[str, ...] = ()
    quantity: str = "probability"
    seen: np.ndarray | None = None
    shows: tuple[Output, ...] = ()
    views: Callable[[Any], tuple[View, ...]] | None = None
    size: tuple[int, int] = (0, 0)
    link_function: str = ""
    repeatable: bool = True

    @property
    def command(self) -> str:
        """The shell command that asks the same, if there is one; files and folders are in the current folder."""
        if not self.repeatable:
            return ""
        told = {"network": self.network, "weights": "" if self.weights == "default" else self.weights}
        told |= {"output": self.output, "channel-map": self.channels}
        told |= {"picture": self.sample or self.picture, "bands": self.bands, "folder": self.folder}
        if self.class_ is not None:
            told["class"] = str(self.class_)
        elif self.unit is not None:
            at = f"@{self.unit.cell[0]},{self.unit.cell[1]}" if self.unit.cell else ""
            told["unit"] = f"{self.unit.site}:{self.unit.channel}{at}"
        told["target"] = self.target
        given = [(name, text) for name, text in told.items() if text]
        given += [("set", text) for text in self.interventions]
        given += [(name.replace("_", "-"), text) for name, text in self.params.items()]
        # A value that begins with a dash is joined to its option, for which it would be taken otherwise.
        opened = [self.options] if self.options else []
        joints = ("=" if text.startswith("-") else " " for _, text in given)
        options = (f"--{name}{joint}{shlex.quote(text)}" for (name, text), joint in zip(given, joints, strict=True))
        return " ".join(["vizapp", self.method, *options, *opened])

    @property
    def query(self) -> dict[str, str]:
        """What the link to the app's page carries; without a photo, folder or weights that are files."""
        query = {"network": self.network, "weights": "random" if self.weights == "none" else "", "output": self.output}
        query |= {"channels": self.channels, "picture": self.sample, "target": self.target}
        query["set"] = ";".join(self.interventions)
        query |= _PARTS.get(self.method, {})
        explain = f"{_PAGES.get(self.method, self.method)}.explain"
        if self.class_ is not None and self.method not in _OF_UNITS:
            query |= {explain: "class", "class": str(self.class_)}
        elif self.unit is not None:
            query |= {explain: "unit", "layer": self.unit.site, "channel": str(self.unit.channel)}
            query["cell"] = "" if self.method in _WITHOUT_CELL else ",".join(map(str, self.unit.cell or ()))
        params = _ALWAYS.get(self.method, {}) | dict(self.params)
        if self.method == "predict" and "threshold" in params:
            params["threshold"] = f"{100 * float(params['threshold']):.0f}"  # percent
        plain, left_out = _CHOICES.get(self.method, ()), self.not_in_link
        named = {name: name if name in plain else f"{self.method}.{name}" for name in params if name not in left_out}
        query |= {_OTHERS.get(full, full): params[name] for name, full in named.items()}
        return {name: text for name, text in query.items() if text}

    @property
    def not_in_link(self) -> dict[str, str]:
        """What the link leaves out because the app's page does not take it: parameters, and the cell of the unit."""
        left_out = _NOT_ON_PAGE.get(self.method, ())
        cell = None if self.unit is None or self.method not in _WITHOUT_CELL[:2] else self.unit.cell
        found = {name: text for name, text in self.params.items() if name in left_out}
        return found | ({} if cell is None else {"cell": f"{cell[0]},{cell[1]}"})

    @property
    def link(self) -> str:
        """The address of the app's page, as `vizapp app` serves it; empty if there is none."""
        return (
            self.repeatable and not self.options
        ) * f"{APP}/{_PAGES.get(self.method, self.method)}?{urlencode(self.query, errors='replace')}"

    @property
    def nbytes(self) -> int:
        """Memory of the crop."""
        return 0 if self.seen is None else self.seen.nbytes

    @property
    def explained_class(self) -> str:
        """The name of the class that is explained, as the unit or as a part of the target; empty if there is none."""
        part = re.match(r"class=(.+?) (?:cell|region)=", self.target)
        if part is not None:
            return self.readable_name(int(part[1])) if part[1].isdecimal() else readable(part[1])
        return "" if self.class_ is None else self.readable_name(self.class_)

    @property
    def subject(self) -> str:
        """The name of what is explained."""
        unit = self.unit
        return self.explained_class or ("the prediction" if unit is None else f"unit {unit.channel} of {unit.site}")

    def readable_name(self, index: int) -> str:
        """The name of a class in the form that people write, or its number if it has none."""
        return readable(self.categories[index]) if 0 <= index < len(self.categories) else str(index)


def of_network(network: Network) -> dict[str, Any]:
    """What a provenance says of a network, by field."""
    channels = ",".join(map(str, network.preprocessing.channel_map or ()))
    return {
        "network": without_folders(network.name), "weights": without_folders(network.weights),
        "output": network.output or "", "channels": channels,
        "interventions": tuple(map(_with_samples, filter(None, network.facts.get("set", "").split("\n")))),
        "target": _with_samples(network.facts.get("target", "")),
        "options": network.facts.get("options", ""), "categories": network.categories, "quantity": network.quantity,
    }  # fmt: skip


def _with_samples(text: str) -> str:
    """An intervention or target with the sample photos in it by the names that the command line takes."""
    return _NAMED.sub(
        lambda found: found[1] + (found[2] if found[2] in sample_names() else found[0][len(found[1]) :]), text
    )


def of_picture(picture: Picture) -> dict[str, Any]:
    """What a provenance says of a photo, by field."""
    name = picture.name.rpartition(".")[0]
    is_sample = name in sample_names() and _sample_digest(name) == picture.digest
    return {
        "size": picture.pixels.shape[:2], "picture": without_folders(picture.name), "sample": name if is_sample else "",
        "bands": ",".join(map(str, picture.shown)) if picture.bands is not None else "",
    }  # fmt: skip


@cache
def _sample_digest(name: str) -> str:
    return open_sample(name).digest


def of_unit(network: Network, unit: Unit) -> dict[str, Any]:
    """What a provenance says of a unit, by field. A target's class becomes part of the target."""
    site = network.class_site
    if site is None or site.name != unit.site:
        return {"unit": unit}
    target = network.facts.get("target", "")
    if not target:
        return {"unit": unit, "class_": unit.channel}
    if not target.startswith(("cell=", "region=")):
        return {}
    return {"target": f"class={unit.channel} {_with_samples(target)}"}


def changed(params: Params) -> dict[str, str]:
    """The parameters that differ from their defaults, as the command line takes them; without folders for output."""
    values = {
        name: (getattr(params, name), knob.default) for name, knob in knobs(type(params)).items() if name != "out"
    }
    return {
        name: without_folders(_text(value))
        for name, (value, default) in values.items()
        if _has_text(value) and _text(value) != _text(default)
    }


def are_texts(params: Params) -> bool:
    """Whether the command line can give all parameters."""
    return all(_has_text(getattr(params, name)) for name in knobs(type(params)))


def _has_text(value: Any) -> bool:
    values = value if isinstance(value, (tuple, list)) else [value]
    return all(isinstance(one, (str, int, float, type(None))) for one in values)


def _text(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ",".join(map(_text, value))
    return (
        str(value).lower() if isinstance(value, bool) else f"{value:.12g}" if isinstance(value, float) else str(value)
    )
