"""The curves of transforms as lines of the two charts, and what they say in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vizapp.methods.base import Result
from vizapp.methods.scores import in_words
from vizapp.methods.transform_film import amount_text
from vizapp.ui.inputs import targets
from vizapp.ui.pages.transform import form
from vizapp.ui.pages.transform.charts import Line
from vizapp.ui.pages.transform.curve_runs import CurveRequest
from vizapp.ui.session import messages
from vizapp.zoo.network import Network

CLASSES = 3  # of the clean photo, whose probabilities are drawn
Curves = Sequence[tuple[CurveRequest, Result]]


def distances(there: Curves, first: Network) -> list[Line]:
    """A line per layer; those of a second network are dashed."""
    lines = []
    for asked, result in there:
        dashed = asked.network is not first
        for number, name in enumerate(asked.params.sites):
            title = f"{name} · {short_name(asked.network)}" if len(there) > 1 else name
            lines.append(Line(title, _amounts(asked, result, first), result.arrays["distance"][number], number, dashed))
    return lines


def probabilities(there: Curves, first: Network) -> list[Line]:
    """A line per class that is most probable in the clean photo, which a second network may call by the same name."""
    lines: list[Line] = []
    names: list[str] = []
    for asked, result in there:
        if "probability" not in result.arrays:
            continue
        dashed = asked.network is not first
        top = top_classes(asked, result)
        if names and dashed:
            known = {name.lower(): number for number, name in enumerate(asked.network.categories)}
            top = [known[name.lower()] for name in names if name.lower() in known] or top[:1]
        names = names or [asked.network.class_name(number) for number in top]
        for number in top:
            name = asked.network.class_name(number)
            colour = names.index(name) if name in names else len(names)
            title = asked.network.readable_name(number) + (f" · {short_name(asked.network)}" if len(there) > 1 else "")
            shares = result.arrays["probability"][:, number]
            lines.append(Line(title, _amounts(asked, result, first), shares, colour, dashed))
    return lines


def short_name(network: Network) -> str:
    """The name of a network without that of its collection."""
    return network.name.rpartition("/")[2]


def top_classes(asked: CurveRequest, result: Result, count: int = CLASSES) -> list[int]:
    """The class that is explained, and the most probable others of the clean photo."""
    clean = result.arrays["amounts"].tolist().index(asked.params.amounts[asked.clean])
    shares = result.arrays["probability"][clean]
    first = targets.explained_class(asked.network, asked.picture, shares)
    return [first, *(int(n) for n in np.argsort(-shares, kind="stable") if n != first)][:count]


def _amounts(asked: CurveRequest, result: Result, first: Network) -> np.ndarray:
    """The amounts on the axis of the first network."""
    scale = 1.0 if asked.network is first else form.scale_of(asked.params.kind, asked.network, first)
    return result.arrays["amounts"] / scale


def headline(asked: CurveRequest, result: Result | None, amount: float, chosen: bool) -> str:
    """In words what becomes of the answer at the chosen amount, or at the worst one."""
    kind = asked.params.kind
    if result is None or "probability" not in result.arrays:
        return f"{form.KINDS[kind]}: {amount_text(kind, amount)}"
    number = top_classes(asked, result, 1)[0]
    amounts, shares = result.arrays["amounts"].tolist(), result.arrays["probability"][:, number]
    clean = float(shares[amounts.index(asked.params.amounts[asked.clean])])
    at = amounts.index(amount) if chosen and amount in amounts else int(shares.argmin())
    where = amount_text(kind, amounts[at])
    name, now = asked.network.readable_name(number), float(shares[at])
    label = int(result.arrays["label"][at])
    change = "" if label == number else f"; the answer becomes {asked.network.readable_name(label)}"
    before, after = (in_words(asked.network, share) for share in (clean, now))
    return f"{name}: {before} → {after} at {where}{'' if chosen else ', at worst'}{change}"


def explain(quantity: str, several: bool) -> None:
    """Say in two sentences what the curves mean; those on the right are of `quantity`, "" if there are none."""
    messages.info(
        "On the left, a layer that jumps at once notices the slightest change, as a first layer does when edges move; one that "
        "rises slowly has learned to ignore it, as late layers have for small movements (Zeiler & Fergus 2013, figure 5)."
    )
    if not quantity:
        return
    if several:
        of = "probability of one photo's own class" if quantity == "probability" else f"{quantity} of one photo"
        messages.info(f"On the right, each thin line is the {of}, and the thick one their mean.")
        return
    told = "probabilities show" if quantity == "probability" else f"{quantity} shows"
    messages.info(
        f"On the right, the {told} whether what moved in the features matters for the answer; click a curve, or move the "
        "slider, to see the photo there."
    )
