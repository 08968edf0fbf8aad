"""A frozen network on its device, with its preprocessing, classes and sites."""

from __future__ import annotations

import hashlib
import math
import operator
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import CodeType
from typing import Any, Literal, cast, get_args
from unicodedata import normalize

import numpy as np
import torch
from torch import Tensor, fx, nn

from vizapp.engine.detection.designs import detector_of
from vizapp.engine.detection.detector import Detector
from vizapp.engine.memory.chunks import SCRATCH, chunk_size, convert_out_of_memory
from vizapp.engine.receptive_field.field import receptive_fields
from vizapp.engine.receptive_field.interval import ReceptiveField
from vizapp.engine.trace.output_scale import Link, class_scores
from vizapp.engine.trace.outputs import ClassMap, Head, Probabilities, find_class_maps, find_heads
from vizapp.engine.trace.sites import Footprint, Site, Unit, measured
from vizapp.errors import VizError, nearest, quoted
from vizapp.markup import Displayed
from vizapp.media.channels import read_channel_map
from vizapp.media.picture import Picture, open_picture
from vizapp.zoo.labels import imagenet_categories, imagenet_synonyms, numbered_names, readable
from vizapp.zoo.notebook import ANSWERS, network_html
from vizapp.zoo.preprocessing import Preprocessing

__all__ = ["Network", "Preprocessing", "class_unit"]

Task = Literal["classes", "embedding", "class map", "boxes", ""]
_LIBRARIES = ("builtins", "torch", "torchvision", "timm", "vizapp")  # whose layers are known by their structure


