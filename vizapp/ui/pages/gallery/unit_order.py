"""Orders of the units of a layer in a gallery."""

from __future__ import annotations

import numpy as np

from vizapp.gallery.reader import Gallery, is_silent

SORTS = {
    "selectivity": "Selective", "strength": "Strongest", "random": "Random", "dead": "Dead first", "number": "By number",
}  # fmt: skip


def ranked(found: Gallery, site: str, sort: str, seed: int = 1, group: str | None = None) -> np.ndarray:
    """The channels of a layer, int64 `[n]`, in the order `sort`; ties to the lower channel.

    Args:
        found: The gallery.
        site: The layer.
        sort: One of `SORTS`.
        seed: Random seed for the order "random".
        group: Only units with top pictures of this class, the largest share first.
    """
    units = found.units_of(site)
    maximum = np.nan_to_num(units["maximum"].to_numpy(np.float64), nan=-np.inf)
    dead = units["dead"].to_numpy(bool)
    keys = {
        "strength": (-maximum,),
        "selectivity": (-maximum, -units["selectivity"].to_numpy(np.float64), dead),  # many may have 1
        "dead": (maximum, ~dead),
        "number": (np.arange(len(units)),),
    }
    order = np.random.default_rng(seed).permutation(len(units)) if sort == "random" else np.lexsort(keys[sort])
    if group is None:
        return order
    share = shares(found, site, group)[order]
    return order[np.argsort(-share, kind="stable")][: int((share > 0).sum())]


def shares(found: Gallery, site: str, group: str) -> np.ndarray:
    """The share of the top pictures of each unit that are of a class: float `[channels]`; 0 for silent units."""
    rows, units = found.rows(site), found.units_of(site)
    channels = rows["channel"].to_numpy()
    all_of_them = np.bincount(channels, minlength=len(units))
    of_class = np.bincount(channels[(rows["label"] == group).to_numpy(bool)], minlength=len(units))
    return np.where(is_silent(units), 0.0, of_class / np.maximum(all_of_them, 1))
