"""The downloads of the page During training."""

from __future__ import annotations

from vizapp.media.film import to_gif, to_webm
from vizapp.media.transforms import resize
from vizapp.methods.base import Result
from vizapp.methods.evolution_film import HEIGHT, PER_SECOND, WIDTH, Film
from vizapp.ui.pages.evolution.series_runs import SeriesRequest
from vizapp.ui.session import downloads, reports
from vizapp.ui.session.downloads import File


def row(asked: SeriesRequest, result: Result) -> None:
    """Draw the buttons."""
    name = downloads.file_name("evolution", asked.maker.network.name, asked.maker.site.name)
    film = Film(result, asked.maker.site.name)
    files = [
        *downloads.documents(name, result.documents),
        File(
            "Film GIF",
            f"{name}.gif",
            "image/gif",
            lambda: to_gif([resize(frame, HEIGHT // 2, WIDTH // 2, "area") for frame in film], PER_SECOND),
        ),
        File("Film WebM", f"{name}.webm", "video/webm", lambda: to_webm(film, PER_SECOND)),
    ]
    reports.offer(result)
    downloads.row(
        "evolution", name, {panel.title.capitalize(): panel.pixels for panel in result.panels}, result.arrays, files
    )