@dataclass(frozen=True, eq=False)
class Network(Displayed):
    """A frozen network with its preprocessing and class names. Safe to use from several threads.

    `vizapp.load` and `vizapp.wrap` make it.

    Attributes:
        name: Its name, as `load` takes it.
        module: In evaluation mode on `device`. Its parameters require no gradients, and it must not be modified.
        device: Where it computes.
        preprocessing: From a photo to its input.
        categories: Class names in the order of the scores.
        weights: "default", "none" or a file name.
        facts: What is known of it, such as its accuracy, as texts.
        output: Name of the head, if the network has several and the caller chose one.
        probabilities: What makes its scores probabilities, if the caller said so; of a target the link.
        interventions: What is changed in every pass (see `Intervention`), for people.
        derived_digest: Stands for interventions and target in `digest`.
        unchanged: The network without interventions, if it is under some.
        opened: The network that this is with another head; both measure once.
        target: What of its output is explained (see `Target`), for people.
        untargeted: The network without the target, if it has one.
        of_photo: The target was found on one photo, and differs on others.
        signal: The network to use in its place where signals are sent down, if the target has no useful gradient.
    """

    name: str
    module: nn.Module
    device: torch.device
    preprocessing: Preprocessing
    categories: tuple[str, ...]
    weights: str
    facts: dict[str, str] = field(default_factory=dict)
    output: str | None = None
    probabilities: Probabilities | Link | None = None
    interventions: str = ""
    derived_digest: str = ""
    unchanged: Network | None = None
    opened: Network | None = None
    target: str = ""
    untargeted: Network | None = None
    of_photo: bool = False
    signal: Network | None = None
    _others: dict[str, Network] = field(default_factory=dict, init=False, repr=False)  # by output
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)

    def __repr__(self) -> str:
        return (
            f"Network({quoted(self.name)}, weights {quoted(self.weights)}, input {self._size_text}, on {self.device})"
        )

    def _repr_html_(self) -> str:
        told, problem = {"weights": self.weights, "input": f"{self._size_text} (channels, height, width)"}, ""
        sites: tuple[Site, ...] = ()
        try:
            sites = self.sites
            told["gives"] = ANSWERS[self.task]
        except VizError as error:
            problem = str(error)
        told |= {"parameters": f"{self.parameters:,}", "computes": f"{str(self.dtype)[6:]} on {self.device}"}
        told |= {name: says for name in ("interventions", "target") if (says := getattr(self, name))}
        example = self.last_feature_map() if sites else None
        return network_html(self.name, told, self.facts, sites, self.categories, problem, example)

    @property
    def _size_text(self) -> str:
        return " × ".join(map(str, self.input_size))

    @property
    def clean(self) -> Network:
        """The network without interventions. Names, sites and heads are the same."""
        return self if self.unchanged is None else self.unchanged

    @property
    def input_size(self) -> tuple[int, int, int]:
        """Channels, height and width of what the network takes."""
        return self.preprocessing.channels, self.preprocessing.height, self.preprocessing.width

    @cached_property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    @cached_property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the weights."""
        tensors = [*self.module.parameters(), *self.module.buffers()]
        return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)

    @property
    def sites(self) -> tuple[Site, ...]:
        """All activations, in execution order. The first access runs one forward pass."""
        with self._lock:
            return self._measured[0]

    def check_visible(self) -> None:
        """Raise VizError if a part of the network cannot be traced. The first call runs one forward pass."""
        with self._lock:
            _ = self._measured

    @property
    def footprint(self) -> Footprint:
        """Memory of the activations of one picture. The first access runs one forward pass."""
        with self._lock:
            return self._measured[1]

    @cached_property
    def _measured(self) -> tuple[tuple[Site, ...], Footprint]:
        if (same := self.unchanged or self.opened) is not None:
            return same.sites, same.footprint
        return measured(self.module, torch.zeros(1, *self.input_size, dtype=self.dtype, device=self.device))

    @property
    def class_maps(self) -> tuple[ClassMap, ...]:
        """The class maps that the network returns, the most likely first. The first access runs one forward pass."""
        with self._lock:
            return self._class_maps

    @cached_property
    def _class_maps(self) -> tuple[ClassMap, ...]:
        if (same := self.unchanged or self.opened) is not None:
            return same.class_maps
        batch = torch.zeros(1, *self.input_size, dtype=self.dtype, device=self.device)
        with ThreadPoolExecutor(1) as alone:
            return alone.submit(find_class_maps, self.module, batch).result()

    @property
    def smooth(self) -> Network:
        """The network to send signals down: itself, or what stands for it where a target has no useful gradient."""
        return self.signal or self

    @property
    def detector(self) -> Detector | None:
        """The detector that the network is; None if it returns no boxes. The first access runs two forward passes."""
        with self._lock:
            return self._detector

    @cached_property
    def _detector(self) -> Detector | None:
        batch = torch.zeros(1, *self.input_size, dtype=self.dtype, device=self.device)
        with ThreadPoolExecutor(1) as alone:
            return alone.submit(detector_of, self.module, batch, len(self.categories)).result()

    @property
    def task(self) -> Task:
        """What the network answers: class scores, a vector without classes (an embedding), a class map, boxes, or else."""
        if self.categories and any(head.answers for head in self.heads):
            return "classes"
        if self.class_maps:
            return "class map"
        if self.heads:
            return "classes" if self.categories else "embedding"
        return "" if self.detector is None else "boxes"

    @property
    def quantity(self) -> str:
        """What its answers are after their link, for texts: "probability", or what a target measures."""
        return self.facts.get("quantity", "probability")

    @property
    def heads(self) -> tuple[Head, ...]:
        """The class scores that the network returns, the most likely first. The first access runs one forward pass."""
        with self._lock:
            return self._heads

    @cached_property
    def _heads(self) -> tuple[Head, ...]:
        if (same := self.unchanged or self.opened) is not None:
            return same.heads
        batch = torch.zeros(1, *self.input_size, dtype=self.dtype, device=self.device)
        with ThreadPoolExecutor(1) as alone:  # where no mode of the caller, such as a Tap, sees the pass
            return alone.submit(find_heads, self.module, batch).result()

    @cached_property
    def head(self) -> Head:
        """The class scores that all methods use: those called `output`, else the first with one score per category.

        Raises:
            VizError: the network returns no class scores, none of that name, or something else than `probabilities` says.
        """
        if not self.heads:
            raise VizError(
                f"{self.name} returns no class scores but a class map, boxes or something else; give a target (a cell, a "
                "region, a box), select one of its layers, or use a classification network.",
                code="no-class-scores",
            )
        known = list(self.heads)
        if self.output is not None:
            known = [head for head in known if self.output in (head.name, head.key)] or [
                head for head in known if self.output in (head.layers[:1] + head.layers[-1:])
            ]
            if not known:
                several = ", ".join(repr(head.name) for head in self.heads)
                names = several if len(self.heads) > 1 else "one output, so leave it out"
                raise VizError(
                    f"{self.name} returns no class scores called {quoted(self.output)}; it has {names}.",
                    code="no-such-output",
                )
        head = next((head for head in known if head.classes == len(self.categories)), known[0])
        if self.target:
            return replace(head, scale="logits", link=cast("Link", self.probabilities))
        return head if self.probabilities is None else head.declare(cast("Probabilities", self.probabilities))

    @property
    def output_description(self) -> str:
        """Which of its outputs the class scores are, and how they become probabilities."""
        if len(self.heads) == 1:
            return self.head.description
        head, count = self.head, len(self.heads)
        others = ", ".join(f"{other.name!r} ({other.classes})" for other in self.heads if other.name != head.name)
        return f"{head.name!r}, one of {count} outputs: {head.description} The others, with their sizes: {others}."

    @property
    def answers(self) -> tuple[Head, ...]:
        """The heads among which people choose: those that answer, and `head`."""
        own = self.head
        return tuple(
            own if head.path == own.path else head for head in self.heads if head.answers or head.path == own.path
        )

    @property
    def class_site(self) -> Site | None:
        """The site whose units are the classes, the last one of `head`; None if there is none."""
        return self._class_site(self.head) if self.heads else None

    def _class_site(self, head: Head) -> Site | None:
        count = len(self.categories)
        for site in reversed(self.sites):
            if site.name in head.layers and site.channels == count and math.prod(site.shape) == count:
                return site
        return None

    def with_output(self, output: str) -> Network:
        """The same network, whose class scores are those of another of its heads, for all methods.

        It takes no further memory and is made once. Classes keep their names if the head has as many, else they are numbered.

        Args:
            output: the head: its name, its key, its index ("0"), or the layer that computes it.

        Raises:
            VizError: there is no such head, or it returns something else than `probabilities` says.
        """
        with self._lock:
            if output == self.output:
                return self
            if output not in self._others:
                unchanged = self.unchanged and self.unchanged.with_output(output)
                other = replace(self, output=output, unchanged=unchanged, opened=self.opened or self)
                if self.derived_digest and unchanged is not None:
                    changes = hashlib.sha256(f"{output} {self.derived_digest}".encode()).hexdigest()
                    other = replace(other, derived_digest=f"{changes}-{unchanged.digest}")
                if other.head.classes != len(self.categories):
                    other = replace(other, categories=numbered_names(other.head.classes))
                self._others[output] = other
            return self._others[output]

    def toward(
        self, module: nn.Module, told: str, link: Link, quantity: str, what: bytes, unchanged: Network | None,
        of_photo: bool = False,
    ) -> Network:  # fmt: skip
        """The network with another pass, which ends in `[N K]` scores: of its classes, or one score that is no probability.

        Args:
            module: Runs that pass.
            told: The target in words.
            link: What makes probabilities of the scores; "identity" if they are none.
            quantity: What the scores are after their link.
            what: What else determines the scores, for the digest.
            unchanged: The same of the network without interventions, if it is under some.
            of_photo: Whether the target was found on one photo.
        """
        digest = hashlib.sha256(f"{told} {link} {quantity} {self.digest}".encode() + what).hexdigest()
        return replace(
            self,
            module=module,
            categories=(quantity,) if link == "identity" else self.categories,
            output=None,
            probabilities=link,
            facts=self.facts | {"quantity": quantity},
            target=told,
            untargeted=self,
            of_photo=of_photo,
            unchanged=unchanged,
            derived_digest=f"{digest}-{self.digest.rpartition('-')[2]}",
            opened=None,
        )

    def about(self, unit: Unit) -> Network:
        """The network with the head whose class the unit is; the network itself if that is its own head, or the unit no class.

        Layers that the own head is computed from are no classes of another.
        """
        site = self.site(unit.site)
        if (
            site.channels != len(self.categories)
            or len(self.heads) < 2
            or site.name in {*self.head.layers, *self.head.below}
        ):
            return self
        head = next((head for head in self.heads if head.answers and self._class_site(head) == site), None)
        return self if head is None else self.with_output(head.name)

    def batch_limit(self, most: int, gradients: bool = False) -> int:
        """The largest batch size that fits into memory, from 1 to `most`."""
        each = self.footprint.total * 2 if gradients else self.footprint.widest
        return chunk_size(int(SCRATCH * each), self.device, most)

    def site(self, name: str) -> Site:
        """The site `name`, or the last one in the module of that name (`layer4.2`, `features`).

        Raises:
            VizError: there is none; the message suggests similar names.
        """
        for site in self.sites:
            if site.name == name:
                return site
        inside = [site for site in self.sites if site.name.startswith(f"{name}.")]
        if inside:
            return inside[-1]
        raise VizError(
            f"{self.name} has no layer {name!r}.{nearest(name, (site.name for site in self.sites))}",
            code="no-such-layer",
        )

    def receptive_field(self, site: Site, height: int, width: int) -> ReceptiveField:
        """The receptive field of a site for an input of that size. Other sizes than the network's run a forward pass."""
        if site.receptive_field is not None and (height, width) == self.input_size[1:]:
            return site.receptive_field
        batch = torch.zeros(1, self.input_size[0], height, width, dtype=self.dtype, device=self.device)
        return receptive_fields(self.module, batch)[site.name]

    def last_feature_map(self, until: Site | None = None) -> Site | None:
        """The last feature maps with places in the picture, up to `until`, that are not class maps; None if there are none."""
        sites = self.sites_of_head() if until is None else self.sites[: self.sites.index(until) + 1]
        maps = [site for site in sites if site.is_map and site.located and site.shape[1] * site.shape[2] > 1]
        kinds = {"activation", "add", "concat", "norm"}
        features = [site for site in maps if site.kind in kinds and site.channels != len(self.categories)]
        return next(reversed(features or maps), None)

    def first_feature_map(self) -> Site | None:
        """The first feature maps with places in the picture, behind an activation function if there are any; else None."""
        maps = [site for site in self.sites if site.is_map and site.located and site.shape[1] * site.shape[2] > 1]
        return next((site for site in maps if site.kind == "activation"), maps[0] if maps else None)

    def last_hidden_layer(self) -> Site | None:
        """The last vector that the class scores are computed from, or the network's last vector if it has no classes.

        None where there is none, as in SqueezeNet, which averages class maps, and in detectors, whose vectors list proposals.
        """
        if (self.untargeted or self).task == "boxes":
            return None
        sites, scores = self.sites_of_head(), set(self.head.layers if self.heads else ())
        until = next((place for place, site in enumerate(sites) if site.name in scores), len(sites))
        vectors = [site for site in sites[:until] if not site.is_map and site.kind != "identity"]
        return vectors[-1] if vectors else None

    def sites_of_head(self) -> tuple[Site, ...]:
        """All sites, of a network with several heads those that compute the class scores."""
        if len(self.heads) < 2:
            return self.sites
        names = {*self.head.layers, *self.head.below}
        return tuple(site for site in self.sites if site.name in names)

    @property
    def digest(self) -> str:
        """A cache key: sha256 (hex) of name, preprocessing, structure, all weights, and the code of the user's own layers."""
        with self._lock:
            return self._digest

    @cached_property
    def _digest(self) -> str:
        if self.derived_digest:
            return self.derived_digest
        channels = ",".join(self.preprocessing.channel_map) or None
        chosen = [text for text in (self.output, self.probabilities, channels) if text is not None]
        if not chosen:
            return self._weights_digest
        # What is forgotten with the network is found by its digest, so that ends the digest.
        return f"{hashlib.sha256(repr((chosen, self._weights_digest)).encode()).hexdigest()}-{self._weights_digest}"

    @cached_property
    def _weights_digest(self) -> str:
        if self.opened is not None:
            with self.opened._lock:
                return self.opened._weights_digest
        answer = hashlib.sha256("\n".join(map(str, (self.name, self.preprocessing, repr(self.module)))).encode())
        for text in own_code(self.module):
            answer.update(text.encode("utf-8", "surrogatepass"))
        for key, value in self.module.state_dict().items():
            if isinstance(value, Tensor):
                answer.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
                raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                answer.update(raw.numpy().data)
        return answer.hexdigest()

    def seen(self, picture: Picture | str | Path | bytes | np.ndarray) -> np.ndarray:
        """The network's crop of a picture (or of what `open_picture` takes) as it is shown, uint8 `[H W 3]`, not normalized.

        Raises:
            VizError: that is no picture.
        """
        return self.preprocessing.seen(open_picture(picture).pixels)

    def crop(self, picture: Picture | str | Path | bytes | np.ndarray) -> np.ndarray:
        """What `batch` takes of a picture: `seen` of a photo; of a stack, or with a channel map, its values `[H W C]`.

        Raises:
            VizError: that is no picture, or it does not have the network's channels and no channel map says what feeds them.
        """
        return self.preprocessing.crop(open_picture(picture))

    def with_channels(self, channel_map: str | Sequence[str | int]) -> Network:
        """The same network with another channel map, such as `"R,G,B,mean"`; an empty one: none. It takes no further memory.

        Raises:
            VizError: the map has an unknown entry, or another number of entries than the network takes channels.
        """
        entries = read_channel_map(channel_map)
        if entries == self.preprocessing.channel_map:
            return self
        return replace(self, preprocessing=replace(self.preprocessing, channel_map=entries), opened=self.opened or self)

    def class_name(self, index: int) -> str:
        """The name of a class, or its index if it has none."""
        return self.categories[index] if index < len(self.categories) else str(index)

    def readable_name(self, index: int) -> str:
        """The name of a class as English, for people; `class_name` is what methods take."""
        return readable(self.class_name(index))

    def synonyms(self, index: int) -> str:
        """WordNet's other names of a class of ImageNet-1k; empty if there are none or the classes are others."""
        known = index < len(self.categories) and self.categories == imagenet_categories()
        return imagenet_synonyms()[self.categories[index]] if known else ""

    def readable_names(self, site: Site) -> tuple[str, ...]:
        """`class_names` as English, for people."""
        return tuple(map(readable, self.class_names(site)))

    def class_names(self, site: Site) -> tuple[str, ...]:
        """Channel names of class scores or class maps; empty for earlier layers."""
        if len(self.categories) != site.channels:
            return ()
        if self.heads:
            return self.categories if site.name in self.head.layers else ()
        weighted = [number for number, one in enumerate(self.sites) if one.kind in ("convolution", "linear")]
        return self.categories if not weighted or self.sites.index(site) >= weighted[-1] else ()

    def prepare(self, picture: Picture | str | Path | bytes | np.ndarray) -> Tensor:
        """The picture (or what `open_picture` takes) as network input `[1 C H W]` on the network's device.

        Raises:
            VizError: as for `crop`.
        """
        return self.batch([self.crop(picture)])

    def batch(self, pixels: Sequence[np.ndarray] | np.ndarray) -> Tensor:
        """Crops of one size, each as `crop` gives them, as network input `[N C H W]` on its device.

        Raises:
            VizError: they have another number of channels.
        """
        batch = self.preprocessing.normalize(pixels, self.device, self.dtype)
        return batch.contiguous(memory_format=memory_format(self.module))

    def display(self, tensor: Tensor) -> np.ndarray:
        """The picture uint8 `[H W 3]` of a network input `[C H W]` or `[1 C H W]`: the inverse of `batch`.

        Of inputs that are neither grey nor RGB, the first three channels, stretched.
        """
        return self.preprocessing.denormalize(tensor)

    def scores(self, batch: Tensor) -> Tensor:
        """Class scores (logits) `[N classes]` of a batch `[N C H W]`, differentiable if the batch requires gradients.

        They are those of `head`; if the network returns probabilities they are computed from these.

        Raises:
            VizError: the network returns something else, such as features, a class map or boxes.
        """
        return self._scores_of([self.head], batch)[0]

    def scores_of_answers(self, batch: Tensor) -> list[Tensor]:
        """The logits `[N classes]` of each of `answers` for a batch `[N C H W]`, from one pass.

        Raises:
            VizError: as for `scores`.
        """
        return self._scores_of(self.answers, batch)

    def _scores_of(self, heads: Sequence[Head], batch: Tensor) -> list[Tensor]:
        if not self.categories:
            raise VizError(f"{self.name} has features but no classes; select a layer.", code="no-class-scores")
        output, found = self.module(batch), []
        for head in heads:
            scores = class_scores(head.pick(output), len(batch))
            if scores is None:
                raise VizError(
                    f"{self.name} returns its class scores in another form than for a single image of its input size.",
                    code="no-class-scores",
                )
            found.append(head.logits(scores))
        return found


