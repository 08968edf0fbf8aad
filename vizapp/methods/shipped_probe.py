"""The probe that vizapp ships, so that the first view of its page shows one: made by `training/galleries.py`.

Its file is named by everything that the numbers depend on, so that it is found for no other network, photos or parameters.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vizapp.methods.base import Result
from vizapp.methods.params import Params
from vizapp.settings import ASSETS

FOLDER = ASSETS / "probes"
_TOLD = "told"  # facts, table and documents, beside the arrays


def file_of(tables: Sequence[str], params: Params) -> Path:
    """Where the result of these tables of photos (`table_name`) with these parameters would be."""
    return FOLDER / f"{hashlib.sha256(f'{list(tables)} {params}'.encode()).hexdigest()[:32]}.npz"


def shipped_result(file: Path) -> Result | None:
    """The result in that file; None if there is none."""
    if not file.is_file():
        return None
    with np.load(file) as stored:
        arrays = {name: stored[name] for name in stored.files}
    told = json.loads(str(arrays.pop(_TOLD)))
    return Result("probe", arrays, facts=told["facts"], table=tuple(told["table"]), documents=told["documents"])


def write_result(result: Result, file: Path) -> None:
    """Write what `shipped_result` reads."""
    told = {"facts": result.facts, "table": result.table, "documents": result.documents}
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **result.arrays, **{_TOLD: np.array(json.dumps(told))})  # type: ignore[arg-type]
