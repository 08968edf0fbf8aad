"""Prediction of an embedding: the photos whose vectors are nearest to that of a photo."""

from __future__ import annotations

from dataclasses import replace

import torch

from vizapp.engine.trace.output_scale import class_scores
from vizapp.errors import VizError
from vizapp.media.bundled import open_digits, open_samples, open_shapes
from vizapp.media.source import Source
from vizapp.methods.base import Job, Question, Result
from vizapp.methods.neighbours import NeighbourParams, neighbours
from vizapp.methods.photo_features import default_site
from vizapp.methods.predict.params import PredictParams
from vizapp.zoo.network import Network


def embedding(question: Question, params: PredictParams, job: Job) -> Result:
    """The photo's vector, and the photos of a folder whose vectors have the largest cosine with it; see `predict`."""
    network = question.network
    if params.crops != "one":
        raise VizError(
            f"{network.name} returns an embedding, which is computed of one crop; leave out 'crops'.",
            code="one-crop-only",
        )
    with torch.no_grad():
        output = network.module(network.prepare(question.require_picture()))
    vector = class_scores(network.heads[0].pick(output), 1)
    assert vector is not None, "`find_heads` saw it"
    among = NeighbourParams(_site(network), params.top, metric="cosine")
    found = neighbours(replace(question, folder=question.folder or _bundled(network), unit=None), among, job)
    names = ", ".join(str(row["path"]) for row in found.table)
    told = {
        "crops": "the centre crop",
        "answer": f"most like {names}",
        "output": f"An embedding: a vector of {vector.shape[1]} numbers, without classes. Photos are compared by the cosine.",
    }
    return replace(
        found,
        method="predict",
        arrays={"embedding": vector[0].float().cpu().numpy()} | found.arrays,
        facts=told | found.facts,
        table=tuple(row | {"cosine": 1 - row["distance"]} for row in found.table),
    )


def _site(network: Network) -> str:
    """The layer that holds the vector that the network returns."""
    made = [site for site in network.sites if site.name in network.heads[0].layers and not site.is_map]
    return (made[-1] if made else default_site(network)).name


def _bundled(network: Network) -> Source:
    """The bundled photos that suit the network."""
    if network.input_size[0] == 1:
        return open_digits()
    return open_shapes() if network.facts.get("data") == "shapes" else open_samples()
