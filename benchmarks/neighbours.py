"""Exact nearest neighbours of one photo, beside scikit-learn's brute force, which is given its best form of the data.

    python benchmarks/neighbours.py [--photos 100000] [--features 1024]

Both search the same float32 matrix in memory, in turn, for six neighbours. scikit-learn gets contiguous rows and is fitted
before; `pairwise_distances_argmin_min` and float64 would only make it slower. The answers are compared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path

import numpy as np
from sklearn.neighbors import NearestNeighbors
from timing import timed

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package runs from the checkout
from vizapp.gallery.search_features import Metric, nearest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((options.photos, options.features), dtype=np.float32)
    wanted = rng.standard_normal(options.features, dtype=np.float32)
    print(f"{options.photos:,} x {options.features:,} float32, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for metric in ("euclidean", "cosine"):
        compare(rows, wanted, metric, options.repeats)
    print(f"load {os.getloadavg()[0]:.1f}")


def compare(rows: np.ndarray, wanted: np.ndarray, metric: Metric, repeats: int) -> None:
    peer = NearestNeighbors(n_neighbors=6, algorithm="brute", metric=metric).fit(rows)
    assert nearest([rows], wanted, 6, metric).rows.tolist() == peer.kneighbors(wanted[None])[1][0].tolist()
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(timed(lambda: nearest([rows], wanted, 6, metric)))
        theirs.append(timed(lambda: peer.kneighbors(wanted[None])))
    mine, other = statistics.median(ours), statistics.median(theirs)
    print(
        f"{metric:10} {mine:.3f} s (least {min(ours):.3f}), scikit-learn {other:.3f} s (least {min(theirs):.3f}), "
        f"ratio {other / mine:.2f}"
    )


if __name__ == "__main__":
    main()