def own_code(module: nn.Module) -> Iterator[str]:
    """Plain attributes and the bytecode of methods of all layers whose classes are not from a library.

    Neither is in the structure or the weights: after an edit of `forward` in a notebook these are the same.
    """
    for path, part in module.named_modules():
        if isinstance(part, fx.GraphModule):
            yield f"{path} {part.code}"
        own = [kind for kind in type(part).__mro__ if kind.__module__.partition(".")[0] not in _LIBRARIES]
        if own:
            plain = {name: _plain(value) for name, value in sorted(vars(part).items()) if name != "training"}
            yield f"{path} {plain}"
        for kind in own:
            for name, value in sorted(vars(kind).items()):
                function = getattr(value, "__func__", getattr(value, "fget", value))
                if hasattr(function, "__code__"):
                    yield f"{name} {_plain(function.__code__)} {_plain(function.__defaults__)}"
                elif not name.startswith("__"):  # such as the line number of the class
                    yield f"{name} {_plain(value)}"


def _plain(value: Any) -> str:
    """The same text for equal numbers, texts, sequences and code in all processes; the type of anything else."""
    if isinstance(value, CodeType):
        return (
            f"{value.co_code.hex()} {value.co_names} {value.co_varnames} {[_plain(const) for const in value.co_consts]}"
        )
    if isinstance(value, (tuple, list, frozenset)):
        texts = [_plain(item) for item in value]
        return str(sorted(texts) if isinstance(value, frozenset) else texts)
    return repr(value) if isinstance(value, (int, float, complex, str, bytes, type(None))) else type(value).__name__


