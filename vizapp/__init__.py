"""See what convolutional networks compute. Start with `vizapp.load`, `vizapp.open_picture` and `vizapp.ask`.

`import vizapp` takes milliseconds: each name imports what it needs when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

from vizapp.settings import VERSION as __version__

if TYPE_CHECKING:
    from vizapp.engine.trace.sites import Unit as Unit
    from vizapp.errors import VizError as VizError
    from vizapp.media.picture import open_picture as open_picture
    from vizapp.media.sources import open_folder as open_folder
    from vizapp.methods import ask as ask
    from vizapp.methods.teach import teach as teach
    from vizapp.report.document import Report as Report
    from vizapp.zoo import class_unit as class_unit
    from vizapp.zoo import list_networks as list_networks
    from vizapp.zoo import load as load
    from vizapp.zoo import wrap as wrap
    from vizapp.zoo.interventions import Intervention as Intervention
    from vizapp.zoo.target import Target as Target

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    ["methods"],  # the package, which can also be called
    {
        "engine.trace.sites": ["Unit"],
        "errors": ["VizError"],
        "media.picture": ["open_picture"],
        "media.sources": ["open_folder"],
        "methods": ["ask"],
        "methods.teach": ["teach"],
        "report.document": ["Report"],
        "zoo": ["class_unit", "list_networks", "load", "wrap"],
        "zoo.interventions": ["Intervention"],
        "zoo.target": ["Target"],
    },
)
__all__ += ["__version__"]
