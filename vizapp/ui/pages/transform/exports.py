"""The downloads of the page Transform: photos, curves, arrays, a table and a film."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vizapp.media.distortions import resized_photo
from vizapp.media.drawing import sheet
from vizapp.media.film import to_gif, to_webm
from vizapp.media.source import spread
from vizapp.media.transforms import resize
from vizapp.methods.base import Result
from vizapp.methods.transform_film import Film
from vizapp.ui.pages.transform.curve_lines import top_classes
from vizapp.ui.pages.transform.curve_runs import CurveRequest
from vizapp.ui.session import downloads
from vizapp.ui.session.downloads import File

_SHOWN = 20  # photos of the sheet


def row(asked: Sequence[CurveRequest], results: Sequence[Result], amount: float) -> None:
    """Draw the buttons. The film, the table and the pictures are of the first network."""
    first, params = asked[0], asked[0].params
    name = downloads.file_name("transform", params.kind, first.network.name, first.picture.name)
    photo = resized_photo(first.network.preprocessing.view, first.picture.pixels)
    some = [params.amounts[n] for n in spread(len(params.amounts), _SHOWN)]
    film = _film(first, results[0])
    pictures = {
        "Photo": photo.transformed(params.kind, amount, params.edge, params.seed),
        "Photos": sheet([photo.transformed(params.kind, one, params.edge, params.seed) for one in some], 5, gap=2),
        "Curves": film[len(film) - 1],
    }
    arrays = dict(results[0].arrays)
    if len(results) > 1:
        arrays |= {f"second_{name}": values for name, values in results[1].arrays.items()}
    files = [
        *downloads.documents(name, results[0].documents),
        File("Film GIF", f"{name}.gif", "image/gif", lambda: to_gif([resize(f, 360, 640, "area") for f in film])),
        File("Film WebM", f"{name}.webm", "video/webm", lambda: to_webm(film)),
    ]
    downloads.row("transform", name, pictures, arrays, files)


def _film(asked: CurveRequest, result: Result) -> Film:
    network, arrays = asked.network, result.arrays
    photo = resized_photo(network.preprocessing.view, asked.picture.pixels)
    params = replace(asked.params, amounts=tuple(arrays["amounts"].tolist()))  # of a cancelled run some
    distances = list(zip(asked.params.sites, arrays["distance"], strict=True))
    if "probability" not in arrays:
        return Film(photo, params, distances, [], [])
    classes = top_classes(asked, result)
    shares = [(network.readable_name(number), arrays["probability"][:, number]) for number in classes]
    rows = zip(arrays["label"].tolist(), arrays["probability"].max(1).tolist(), strict=True)
    answers = [f"{network.readable_name(label)} {100 * share:.1f} %" for label, share in rows]
    return Film(photo, params, distances, shares, answers)
