"""What the numbers of several maps say together: which is best, and which is no better than a map without the network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np

from vizapp.methods.attribution import KINDS
from vizapp.methods.trust.params import BETTER, merit

BASELINES = ("random", "edges")
_ARROWS = {"lower": "↓", "higher": "↑", "nearer to 0": "→ 0"}
LITTLE = 0.5  # share of the score that the blurred photo keeps, above which deletion and insertion do not count
Scores = Mapping[str, Mapping[str, float]]  # by kind, then by measure; NaN and missing: not known
Beats = Callable[[str, str, str], bool]  # whether a kind beats another one by a measure


@dataclass(frozen=True)
class Measure:
    """A number of a map: its title, and what it says.

    `faithful`: it asks the network whether the pixels matter. The others ask something else, and name no map to trust.
    """

    key: str
    title: str
    hint: str
    faithful: bool = False

    @property
    def arrow(self) -> str:
        """The title with the direction that is better."""
        return f"{self.title} {_ARROWS[BETTER[self.key]]}"

    @property
    def sentence(self) -> str:
        """What it says, and which direction is better."""
        return f"{self.hint} {BETTER[self.key].capitalize()} is better."


MEASURES = {
    one.key: one
    for one in (
        Measure("deletion", "Deletion", "The mean score while the pixels that the map marks most are blurred first.", True),
        Measure("insertion", "Insertion", "The mean score while these pixels come back first into a blurred photo.", True),
        Measure(
            "road", "ROAD",
            "How much more the score falls when the pixels that the map marks most are removed than when those that it marks "
            "least are; removed pixels are guessed from their neighbours.", True,
        ),
        Measure("pointing", "Pointing", "Whether the strongest pixel of the map lies on the object in the box."),
        Measure("completeness", "Sum gap", "How far the map is from adding up to what it promises, as a share of it."),
        Measure(
            "randomisation", "Shuffled weights",
            "How alike the map is to that of the network with shuffled weights; near 1 or −1 it ignores what the network "
            "learned.",
        ),
    )
}  # fmt: skip


def value(scores: Scores, kind: str, measure: str) -> float:
    """A number of a map; NaN if it is not known."""
    return scores.get(kind, {}).get(measure, nan)


def is_told(scores: Scores, measure: str) -> bool:
    """Whether a measure is shown: one that most kinds do not have only where one of these has it."""
    return measure != "completeness" or any(isfinite(value(scores, kind, measure)) for kind in scores)


@dataclass(frozen=True)
class Verdict:
    """Compares kinds by their numbers.

    Args:
        scores: The numbers.
        kinds: The kinds that are shown.
        measures: The measures that are shown.
        weak: The blurred photo keeps most of the score, so deletion and insertion do not count.
        beats: Whether a kind beats another one by a measure; by default if its number is better.
    """

    scores: Scores
    kinds: Sequence[str]
    measures: Sequence[str]
    weak: bool = False
    beats: Beats | None = None

    @property
    def counted(self) -> list[str]:
        """The measures that decide which map to trust."""
        return [one for one in self.measures if MEASURES[one].faithful and not (self.weak and one != "road")]

    def merit(self, kind: str, measure: str) -> float:
        """How good a number is: higher is better; NaN if it is not known."""
        return float(merit(measure, np.array(value(self.scores, kind, measure))))

    def unbeaten(self, kind: str, measure: str) -> list[str]:
        """The maps without the network that a kind is not better than."""
        mine = self.merit(kind, measure)
        if kind in BASELINES or not isfinite(mine):
            return []
        known = [one for one in BASELINES if one in self.kinds and isfinite(self.merit(one, measure))]
        beats = self.beats or (lambda kind, other, measure: mine > self.merit(other, measure))
        return [one for one in known if not beats(kind, one, measure)]

    def beaten(self, kind: str) -> tuple[list[str], list[str]]:
        """The counted measures by which a kind is better than all maps without the network, and those by which it is not."""
        known = [one for one in self.counted if isfinite(self.merit(kind, one))]
        lost = [one for one in known if self.unbeaten(kind, one)]
        return [one for one in known if one not in lost], lost

    def ordered(self, by: str = "all") -> list[str]:
        """The kinds from the best to the worst by one measure, or by all.

        By all: first those that beat the maps without the network by most of the counted measures, and of several the one
        with the best mean rank. Kinds without any number come last.
        """
        ranks = {kind: self._ranks(kind, self._ranked if by == "all" else [by]) for kind in self.kinds}

        def standing(kind: str) -> tuple[float, float, int]:
            won = len(self.beaten(kind)[0]) if by == "all" and kind not in BASELINES else 0
            mean = sum(ranks[kind]) / len(ranks[kind]) if ranks[kind] else float("inf")
            return -won, mean, self.kinds.index(kind)

        return sorted(self.kinds, key=standing)

    @property
    def _ranked(self) -> list[str]:
        """The measures whose ranks count: few kinds have a sum gap, and one that most photos do not tell counts nowhere."""
        skipped = {"completeness"} | ({"deletion", "insertion"} if self.weak else set())
        return [one for one in self.measures if one not in skipped]

    def _ranks(self, kind: str, measures: Collection[str]) -> list[float]:
        """The rank of a kind by each measure for which it has a number, from 0.5 on; equal numbers share their ranks."""
        found = []
        for measure in measures:
            mine = self.merit(kind, measure)
            if isfinite(mine):
                others = [one for other in self.kinds if isfinite(one := self.merit(other, measure))]
                found.append(sum(one > mine for one in others) + 0.5 * sum(one == mine for one in others))
        return found

    def best(self, measure: str) -> str | None:
        """The kind with the best number, of those that look at the network; None if none is better than all others."""
        found = {
            kind: one for kind in self.kinds if kind not in BASELINES and isfinite(one := self.merit(kind, measure))
        }
        if len(found) < 2 or (MEASURES[measure].faithful and measure not in self.counted):
            return None
        first = [kind for kind, one in found.items() if one == max(found.values())]
        return first[0] if len(first) == 1 and not self.unbeaten(first[0], measure) else None

    def about(self, kind: str) -> tuple[str, bool]:
        """Sentences about one map, and whether they are praise."""
        if kind in BASELINES:
            return "To be beaten: it knows nothing of the network.", False
        won, lost = self.beaten(kind)
        first = [measure for measure in won if self.best(measure) == kind]
        told = [f"Best by {_listed(first)}."] if first else []
        against = dict[str, list[str]]()  # measures by the maps that are not beaten
        for measure in lost:
            names = " or ".join(KINDS[one].title.lower() for one in self.unbeaten(kind, measure))
            against.setdefault(names, []).append(measure)
        for names, measures in against.items():
            listed = _listed(measures)
            told.append(f"{listed[0].upper()}{listed[1:]}: no better than {names}.")
        return " ".join(told), bool(first) and not lost

    def headline(self, where: str = "on this photo", few: str = "") -> str:
        """Which map to trust, and why: the first of `ordered`, if it beats the maps without the network by most measures.

        Empty without numbers of a map that looks at the network, and of one that does not. `few`: what is said instead if a
        map is better by most measures, but does not beat them.
        """
        order = self.ordered()
        known = [kind for kind in order if kind not in BASELINES and any(self.beaten(kind))]
        rivals = [
            one for one in BASELINES if one in order and any(isfinite(self.merit(one, name)) for name in self.counted)
        ]
        if not known or not rivals:
            return ""
        against = " and ".join(KINDS[one].title.lower() for one in rivals)
        won, lost = self.beaten(known[0])
        if len(won) <= len(lost):
            plain = Verdict(self.scores, self.kinds, self.measures, self.weak)
            if few and any(len(one) > len(other) for one, other in map(plain.beaten, known)):
                return few
            return f"No map is clearly better than {against} {where}."
        why = f"It beats {against} by {_listed(won)}" + (f", not by {_listed(lost)}" if lost else "")
        same = sum(len(self.beaten(kind)[0]) == len(won) for kind in known) - 1
        so = "so does another map" if same == 1 else f"so do {same} other maps"
        others = f"; {so}, with no better mean rank" if same else ""
        return f"Most trustworthy {where}: {KINDS[known[0]].title}. {why}{others}."


def _listed(measures: Sequence[str]) -> str:
    return _joined([MEASURES[one].title if one == "road" else MEASURES[one].title.lower() for one in measures])


def _joined(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
