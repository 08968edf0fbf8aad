"""See what convolutional networks compute. `vizapp.load`, `vizapp.open_picture`, `vizapp.ask` are the way in.

Nothing heavy is imported before it is used: `import vizapp` takes milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vizapp.engine.trace.sites import Unit as Unit
    from vizapp.errors import VizError as VizError
    from vizapp.media.picture import open_picture as open_picture
    from vizapp.media.sources import open_folder as open_folder
    from vizapp.methods import ask as ask
    from vizapp.zoo import class_unit as class_unit
    from vizapp.zoo import list_networks as list_networks
    from vizapp.zoo import load as load
    from vizapp.zoo import wrap as wrap

__version__ = "0.1.0"
_HOME = {
    "Unit": "vizapp.engine.trace.sites",
    "VizError": "vizapp.errors",
    "open_folder": "vizapp.media.sources",
    "open_picture": "vizapp.media.picture",
    "ask": "vizapp.methods",
    "class_unit": "vizapp.zoo",
    "list_networks": "vizapp.zoo",
    "load": "vizapp.zoo",
    "wrap": "vizapp.zoo",
}
__all__ = [*_HOME, "methods", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name == "methods":  # the package, which can be called: see there
        return importlib.import_module("vizapp.methods")
    raise AttributeError(f"module 'vizapp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