def class_unit(network: Network, class_: int | str, head: str | None = None) -> Unit:
    """The unit of a class, by index or name. Case matters only if names differ by case alone.

    `head`: of a network with several, by name, as for `Network.with_output`. All methods answer for the head of the unit.

    Raises:
        VizError: there is no such class (the message suggests similar names) or head, or several classes have that name.
    """
    network = network if head is None else network.with_output(head)
    names = network.categories
    if not names:
        raise VizError(f"{network.name} has no classes; name a layer and a channel instead.", code="no-class-scores")
    index = class_index(network, class_)
    site = network.class_site
    if site is None:
        raise VizError(f"{network.name} has no layer with a unit per class.", code="no-class-units")
    return Unit(site=site.name, channel=index)


def class_index(network: Network, class_: int | str) -> int:
    """The number of a class, by number or name.

    Raises:
        VizError: there is no such class, or several have that name.
    """
    index = _index_of_name(network, class_.strip()) if isinstance(class_, str) else operator.index(class_)
    if not 0 <= index < len(network.categories):
        last = len(network.categories) - 1
        raise VizError(f"{network.name} has classes 0 to {last}, not {quoted(index)}.", code="no-such-class")
    return index


def _index_of_name(network: Network, name: str) -> int:
    names, name = [normalize("NFC", known) for known in network.categories], normalize("NFC", name)
    same = [i for i, known in enumerate(names) if known == name]
    same = same or [i for i, known in enumerate(names) if known.lower() == name.lower()]
    if len(same) > 1:
        numbers = " and ".join(map(str, same))
        raise VizError(
            f"{len(same)} classes of {network.name} are called {name!r}; give the number: {numbers}.",
            code="ambiguous-class",
        )
    if same:
        return same[0]
    if re.fullmatch(r"-?[0-9]{1,9}", name):
        return int(name)
    raise VizError(f"{network.name} has no class {name!r}.{nearest(name, names)}", code="no-such-class")


