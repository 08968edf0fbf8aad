"""The types of every visualization: a Question goes in, a Result with arrays and panels comes out."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vizapp.engine.memory.chunks import SCRATCH, check_fits, convert_out_of_memory, free_memory
from vizapp.engine.memory.reuse import reused_memory
from vizapp.engine.precision import arithmetic, others_may_compute
from vizapp.engine.trace.sites import Unit
from vizapp.errors import VizError, quoted, without_folders
from vizapp.files import atomic_files, local_path
from vizapp.markup import Displayed
from vizapp.media.drawing import to_png
from vizapp.media.picture import Picture
from vizapp.media.source import Source, spread
from vizapp.methods import asked
from vizapp.methods.notebook import method_html, result_html, result_text
from vizapp.methods.output import Output, pictures
from vizapp.methods.params import Params
from vizapp.methods.provenance import Provenance, are_texts, changed, of_network, of_picture, of_unit
from vizapp.methods.section import section
from vizapp.report.document import Report
from vizapp.report.section import Section, View
from vizapp.zoo.network import Network
from vizapp.zoo.registry import OWN

Need = Literal["picture", "folder", "unit"]
_PLENTY = 2**32  # with this many free bytes the memory of a pass is not checked first, because the check takes a pass
_NEEDS = {
    "picture": "a photo (picture=… in Python, --picture on the command line)",
    "folder": "a folder of photos (folder=… in Python, --folder on the command line)",
    "unit": "a unit (unit=… in Python, --unit SITE:CHANNEL or --class NAME on the command line)",
}


@dataclass(frozen=True)
class Question:
    """The inputs of a method: a network, and a picture, folder or unit as the method needs."""

    network: Network
    picture: Picture | None = None
    folder: Source | None = None
    unit: Unit | None = None

    def require_picture(self) -> Picture:
        """The picture, for methods that need one."""
        assert self.picture is not None, "Method.answer checks `needs` before it runs the method"
        return self.picture

    def require_folder(self) -> Source:
        """The collection of pictures, for methods that need one."""
        assert self.folder is not None, "Method.answer checks `needs` before it runs the method"
        return self.folder

    def pictures(self, most: int, unreadable: list[str]) -> tuple[Iterator[tuple[int, Picture]], int]:
        """The picture (as number -1) and at most `most` of the folder, evenly spaced, with their numbers; and how many.

        Messages about those that cannot be read go into `unreadable`. `most`: 0 for all.

        Raises:
            VizError: the target was found on the picture, and is another one on the others.
        """
        alone = [] if self.picture is None else [(-1, self.picture)]
        if self.picture is not None and self.folder is not None and self.network.of_photo:
            raise VizError(
                f"The target is {self.network.target}, of one photo; for a folder choose a cell, a box or the whole map.",
                code="target-of-one-photo",
            )
        numbers = [] if self.folder is None else spread(len(self.folder), most)

        def readable() -> Iterator[tuple[int, Picture]]:
            yield from alone
            if self.folder is not None:
                yield from self.folder.open_readable(numbers, unreadable)

        return readable(), len(alone) + len(numbers)

    def require_unit(self) -> Unit:
        """The unit, for methods that need one."""
        assert self.unit is not None, "Method.answer checks `needs` before it runs the method"
        return self.unit


class Job:
    """The progress of a computation, which ends if the tick raises."""

    def __init__(self, tick: Callable[[float], None] | None = None) -> None:
        self._tick = tick

    def report(self, share: float) -> None:
        """Report the progress, from 0 to 1. Exceptions of the tick pass through."""
        if self._tick is not None:
            with others_may_compute():
                self._tick(min(max(share, 0.0), 1.0))


@dataclass(frozen=True)
class Panel:
    """One picture to show: uint8 `[H W 3]`, with a title (also its file name) and a caption."""

    title: str
    pixels: np.ndarray = field(repr=False)
    caption: str = ""


@dataclass(frozen=True)
class Result(Displayed):
    """The result of a method. Holds no tensors.

    Attributes:
        method: Key of the method.
        arrays: NumPy arrays by name; the page of the method describes them.
        panels: Pictures to show.
        facts: What a reader should know, as texts by name.
        table: Rows, each a value by column.
        store: A folder with the parts of the result that are too large for memory.
        manifest: The file in it that is written last.
        documents: Further texts that `save` writes, by file name.
        provenance: What was asked, set by `Method.answer`.
    """

    method: str
    arrays: dict[str, np.ndarray]
    panels: tuple[Panel, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    table: tuple[dict[str, Any], ...] = ()
    store: Path | None = None
    manifest: str = ""
    documents: dict[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None

    def __repr__(self) -> str:
        return result_text(self)

    def _repr_html_(self) -> str:
        return result_html(self)

    @property
    def nbytes(self) -> int:
        """Approximate memory of the result."""
        crop = 0 if self.provenance is None else self.provenance.nbytes
        return sum(a.nbytes for a in self.arrays.values()) + sum(p.pixels.nbytes for p in self.panels) + crop

    def section(self, title: str = "", remark: str = "", link: str = "") -> Section:
        """The result as a section of a report (`vizapp.Report`): its pictures, table and facts, and how to make it again.

        `title`: by default method and photo. `remark`: the author's words above it. `link`: the address that opens it in the
        app, by default on this machine.
        """
        return section(self, title, remark, link)

    def to_html(self, title: str = "", remark: str = "", link: str = "") -> str:
        """A report of this result alone, as one HTML file: see `section`."""
        return Report((self.section(title, remark, link),)).to_html()

    def save(self, folder: str | Path) -> Path:
        """Write a PNG per panel, `arrays.npz`, `result.json` and the documents into the folder, and return it.

        `result.json` is the `summary`, with the `provenance` as `asked`, of which `vizapp report --from` makes a report again.

        If the result has a `store`, the folder becomes a copy of it. The rest then goes into the sub-folder `_result`,
        which readers of Parquet folders ignore.

        Raises:
            VizError: the folder cannot be written.
        """
        whole = folder = local_path(folder, "output folder")
        rest = ""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self.store is not None:
                _copy(self.store, folder, self.manifest)
                folder = folder / "_result"
                rest = f" The files beside {folder.name!r} are complete; run it again to write the rest."
                folder.mkdir(exist_ok=True)
            with atomic_files(folder) as part:
                for panel in self.panels:
                    (part / f"{_file_name(panel.title)}.png").write_bytes(to_png(panel.pixels))
                np.savez_compressed(part / "arrays.npz", **self.arrays)  # type: ignore[arg-type]
                more = {} if self.provenance is None else {"asked": asked.told(self.provenance)}
                told = json.dumps(self.summary() | more, indent=1, ensure_ascii=False) + "\n"
                (part / "result.json").write_text(told, encoding="utf-8")
                for name, text in self.documents.items():
                    (part / name).write_text(text, encoding="utf-8")
        except OSError as error:
            if rest:
                with suppress(OSError):
                    folder.rmdir()  # if it is empty
            raise VizError(
                f"Cannot write to {str(folder)!r}: {error.strerror or error}.{rest}", code="unwritable"
            ) from None
        return whole

    def summary(self) -> dict[str, Any]:
        """What `result.json` tells: method, facts, table, and the shape and type of each array."""
        return {
            "method": self.method,
            "facts": self.facts,
            "table": list(self.table),
            "arrays": {name: {"shape": list(a.shape), "dtype": str(a.dtype)} for name, a in self.arrays.items()},
            "panels": [{"file": f"{_file_name(p.title)}.png", "caption": p.caption} for p in self.panels],
        }


def _copy(store: Path, folder: Path, manifest: str) -> None:
    """Copy the files of a store, unless it is the folder itself. The manifest is last: it marks a complete folder."""
    if store.resolve() == folder.resolve():
        return
    files = [path for path in sorted(store.iterdir()) if path.is_file()]
    strange = {path.name for path in folder.glob("*.parquet")} - {path.name for path in files}
    if strange:
        raise VizError(
            f"{str(folder)!r} holds other tables ({min(strange)}); save into another folder.",
            code="folder-holds-other-files",
        )
    with atomic_files(folder, last=manifest) as part:
        for path in files:
            shutil.copyfile(path, part / path.name)


def _file_name(title: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in title).strip("-.") or "panel"


@dataclass(frozen=True)
class Method(Displayed):
    """A visualization. Its form, its command line and the generic tests are derived from this value.

    Attributes:
        key: Its name for `ask`, the command line and links.
        title: Its name for people.
        source: The paper and section that define it.
        params: The class of its parameters.
        run: Computes the answer. The first line of its docstring is the summary.
        needs: What it cannot do without.
        optional_inputs: What it uses when given; a folder may then stand for the picture.
        incompatibility: Returns a message if the method cannot answer a question, else None.
        fit: Returns the parameters with defaults that suit the network, except for those that the caller set.
        memory_hint: An input that would take less memory.
        shows: Describes the arrays, the most important first; page and panels are drawn from it.
        takes_long: It usually takes minutes, so the app asks before it starts.
        views: What a report shows of a result that has a provenance, alive, beside what is drawn from `shows`.
    """

    key: str
    title: str
    source: str
    params: type[Params]
    run: Callable[[Question, Any, Job], Result]
    needs: frozenset[Need] = frozenset({"picture"})
    optional_inputs: frozenset[Need] = frozenset()
    incompatibility: Callable[[Question], str | None] = lambda question: None
    fit: Callable[[Any, Network, Collection[str]], Any] = lambda params, network, given: params
    memory_hint: str = ""
    shows: tuple[Output, ...] = ()
    takes_long: bool = False
    views: Callable[[Result], tuple[View, ...]] | None = None

    def __repr__(self) -> str:
        return f"Method({self.key!r}, {self.title!r})"

    def _repr_html_(self) -> str:
        given = "".join(f", {need}={need}" for need in ("picture", "folder", "unit") if need in self.needs)
        call = f'vizapp.ask("{self.key}", network{given})'
        return method_html(self.title, self.summary, self.source, call, self.params, self.shows)

    @property
    def inputs(self) -> frozenset[Need]:
        """Everything that the method needs or can use."""
        return self.needs | self.optional_inputs

    @property
    def summary(self) -> str:
        """The first line of the docstring of `run`."""
        return (self.run.__doc__ or "").strip().split("\n")[0]

    def answer(self, question: Question, params: Params, job: Job) -> Result:
        """Check the question, run the method, and add the network, the picture and the time to the facts.

        Products have the precision of the network's type, except where the method takes a lower one as a parameter.

        Raises:
            VizError: an input is missing, or the method does not fit the question.
            DoesNotFit: not enough memory.
        """
        for need in sorted(self.needs):
            stands = need == "picture" and "folder" in self.optional_inputs and question.folder is not None
            if getattr(question, need) is None and not stands:
                raise VizError(f"{self.title} needs {_NEEDS[need]}.", code="missing-input")
        what = f"{self.title.lower()} with {question.network.name}"
        device = question.network.device
        with convert_out_of_memory(what, self.memory_hint), arithmetic(device, "exact"), reused_memory():
            if question.unit is not None:
                check_unit(question.network, question.unit)
                question = replace(question, network=question.network.about(question.unit))
            reason = self.incompatibility(question)
            if reason is not None:
                raise VizError(reason, code="does-not-fit-method")
            started = time.perf_counter()
            job.report(0.0)
            check_pass(question.network, what, self.memory_hint)
            result = self.run(question, params, job)
        job.report(1.0)
        facts = facts_about(question)
        facts |= result.facts | {"time": f"{time.perf_counter() - started:.2f} s"}
        told = self.provenance(question, params)
        readings = {output.array: output.reading for output in self.shows}
        panels = result.panels or tuple(
            Panel(title, pixels, readings.get(title, ""))
            for title, pixels in pictures(self.shows, result.arrays, told.seen).items()
        )
        return replace(result, method=self.key, facts=facts, panels=panels, provenance=told)

    def with_question(self, result: Result, question: Question, params: Params) -> Result:
        """The result of a run of a page's own, with what was asked, as `answer` gives it."""
        facts = facts_about(question) | result.facts
        return replace(result, facts=facts, provenance=self.provenance(question, params))

    def provenance(self, question: Question, params: Params) -> Provenance:
        """What is asked, as results keep it."""
        network, picture, folder = question.network, question.picture, question.folder
        told: dict[str, Any] = of_network(network) | {"params": changed(params)}
        told["repeatable"] = network.weights != "own" and are_texts(params) and told["options"] != OWN
        told["repeatable"] &= "region=MASK" not in told["target"]  # an array
        if picture is not None:
            told |= of_picture(picture) | {"seen": network.seen(picture)}
            told["repeatable"] &= picture.name != "picture"  # that of an array
        if folder is not None:
            told["folder"] = without_folders(folder.name)
        if question.unit is not None:
            told |= of_unit(network, question.unit)
        if self.views is not None and network.heads:
            told["link_function"] = network.head.link
        return Provenance(self.key, self.title, self.source, shows=self.shows, views=self.views, **told)


