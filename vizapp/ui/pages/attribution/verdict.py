"""What the numbers of several maps say together: which is best, and which is no better than a map without the network."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan

from vizapp.methods.attribution import KINDS
from vizapp.methods.trust.params import HIGHER

BASELINES = ("random", "edges")
Scores = Mapping[str, Mapping[str, float]]  # by kind, then by measure; NaN and missing: not known


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
    def higher(self) -> bool:
        """Whether a higher number is better."""
        return HIGHER[self.key]

    @property
    def arrow(self) -> str:
        """The title with the direction that is better."""
        return f"{self.title} {'↑' if self.higher else '↓'}"

    @property
    def sentence(self) -> str:
        """What it says, and which direction is better."""
        return f"{self.hint} {'Higher' if self.higher else 'Lower'} is better."


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
            "randomisation", "Random weights",
            "How alike the map is to that of the network with shuffled weights; near 1 it ignores what the network learned.",
        ),
    )
}  # fmt: skip


def value(scores: Scores, kind: str, measure: str) -> float:
    """A number of a map; NaN if it is not known."""
    return scores.get(kind, {}).get(measure, nan)


def ordered(scores: Scores, kinds: Sequence[str], measures: Collection[str]) -> list[str]:
    """The kinds from the best to the worst by the mean of their ranks in these measures; without any number last."""

    def ranks(kind: str) -> list[float]:
        found = []
        for measure in measures:
            mine, higher = value(scores, kind, measure), MEASURES[measure].higher
            if isfinite(mine):
                others = [one for other in kinds if isfinite(one := value(scores, other, measure))]
                found.append(
                    sum(_better(one, mine, higher) for one in others) + 0.5 * sum(one == mine for one in others)
                )
        return found

    mean = {kind: sum(found) / len(found) for kind in kinds if (found := ranks(kind))}
    return sorted(kinds, key=lambda kind: (mean.get(kind, float("inf")), kinds.index(kind)))


def is_told(scores: Scores, measure: str) -> bool:
    """Whether a measure is shown: one that most kinds do not have only where one of these has it."""
    return measure != "completeness" or any(isfinite(value(scores, kind, measure)) for kind in scores)


def _better(one: float, other: float, higher: bool) -> bool:
    return one > other if higher else one < other


def best(scores: Scores, kinds: Collection[str], measure: str) -> str | None:
    """The kind with the best number, of those that look at the network; None if none is better than all others."""
    higher = MEASURES[measure].higher
    found = {kind: value(scores, kind, measure) for kind in kinds if kind not in BASELINES}
    known = [one for one in found.values() if isfinite(one)]
    if len(known) < 2:
        return None
    most = max(known) if higher else min(known)
    first = [kind for kind, one in found.items() if one == most]
    return first[0] if len(first) == 1 and not unbeaten(scores, first[0], measure) else None


def unbeaten(scores: Scores, kind: str, measure: str) -> list[str]:
    """The maps without the network that a kind is not better than."""
    mine, higher = value(scores, kind, measure), MEASURES[measure].higher
    if kind in BASELINES or not isfinite(mine):
        return []
    return [one for one in BASELINES if isfinite(its := value(scores, one, measure)) and not _better(mine, its, higher)]


def beaten(scores: Scores, kind: str, measures: Collection[str]) -> tuple[list[str], list[str]]:
    """The faithful measures by which a kind is better than all maps without the network, and those by which it is not."""
    known = [one for one in measures if MEASURES[one].faithful and isfinite(value(scores, kind, one))]
    lost = [one for one in known if unbeaten(scores, kind, one)]
    return [one for one in known if one not in lost], lost


def about(scores: Scores, kinds: Collection[str], kind: str, measures: Collection[str]) -> tuple[str, bool]:
    """A sentence about one map, and whether it is praise."""
    if kind in BASELINES:
        return "To be beaten: it knows nothing of the network.", False
    won, lost = beaten(scores, kind, measures)
    first = [measure for measure in won if best(scores, kinds, measure) == kind]
    said = f"Best by {_listed(first)}. " if first else ""
    if lost:
        names = dict.fromkeys(KINDS[one].title.lower() for measure in lost for one in unbeaten(scores, kind, measure))
        said += f"Not better than {' and '.join(names)} by {_listed(lost)}."
    return said.strip(), bool(first) and not lost


def headline(scores: Scores, kinds: Sequence[str], measures: Collection[str], where: str = "for this photo") -> str:
    """Which map to trust, and why; empty without numbers of a map that looks at the network, and of one that does not.

    It is the one that beats the maps without the network by most measures, and of several the one with the best mean rank.
    """
    sides = {kind: beaten(scores, kind, measures) for kind in kinds if kind not in BASELINES}
    known = [kind for kind, (won, lost) in sides.items() if won or lost]
    rivals = [one for one in BASELINES if one in kinds and any(isfinite(value(scores, one, name)) for name in measures)]
    if not known or not rivals:
        return ""
    against = " and ".join(KINDS[one].title.lower() for one in rivals)
    passed = [kind for kind in known if len(sides[kind][0]) > len(sides[kind][1])]
    if not passed:
        return f"None of these maps beats {against} by most numbers: trust none of them {where}."
    failed = [KINDS[kind].title for kind in known if kind not in passed]
    most = max(len(sides[kind][0]) for kind in passed)
    faithful = [name for name in measures if MEASURES[name].faithful]
    first = ordered(scores, [kind for kind in passed if len(sides[kind][0]) == most], faithful)[0]
    won, lost = sides[first]
    why = f"It beats {against} by {_listed(won)}" + (f", not by {_listed(lost)}." if lost else ".")
    rest = f" {_joined(failed)} {'do' if len(failed) > 1 else 'does'} not by most numbers." if failed else ""
    return f"Most to be trusted {where}: {KINDS[first].title}. {why}{rest}"


def _listed(measures: Sequence[str]) -> str:
    return _joined([MEASURES[one].title if one == "road" else MEASURES[one].title.lower() for one in measures])


def _joined(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