def check_probabilities(given: str | None) -> Probabilities | None:
    """The choice, if it is one.

    Raises:
        VizError: it is not.
    """
    if given is None or given in get_args(Probabilities):
        return cast("Probabilities | None", given)
    raise VizError(f'probabilities is "softmax", "sigmoid" or "none", not {given!r}.', code="bad-probabilities")


def memory_format(module: nn.Module) -> torch.memory_format:
    """Channels-last if the module's convolutions use it, else contiguous."""
    for parameter in module.parameters():
        if parameter.ndim == 4 and parameter.shape[1] > 1 and parameter.shape[2] > 1:
            last = parameter.is_contiguous(memory_format=torch.channels_last)
            return torch.channels_last if last else torch.contiguous_format
    return torch.contiguous_format


def freeze(module: nn.Module, device: torch.device, channels_last: bool) -> nn.Module:
    """The module in evaluation mode, without gradients, on the device; optionally with channels-last convolutions.

    Channels-last changes scores only by rounding (4e-7 of the largest, ResNet-50) and is 1.0 to 1.8 times as fast on a CPU.
    It breaks modules that call `view` on feature maps, so users' modules keep their format.

    Raises:
        VizError: a part of it stays in training mode.
        DoesNotFit: the device has not enough memory.
    """
    before = {part: part.training for part in module.modules()}
    if any(part.training for part in module.eval().modules()):
        for part, training in before.items():
            part.training = training
        raise VizError(
            "A part of this network stays in training mode after eval(), so its answers would be random or its statistics "
            "would move. Let its train() method respect the mode.",
            code="stays-in-training-mode",
        )
    module.requires_grad_(False)
    with convert_out_of_memory("the network"):
        module.to(device)
        if channels_last:
            for parameter in module.parameters():  # not `module.to`, which fails on 3-D kernels
                if parameter.ndim == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module
