"""Open a result that `Result.save` or `--out` wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from vizapp.errors import VizError
from vizapp.files import local_path
from vizapp.media.picture import open_picture
from vizapp.methods import asked, methods
from vizapp.methods.base import Panel, Result


def open_result(folder: str | Path) -> Result:
    """The result in a folder, with what reports show of it: arrays, pictures, facts, table, and what was asked.

    Raises:
        VizError: the folder holds no whole result, or one of a version that did not tell what was asked.
    """
    whole = local_path(folder, "folder")
    place = whole / "_result" if (whole / "_result" / "result.json").is_file() else whole
    try:
        told = json.loads((place / "result.json").read_text("utf-8"))
        provenance = asked.read(told["asked"])
        with np.load(place / "arrays.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        found = {name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in arrays.items()}
        if found != told["arrays"] or provenance.method != told["method"]:
            raise ValueError("its files are of different results")
        facts = {str(name): str(fact) for name, fact in told["facts"].items()}
        panels = tuple(_panel(place, **panel) for panel in told["panels"])
        table = tuple(dict(row) for row in told["table"])
    except OSError as error:
        name = Path(error.filename or place).name
        why = f"{name}: {error.strerror or error}"
    except KeyError as error:
        why = f"result.json lacks {error}"
    except (ValueError, TypeError, AttributeError, EOFError, BadZipFile, VizError) as error:
        why = str(error).rstrip(".")
    else:
        method = methods().get(provenance.method)
        if method is not None:
            provenance = replace(provenance, shows=method.shows, views=method.views)
        return Result(provenance.method, arrays, panels, facts, table, provenance=provenance)
    raise VizError(
        f"{str(whole)!r} holds no answer that can be opened ({why}). Ask again with --out, or with save() in Python.",
        code="no-saved-answer",
    )


def _panel(place: Path, file: str, caption: str) -> Panel:
    if Path(file).name != file:
        raise ValueError(f"{file!r} is not a file of this folder")
    return Panel(Path(file).stem, open_picture(place / file).pixels, str(caption))
