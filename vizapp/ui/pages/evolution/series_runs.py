"""The columns of a series in the app: made one by one, kept in the cache, and joined as far as they are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vizapp.errors import VizError
from vizapp.media.source import file_stamp
from vizapp.methods import method
from vizapp.methods.base import Question, Result
from vizapp.methods.evolution import EvolutionParams, is_no_checkpoint, join
from vizapp.methods.evolution_columns import Column, Columns
from vizapp.service.jobs import Tick
from vizapp.service.lru_cache import Key
from vizapp.service.runs import RunRequest
from vizapp.ui.session import compute, progress
from vizapp.ui.session.compute import Keep, Refusal
from vizapp.zoo.series import Series, checkpoint_name


@dataclass(frozen=True, eq=False)
class SeriesRequest:
    """A series that is asked for. `listing`: the digest of the list of photos."""

    maker: Columns
    series: Series
    params: EvolutionParams
    listing: str

    @property
    def keys(self) -> dict[Path, Key]:
        """The cache key of each checkpoint's column."""
        about = (self.maker.site.name, self.maker.channels, self.params.rule, self.listing)
        return {
            file: compute.key_of("evolution", self.maker.network, file=str(file), stamp=file_stamp(file), about=about)
            for file in self.series.files
        }

    @property
    def key(self) -> Key:
        """The key of the run that makes all columns."""
        keys = self.keys
        return (*keys[self.series.files[0]], *(keys[file][-1] for file in self.series.files[1:]), "together")

    def so_far(self) -> Result | None:
        """The result with the columns that are there; None without any.

        Raises:
            VizError: none of the files is a checkpoint.
        """
        keys = self.keys
        known = {file: one for file, key in keys.items() if (one := compute.answers().get(key)) is not None}
        if not known:
            return None
        times = dict(zip(self.series.files, self.series.epochs, strict=True))
        series = replace(self.series, files=tuple(known), epochs=tuple(times[file] for file in known))
        columns = [one for one in known.values() if isinstance(one, Column)]
        broken = {checkpoint_name(file): one.sentence for file, one in known.items() if isinstance(one, Refusal)}
        if not columns and len(known) < len(keys):
            return None
        question = Question(self.maker.network, folder=self.maker.source)
        return compute.remembered(
            ("evolution.joined", *(part for file in known for part in keys[file][1:]), *map(str, self.series.skipped)),
            lambda: method("evolution").with_question(
                join(self.maker, series, self.params, columns, broken), question, self.params
            ),
        )

    @property
    def is_whole(self) -> bool:
        """Whether all columns are there."""
        return all(compute.answers().get(key) is not None for key in self.keys.values())

    def follow(self, draw: Callable[[], None]) -> bool:
        """Make the missing columns, and draw the progress and `draw`: see `progress.follow`."""
        first, *rest = self.series.files
        files = [*rest[-1:], first, *rest[:-1]]  # the ends of the run are seen first
        work = compute.keeping_each(self.keys, files, self._make)
        request = RunRequest(self.key, work, str(self.maker.network.device), lambda: self.is_whole)
        count = len(self.series.files)

        def detail(watched: object) -> str:
            there = sum(compute.answers().get(key) is not None for key in self.keys.values())
            return f"{there} of {count} checkpoints"

        return progress.follow([request], "Looking at the photos", "evolution.cancel", draw, detail)

    def _make(self, tick: Tick, files: Sequence[Path], keep: Keep[Path]) -> None:
        """Make and keep the column of each file."""
        for number, file in enumerate(files):

            def report(share: float, number: int = number) -> None:
                tick((number + share) / len(files))

            try:
                keep(file, self.maker.make(file, report))
            except VizError as error:
                if not is_no_checkpoint(error):
                    raise
                keep(file, Refusal(str(error)))
