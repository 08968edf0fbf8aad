"""Orders of the units of a layer in a gallery."""

from __future__ import annotations

import numpy as np

from vizapp.gallery.reader import Gallery

SORTS = {
    "selectivity": "Selective", "strength": "Strongest", "random": "Random", "dead": "Dead first", "number": "By number",
}  # fmt: skip


def ranked(found: Gallery, site: str, sort: str, seed: int = 1) -> np.ndarray:
    """The channels of a layer, int64 `[n]`, in the order `sort`; ties to the lower channel.

    Args:
        found: The gallery.
        site: The layer.
        sort: One of `SORTS`.
        seed: Random seed for the order "random".
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
    return np.random.default_rng(seed).permutation(len(units)) if sort == "random" else np.lexsort(keys[sort])