def facts_about(question: Question) -> dict[str, str]:
    """What every result says of its network and photo."""
    network, picture = question.network, question.picture
    facts = {"network": f"{network.name}, weights {network.weights}, on {network.device}"}
    if network.preprocessing.channel_map:
        facts["channels"] = f"fed by {', '.join(network.preprocessing.channel_map)}"
    if network.interventions:
        facts["interventions"] = network.interventions
    if network.target:
        facts["target"] = network.target
    if picture is not None:
        notes = " ".join(picture.notes)
        facts["picture"] = f"{picture.name}. {notes}" if notes else picture.name
    return facts


def check_pass(network: Network, what: str, smaller: str = "") -> None:
    """Raise DoesNotFit if a pass of one picture does not fit into memory. `what` and `smaller` are for its message."""
    if free_memory(network.device) < _PLENTY:
        check_fits(int(SCRATCH * network.footprint.widest), network.device, what, smaller)


def check_unit(network: Network, unit: Unit) -> None:
    """Raise a VizError if the network has no such site, channel or cell."""
    site = network.site(unit.site)
    if not 0 <= unit.channel < site.channels:
        raise VizError(
            f"Layer {unit.site!r} has channels 0 to {site.channels - 1}, not {quoted(unit.channel)}.",
            code="no-such-channel",
        )
    if unit.cell is None:
        return
    if not site.is_map:
        raise VizError(f"Layer {unit.site!r} is a vector without cells; give the channel alone.", code="no-cells")
    row, column = unit.cell
    if not (0 <= row < site.shape[1] and 0 <= column < site.shape[2]):
        raise VizError(
            f"Layer {unit.site!r} has cells 0,0 to {site.shape[1] - 1},{site.shape[2] - 1}, not "
            f"{quoted(row)},{quoted(column)}.",
            code="no-such-cell",
        )
