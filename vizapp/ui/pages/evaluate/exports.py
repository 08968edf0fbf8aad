"""The downloads of Evaluate: answers per photo, rates per class, arrays."""

from __future__ import annotations

from functools import partial

from vizapp.gallery.photo_table import FILE, open_table
from vizapp.methods.base import Result
from vizapp.methods.tables import frame_to_csv
from vizapp.ui.inputs.datasets import Collection
from vizapp.ui.session import downloads
from vizapp.ui.session.downloads import File
from vizapp.zoo.network import Network


def row(network: Network, photos: Collection, result: Result) -> None:
    """Draw the buttons."""
    assert result.store is not None
    name = downloads.file_name("evaluate", network.name, photos.title)
    files = [
        File("Photos CSV", f"{name}-photos.csv", "text/csv", partial(photos_csv, network, result)),
        File("Classes CSV", f"{name}-classes.csv", "text/csv", result.documents["classes.csv"].encode),
        File("Labels CSV", f"{name}-labels.csv", "text/csv", result.documents["labels.csv"].encode),
        File("Photos Parquet", f"{name}.parquet", "application/octet-stream", (result.store / FILE).read_bytes),
    ]
    downloads.row("evaluate", name, {}, result.arrays, files)


def photos_csv(network: Network, result: Result) -> bytes:
    """CSV with a row per photo: the right class, if it is known, and the most probable ones with their probabilities."""
    assert result.store is not None
    table = open_table(result.store)
    frame = table.frame(["path", "label", "true", "true_probability"])
    frame["right"] = [network.class_name(number) if number >= 0 else "" for number in frame["true"]]
    classes, shares = table.matrix("classes"), table.matrix("probabilities")
    for place in range(classes.shape[1]):
        frame[f"class {place + 1}"] = [network.class_name(number) for number in classes[:, place].tolist()]
        frame[f"probability {place + 1}"] = shares[:, place]
    return frame_to_csv(frame)
