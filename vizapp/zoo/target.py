"""What of a network's output is explained: a class, a cell or region of a class map, a box, an embedding, a head.

A target makes of any network one with class scores, so that every method takes it. No module is changed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vizapp.engine.memory.chunks import convert_out_of_memory
from vizapp.engine.precision import arithmetic
from vizapp.engine.tap import Trace, check_computed, first_tensor, run_as
from vizapp.engine.trace.forward_override import override_forward
from vizapp.engine.trace.output_scale import Link, class_scores
from vizapp.engine.trace.outputs import ClassMap, Head
from vizapp.engine.trace.sites import Site, Unit
from vizapp.errors import VizError, plural, quoted
from vizapp.media.picture import Picture, open_picture
from vizapp.zoo.box_target import toward_box
from vizapp.zoo.network import Network, class_index, class_unit

SITE = "target"  # the layer that holds the target's value
_REGIONS = ("whole", "predicted")
_KINDS = ("cell", "region", "box", "embedding")
Region = str | tuple[int, int, int, int] | np.ndarray


@dataclass(frozen=True, eq=False)
class Target:
    """A scalar of a network's output, which methods explain. At most one of `cell`, `region`, `box`, `embedding` is given.

    Alone, `class_` is a unit of the class scores; in a class map, the mean over the region predicted as that class.

    Args:
        class_: A class, by name or number. Of a cell or region by default the strongest class there on the photo; of a box the
            class of the detection that matches it best.
        cell: (row, column) of the class map: the class's logit there.
        region: The mean of the class's logit over a region of the class map (Vinogradova, Dibrov & Myers 2020): "whole",
            "predicted" (where the class is the strongest on the photo without interventions), (top, left, bottom, right) in
            pixels of the network's crop, or bool `[H W]` of the crop's size.
        box: (top, left, bottom, right) in pixels of the network's crop, or the number of a detection on the photo: how well a
            detector finds it (D-RISE: Petsiuk et al. 2021), from 0 to 1.
        embedding: A photo, or anything that `open_picture` takes: the cosine with its embedding, from -1 to 1. The embedding
            is the vector that the network returns, or its last hidden layer if it returns class scores.
        head: The head of a network with several, by name, as for `Network.with_output`.
    """

    class_: int | str | None = None
    cell: tuple[int, int] | None = None
    region: Region | None = None
    box: tuple[float, float, float, float] | int | None = None
    embedding: Any = None
    head: str | None = None

    @property
    def kind(self) -> str:
        """Which one is given: "cell", "region", "box", "embedding", "class" or "head"; "" if none.

        Raises:
            VizError: several are.
        """
        given = [name for name in _KINDS if getattr(self, name) is not None]
        if len(given) > 1:
            raise VizError(f"A target has either a {given[0]} or a {given[1]}, not both.", code="bad-target")
        return given[0] if given else "class" if self.class_ is not None else "head" if self.head is not None else ""

    @property
    def text(self) -> str:
        """As `target_text.read_target` reads it; photos are named, and a mask is not written."""
        parts = {
            "class": self.class_, "cell": self.cell, "region": self.region, "box": self.box, "embedding": self.embedding,
            "head": self.head,
        }  # fmt: skip
        return " ".join(f"{name}={_text(value)}" for name, value in parts.items() if value is not None)

    @property
    def of_photo(self) -> bool:
        """Whether it is found on one photo, in a network without class scores, and so is another one on the next."""
        alone = self.kind == "class"
        return alone or isinstance(self.box, int) or (isinstance(self.region, str) and self.region == "predicted")


def toward(network: Network, target: Target, picture: Picture | None = None) -> tuple[Network, Unit | None]:
    """The network whose class scores are the target's, and the unit of the target's class, if the target names or implies one.

    The network itself and its module stay as they are. A target replaces an earlier one.

    Args:
        network: The network, which may be under interventions.
        target: The target.
        picture: The photo of the question, from which a predicted region, the class of a cell or a detection is read.

    Raises:
        VizError: the network lacks what the target names, or a photo is missing.
    """
    if not isinstance(target, Target):
        raise VizError(
            f"target is a {type(target).__name__}; give vizapp.Target(class_=…, cell=…, region=…, box=…, embedding=…, head=…).",
            code="not-a-target",
        )
    network = network.untargeted or network
    kind = target.kind
    if target.head is not None:
        network = network.with_output(target.head)
    if kind in ("", "head"):
        return network, None
    if kind == "class" and network.task != "class map":
        return network, class_unit(network, _class(target.class_))
    with convert_out_of_memory(f"a target with {network.name}"), arithmetic(network.device, "exact"):
        if kind == "box":
            aimed, unit = _box(network, target, picture)
        else:
            aimed, unit = _embedding(network, target) if kind == "embedding" else _of_map(network, target, picture)
    aimed.facts["target"] = target.text
    return aimed, unit


def _text(value: Any) -> str:
    """A part of a target as text: a photo by its name, numbers with commas."""
    if isinstance(value, (str, int)):
        return str(value)
    if isinstance(value, np.ndarray) and value.ndim > 1:
        return "MASK"
    return ",".join(f"{number:g}" for number in value) if np.iterable(value) else str(getattr(value, "name", "PHOTO"))


def _box(network: Network, target: Target, picture: Picture | None) -> tuple[Network, Unit | None]:
    """The network toward a box, which is found on the photo."""
    if network.task != "boxes":
        raise VizError(
            f"{network.name} returns no boxes; choose a detection network, or another target.", code="no-boxes"
        )
    if picture is None:
        raise VizError("A box is looked for on a photo; give a photo, too.", code="missing-input")
    class_ = None if target.class_ is None else _class(target.class_)
    made = toward_box(network, target.box, class_, network.prepare(picture))
    return made, class_unit(made, 0)


def _class(given: Any) -> int | str:
    with suppress(TypeError):
        return given if isinstance(given, str) else operator.index(given)
    raise VizError(f"The class of a target is {quoted(given)}; give a name or a number.", code="no-such-class")


# ------------------------------------------------------------------------------------------------------- class maps


def _of_map(network: Network, target: Target, picture: Picture | None) -> tuple[Network, Unit | None]:
    """The network toward a cell or a region of its class map."""
    if not network.class_maps:
        raise VizError(
            f"{network.name} returns no class map, so it has no cells or regions; choose a segmentation network, or a unit of "
            "one of its layers.",
            code="no-class-map",
        )
    the_map = network.class_maps[0]
    clean = (
        None if picture is None else class_map_logits(network.clean, network.prepare(picture))[0].float().cpu().numpy()
    )
    if target.kind == "cell":
        cells, told = _cell(target.cell, the_map)
    else:
        cells, told = _region(network, target, the_map, clean)
    made = _pointed(network, the_map, cells, told, target.of_photo)
    number = _class_there(network, target, cells, clean)
    return made, None if number is None else class_unit(made, number)


def class_map_logits(network: Network, batch: Tensor) -> Tensor:
    """The logits of all classes at each cell of a network's class map, `[N classes h w]`, for a batch `[N C H W]`.

    Raises:
        VizError: the network returns no class map for this input.
    """
    with torch.no_grad():
        found = network.class_maps[0].logits(network.module(batch)) if network.class_maps else None
    if found is None:
        raise VizError(f"{network.name} returns no class map.", code="no-class-map")
    return found


def _cell(given: Any, the_map: ClassMap) -> tuple[np.ndarray, str]:
    """The cell, bool `[h w]`, and in words."""
    try:
        row, column = map(operator.index, given)
    except (TypeError, ValueError):
        raise VizError(
            f"The cell of a target is {quoted(given)}; give (row, column) of the class map.", code="no-such-cell"
        ) from None
    _, height, width = the_map.shape
    if not (0 <= row < height and 0 <= column < width):
        raise VizError(
            f"The class map has cells 0,0 to {height - 1},{width - 1}, not {row},{column}.", code="no-such-cell"
        )
    cells = np.zeros((height, width), bool)
    cells[row, column] = True
    return cells, f"cell {row},{column}"


def _region(network: Network, target: Target, the_map: ClassMap, clean: np.ndarray | None) -> tuple[np.ndarray, str]:
    """The cells of the region, bool `[h w]`, and the region in words."""
    region = "predicted" if target.region is None else target.region
    if isinstance(region, np.ndarray) and region.ndim == 2 and region.dtype == bool:
        cells = _cells_of(region, network, the_map)
        return cells, f"region of {plural(int(cells.sum()), 'cell')}"
    if not isinstance(region, str):
        return _box_cells(region, network, the_map)
    if region not in _REGIONS:
        raise VizError(
            f"There is no region {quoted(region)}; it is whole, predicted, or top,left,bottom,right in pixels.",
            code="no-such-region",
        )
    return (np.ones(the_map.shape[1:], bool), "whole map") if region == "whole" else _predicted(network, target, clean)


def _predicted(network: Network, target: Target, clean: np.ndarray | None) -> tuple[np.ndarray, str]:
    if clean is None:
        raise VizError(
            "The predicted region of a class is that on a photo; give a photo, or another region.", code="missing-input"
        )
    labels = clean.argmax(0) if len(clean) > 1 else np.where(clean[0] > 0, 0, -1)
    number = _largest(network, labels) if target.class_ is None else class_index(network, _class(target.class_))
    cells = labels == number
    if not cells.any():
        there = ", ".join(network.class_name(int(one)) for one in np.unique(labels)[:6] if one >= 0) or "none"
        raise VizError(
            f"No cell of this photo is predicted as {network.class_name(number)!r}, so its region is empty; predicted are: "
            f"{there}.",
            code="empty-region",
        )
    return cells, f"region predicted as {network.class_name(number)}, {plural(int(cells.sum()), 'cell')}"


def _largest(network: Network, labels: np.ndarray) -> int:
    """The class with most cells, the background only if there is nothing else."""
    found, counts = np.unique(labels, return_counts=True)
    order = [int(one) for one in found[np.argsort(-counts, kind="stable")] if one >= 0] or [0]
    return next((one for one in order if network.class_name(one).strip("_").lower() != "background"), order[0])


def _cells_of(mask: np.ndarray, network: Network, the_map: ClassMap) -> np.ndarray:
    """The cells that lie in a mask of the crop by at least half; if none does, those that it touches most: bool `[h w]`."""
    _, height, width = network.input_size
    if mask.shape != (height, width):
        raise VizError(
            f"The mask of a region is {mask.shape[1]} × {mask.shape[0]}, and the network's crop is {width} × {height} pixels.",
            code="other-size",
        )
    share = F.adaptive_avg_pool2d(torch.from_numpy(mask)[None].double(), the_map.shape[1:])[0].numpy()
    if not share.any():
        raise VizError("The region has no cells; draw or give one that has some.", code="empty-region")
    return share >= min(0.5, share.max())


def _box_cells(given: Any, network: Network, the_map: ClassMap) -> tuple[np.ndarray, str]:
    _, height, width = network.input_size
    try:
        top, left, bottom, right = map(operator.index, given)
    except (TypeError, ValueError):
        raise VizError(
            f"The region of a target is {_shortly(given)}; give whole, predicted, (top, left, bottom, right) in pixels of the "
            "crop, or a bool mask of its size.",
            code="no-such-region",
        ) from None
    mask = np.zeros((height, width), bool)
    mask[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    if not mask.any():
        raise VizError(
            f"The region {top},{left},{bottom},{right} has no cells: the crop is {width} × {height} pixels, and top and left "
            "come before bottom and right.",
            code="empty-region",
        )
    return _cells_of(mask, network, the_map), f"region {top},{left} to {bottom},{right}"


def _shortly(given: Any) -> str:
    return f"an array of {given.dtype}" if isinstance(given, np.ndarray) else quoted(given)


def _class_there(network: Network, target: Target, cells: np.ndarray, clean: np.ndarray | None) -> int | None:
    """The class that the target names, or the strongest one at its cells on the photo; None without a photo."""
    if target.class_ is not None:
        return class_index(network, _class(target.class_))
    if len(network.categories) == 1:
        return 0
    return None if clean is None else int(clean[:, cells].mean(1).argmax())


def _pointed(network: Network, the_map: ClassMap, cells: np.ndarray, told: str, of_photo: bool) -> Network:
    """The network whose class scores are the mean logits over some cells, bool `[h w]`, of its class map."""
    weights = torch.from_numpy(cells / cells.sum()).to(network.device, network.dtype)  # [h w]
    (row, column), *others = np.argwhere(cells).tolist()

    def forward(self: nn.Module, run: Callable[..., Any], batch: Tensor) -> Tensor:
        output = run(batch)

        def mean() -> Tensor:
            logits = the_map.logits(output)
            if logits is None or logits.shape[2:] != weights.shape:
                raise VizError(
                    f"{network.name} returns another class map than for a photo of its input size; choose another target.",
                    code="other-cells",
                )
            if cells.all():
                return logits.mean((2, 3))
            return (logits * weights).sum((2, 3)) if others else logits[:, :, row, column]

        return run_as(SITE, mean)

    return _derived(network, forward, told, the_map.head.link, more=cells.tobytes(), of_photo=of_photo)


# ------------------------------------------------------------------------------------------------------- embeddings


def _embedding(network: Network, target: Target) -> tuple[Network, Unit | None]:
    """The network toward the cosine with the embedding of a photo."""
    other = open_picture(target.embedding)
    head = network.heads[0] if network.task == "embedding" else None
    site = None if head is not None else network.last_hidden_layer()
    if head is None and site is None:
        raise VizError(
            f"{network.name} returns no vector and has no hidden layer that is one, so it has no embedding; choose another "
            "target.",
            code="no-embedding",
        )
    clean = network.clean
    with torch.no_grad():
        found = _vector(clean.module, clean.module, head, site, clean.prepare(other))
    if not (bool(found.isfinite().all()) and bool(found.any())):
        raise VizError(
            f"The embedding of {other.name} is zero or not finite, so it has no direction.", code="no-embedding"
        )
    direction = F.normalize(found, dim=1)  # [1 D]

    def forward(self: nn.Module, run: Callable[..., Any], batch: Tensor) -> Tensor:
        vector = _vector(self, run, head, site, batch)
        other = direction.to(vector.device, vector.dtype)
        return run_as(SITE, lambda: F.linear(F.normalize(vector), other))

    told = f"cosine with {other.name}"
    made = _derived(network, forward, told, "identity", "cosine", other.digest.encode())
    return made, class_unit(made, 0)


def _vector(module: nn.Module, run: Callable[..., Any], head: Head | None, site: Site | None, batch: Tensor) -> Tensor:
    """The embeddings `[N D]` of a batch: what the network returns, or what the site gives."""
    if site is None:
        assert head is not None
        vector = class_scores(head.pick(run(batch)), len(batch))
    else:
        with _LastValue(module, site) as values:
            run(batch)
        check_computed([site.name], values.found)
        vector = values.found[site.name]
    if vector is None or vector.ndim != 2:
        raise VizError(
            "The embedding has another form than for a photo of the network's input size.", code="no-embedding"
        )
    return vector


class _LastValue(Trace):
    """Keeps a copy of a site's value for the target, as an operation of its own: what follows may overwrite it."""

    def __init__(self, module: nn.Module, site: Site) -> None:
        super().__init__(module)
        self.found: dict[str, Tensor] = {}
        self._site = site

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = function(*args, **kwargs)
        tensor = first_tensor(output) if name == self._site.name else None
        if tensor is not None:
            self.found[name] = run_as(f"{SITE}.embedding", torch.clone, tensor)
        return output


# ----------------------------------------------------------------------------------------------------------- shared


def _derived(
    network: Network, forward: Callable[..., Any], told: str, link: Link, quantity: str = "probability", more: bytes = b"",
    of_photo: bool = False,
) -> Network:  # fmt: skip
    """The network toward a target, whose pass is `forward`, as of `override_forward`; the others as of `Network.toward`."""
    unchanged = network.unchanged and _derived(network.unchanged, forward, told, link, quantity, more, of_photo)
    return network.toward(_with_end(network.module, forward), told, link, quantity, more, unchanged, of_photo)


def _with_end(module: nn.Module, forward: Callable[..., Any]) -> nn.Module:
    return override_forward(module, forward, lambda copied: _with_end(copied, forward))
