"""The views of sweeps on the page, finished or in progress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vizapp.methods.base import Result
from vizapp.methods.occlusion import panel_data
from vizapp.methods.occlusion.occluder import coarse_to_fine
from vizapp.methods.occlusion.panel_data import kept_class, mean_drop, of_class
from vizapp.methods.occlusion.panels import legend
from vizapp.methods.occlusion.sweep import Occlusion, places
from vizapp.methods.scores import probabilities
from vizapp.ui.pages.occlusion import sweep_runs
from vizapp.ui.pages.occlusion.sweep_runs import SweepRequest


@dataclass(frozen=True)
class SweepView(panel_data.SweepView):
    """The view of a sweep that was requested."""

    asked: SweepRequest


def of_result(asked: SweepRequest, result: Result, class_: int | None) -> SweepView:
    """The view of a result for a class whose probabilities were kept; else for the true or the predicted class."""
    seen = asked.network.seen(asked.picture)
    return _view(asked, seen, **of_class(result, kept_class(result, class_), seen))


def _view(asked: SweepRequest, seen: np.ndarray, class_: int, **fields: Any) -> SweepView:
    network = asked.network
    where, name = places(asked.params, network), network.readable_name(class_)
    return SweepView(
        network.name, asked.picture.name, asked.params, network.quantity, seen, where, class_=class_, class_name=name,
        asked=asked, **fields,
    )  # fmt: skip


def of_work(asked: SweepRequest, work: Occlusion, class_: int | None) -> SweepView:
    """The view of a sweep in progress, without the projection; before the first position, the photo alone."""
    logits = work.clean_logits
    clean = probabilities(asked.network, logits)
    chosen = class_ if class_ is not None and class_ < len(logits) else work.class_
    if not work.finished.any():
        return _view(asked, work.seen, chosen, arrays={}, clean=float(clean[chosen]), table=(), map_name="")
    arrays = work.maps(chosen)
    finished = arrays.pop("finished")
    is_coarse = finished.size > sweep_runs.FEW and finished.flat[coarse_to_fine(finished.shape)[0]].all()
    near = np.ones_like(finished) if is_coarse else finished  # before there is a coarse map, only finished cells
    arrays["pixels"] = mean_drop(float(logits[chosen]), arrays["logit"][near], work.positions.boxes[near], work.seen)
    table = legend(arrays["label"][near], int(logits.argmax()), clean, asked.network.class_name, work.true)
    for name in ("probability", "logit", "activation"):
        arrays[name] = np.where(near, arrays[name], np.nan)
    arrays |= {"clean_probability": clean[chosen], "clean_logit": logits[chosen]}
    named = "" if work.site is None else f"{work.site.name}:{work.channel}"
    return _view(asked, work.seen, chosen, arrays=arrays, clean=float(clean[chosen]), table=table, map_name=named)
