"""What transformers' networks for pictures answer: class scores, boxes or a class map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Task:
    """A task of transformers' networks.

    `kind`: as in `Card.task`. `ending`: of the names of its classes. `mapping`: transformers' table of these by configuration.
    `answer`: what a network returns, from the record that transformers' own pass returns.
    """

    kind: str
    ending: str
    mapping: str
    answer: Callable[[Any], Any]


def _logits(record: Any) -> Tensor:
    return record.logits


def _boxes(record: Any) -> dict[str, Tensor]:
    return {"logits": record.logits, "pred_boxes": record.pred_boxes}


def _map_of_masks(record: Any) -> Tensor:
    """The class map `[N classes h w]` of masks with class scores: logarithms of the sum, over all queries, of the class's
    probability times the mask's (Cheng et al. 2021, section 3.4). Their softmax is each class's share of that sum.

    transformers labels each cell with the largest sum, after it resized the masks.
    """
    classes = record.class_queries_logits.softmax(-1)[..., :-1]  # without "no object": [N queries classes]
    masks = record.masks_queries_logits.sigmoid()  # [N queries h w]
    sums = torch.einsum("nqc,nqhw->nchw", classes, masks)
    return sums.clamp_min(torch.finfo(sums.dtype).tiny).log()


CLASSIFICATION = Task("classification", "ForImageClassification", "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING", _logits)
TASKS = (
    CLASSIFICATION,
    Task("detection", "ForObjectDetection", "MODEL_FOR_OBJECT_DETECTION_MAPPING", _boxes),
    Task("segmentation", "ForSemanticSegmentation", "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING", _logits),
    Task("segmentation", "ForUniversalSegmentation", "MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING", _map_of_masks),
    Task("segmentation", "ForInstanceSegmentation", "MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING", _map_of_masks),
)
_OTHERS = ("OneFormer", "RfDetr", "Videomt")  # which also take a text, or several frames, or score masks otherwise


def task_of(architecture: str) -> Task | None:
    """The task of a class of transformers, "" for a classifier; None if it is another."""
    if not architecture:
        return CLASSIFICATION
    known = next((task for task in TASKS if task.ending in architecture), None)
    return None if known and known.answer is _map_of_masks and architecture.startswith(_OTHERS) else known
