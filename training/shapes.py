"""Train the three networks of shapes and write them to `assets/` with their cards: a segmenter, a detector and an embedding.

    python training/shapes.py --out assets

The photos are drawn by `vizapp/media/shapes.py`, so nothing is downloaded. Takes about four minutes of one processor core;
`--only segmenter` trains one of them. All randomness is seeded. The numbers printed are those of the written files on photos
that were drawn with other seeds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from card import half_precision, write_facts
from torch import Tensor, nn
from torchvision.ops import box_iou, generalized_box_iou_loss, sigmoid_focal_loss

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package runs from the checkout
from vizapp.media.shapes import MORE_SHAPES, SHAPES, SIDE, ShapesPhoto, draw_shapes
from vizapp.zoo.bundled import SHAPES_INPUT
from vizapp.zoo.classic.shape_networks import ShapesDetector, ShapesEmbedding, ShapesSegmenter, fold_batch_norm

KNOWN = (*SHAPES, "cross")  # the shapes that the embedding is trained on; the others are new to it
HELD_OUT = 5_000_000  # the first seed of photos that decided nothing: designs were chosen on others (from 1,000,000 on)


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters."""

    photos: int  # drawn for training
    steps: int
    batch: int
    rate: float
    decay: float = 0.01
    seed: int = 0


RECIPES = {
    "segmenter": Recipe(photos=1600, steps=600, batch=16, rate=4e-3),
    "detector": Recipe(photos=1600, steps=700, batch=16, rate=4e-3),
    "embedding": Recipe(photos=1600, steps=500, batch=24, rate=4e-3),
}


def network_input(photos: Sequence[ShapesPhoto]) -> Tensor:
    """The photos as network input `[N 3 H W]`."""
    return SHAPES_INPUT.normalize([photo.pixels for photo in photos], torch.device("cpu"), torch.float32)


def batches(count: int, recipe: Recipe) -> Iterator[tuple[np.ndarray, int, bool]]:
    """For each step the numbers of its photos, quarter turns and whether it is mirrored."""
    dice = np.random.default_rng(recipe.seed)
    order = np.concatenate([dice.permutation(count) for _ in range(1 + recipe.steps * recipe.batch // count)])
    for step in range(recipe.steps):
        chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
        yield chosen, int(dice.integers(4)), bool(dice.integers(2))


def turned(maps: Tensor, turns: int, mirrored: bool) -> Tensor:
    """`[... H W]` turned by quarters and mirrored."""
    maps = torch.rot90(maps, turns, (-2, -1))
    return maps.flip(-1) if mirrored else maps


def train(
    net: nn.Module, pictures: Tensor, recipe: Recipe, loss_of: Callable[[Tensor, np.ndarray, int, bool], Tensor]
) -> nn.Module:
    """The network after `recipe.steps`; `loss_of(batch, numbers, turns, mirrored)` is the loss of turned photos."""
    net.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=recipe.steps, pct_start=0.2)
    start, total = time.process_time(), 0.0
    for step, (chosen, turns, mirrored) in enumerate(batches(len(pictures), recipe), 1):
        batch = turned(pictures[chosen], turns, mirrored)[:, np.random.default_rng(step).permutation(3)]  # colours
        loss = loss_of(batch.contiguous(memory_format=torch.channels_last), chosen, turns, mirrored)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.item()
        if step % 25 == 0:
            print(f"step {step}/{recipe.steps}  loss {total / 25:.3f}  {time.process_time() - start:.0f} s", flush=True)
            total = 0.0
    return net.eval()


def segmenter(recipe: Recipe) -> tuple[nn.Module, nn.Module]:
    """The trained network, and one without batch norm that its weights can go to."""
    photos = [draw_shapes(seed) for seed in range(recipe.photos)]
    labels = torch.from_numpy(np.stack([photo.labels for photo in photos])).long()
    net = ShapesSegmenter(1 + len(SHAPES), batch_norm=True)
    weight = torch.tensor([0.4] + [1.0] * len(SHAPES))  # most of a photo is background

    def loss(batch: Tensor, chosen: np.ndarray, turns: int, mirrored: bool) -> Tensor:
        return F.cross_entropy(net(batch), turned(labels[chosen], turns, mirrored), weight)

    return train(net, network_input(photos), recipe, loss), ShapesSegmenter(1 + len(SHAPES))


@torch.inference_mode()
def judge_segmenter(net: nn.Module) -> dict[str, str]:
    """Mean intersection over union, and that of each class, over 300 held-out photos together."""
    photos = [draw_shapes(HELD_OUT + number) for number in range(300)]
    found = torch.cat([net(network_input(photos[i : i + 50])).argmax(1) for i in range(0, 300, 50)]).numpy()
    truth = np.stack([photo.labels for photo in photos])
    classes = ("background", *SHAPES)
    each = [
        float(((found == n) & (truth == n)).sum() / ((found == n) | (truth == n)).sum()) for n in range(len(classes))
    ]
    return {
        "mean IoU": f"{100 * np.mean(each):.1f} % over 300 held-out photos",
        "IoU of each class": ", ".join(f"{name} {100 * one:.1f} %" for name, one in zip(classes, each, strict=True)),
        "cells that are right": f"{100 * (found == truth).mean():.2f} %",
    }


def targets(photo: ShapesPhoto, stride: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """For each cell the class (-1 for none) `[h w]` and the box `[4 h w]` that it should give.

    A cell belongs to the smallest box whose middle part, half as wide and high, holds the middle of the cell.
    """
    count = side // stride
    y, x = (np.mgrid[:count, :count] + 0.5) * stride
    classes, boxes = np.full((count, count), -1), np.zeros((4, count, count))
    sizes = (photo.boxes[:, 2] - photo.boxes[:, 0]) * (photo.boxes[:, 3] - photo.boxes[:, 1])
    for number in np.argsort(-sizes, kind="stable"):  # small ones last, over the large ones
        x1, y1, x2, y2 = photo.boxes[number]
        wide, high = max(x2 - x1, 2 * stride) / 4, max(y2 - y1, 2 * stride) / 4
        inside = (np.abs(x - (x1 + x2) / 2) <= wide) & (np.abs(y - (y1 + y2) / 2) <= high)
        classes[inside], boxes[:, inside] = photo.kinds[number], photo.boxes[number][:, None]
    return classes, boxes


def detector(recipe: Recipe) -> tuple[nn.Module, nn.Module]:
    """As `segmenter`."""
    photos = [draw_shapes(seed) for seed in range(recipe.photos)]
    net = ShapesDetector(len(SHAPES), batch_norm=True)
    nn.init.constant_(net.classes.bias, -4.0)  # type: ignore[arg-type]  # boxes are rare
    made = [targets(photo, net.stride, SIDE) for photo in photos]
    classes = torch.from_numpy(np.stack([one for one, _ in made]))
    boxes = torch.from_numpy(np.stack([one for _, one in made])).float()

    def loss(batch: Tensor, chosen: np.ndarray, turns: int, mirrored: bool) -> Tensor:
        scores, sides = net.maps(batch)
        truth = turned(classes[chosen], turns, mirrored)
        there = truth >= 0
        wanted = F.one_hot(truth + 1, len(SHAPES) + 1)[..., 1:].permute(0, 3, 1, 2).float()
        about_classes = sigmoid_focal_loss(scores, wanted, alpha=0.4, reduction="sum") / there.sum().clamp_min(1)
        corners = turned_boxes(turned(boxes[chosen], turns, mirrored), turns, mirrored)
        found = net.boxes(sides.clamp(-3, 3)).permute(0, 2, 3, 1)[there]
        return about_classes + generalized_box_iou_loss(found, corners.permute(0, 2, 3, 1)[there], reduction="mean")

    return train(net, network_input(photos), recipe, loss), ShapesDetector(len(SHAPES))


def turned_boxes(boxes: Tensor, turns: int, mirrored: bool) -> Tensor:
    """The corners `[N 4 ...]` of boxes in photos that are turned as by `turned`."""
    x1, y1, x2, y2 = boxes.unbind(1)
    for _ in range(turns):  # anticlockwise: (x, y) goes to (y, SIDE - x)
        x1, y1, x2, y2 = y1, SIDE - x2, y2, SIDE - x1
    if mirrored:
        x1, x2 = SIDE - x2, SIDE - x1
    return torch.stack([x1, y1, x2, y2], 1)


@torch.inference_mode()
def judge_detector(net: nn.Module) -> dict[str, str]:
    """Average precision over 300 held-out photos."""
    photos = [draw_shapes(HELD_OUT + number) for number in range(300)]
    found = [one for i in range(0, 300, 50) for one in net(network_input(photos[i : i + 50]))]
    levels = np.arange(0.5, 0.96, 0.05)
    each = np.array([[average_precision(found, photos, kind, iou) for iou in levels] for kind in range(len(SHAPES))])
    named = ", ".join(f"{name} {100 * one:.1f} %" for name, one in zip(SHAPES, each[:, 0], strict=True))
    return {
        "AP at IoU 0.5": f"{100 * each[:, 0].mean():.1f} % over 300 held-out photos",
        "AP at IoU 0.5 of each class": named,
        "AP averaged over IoU 0.5 to 0.95": f"{100 * each.mean():.1f} %",
    }


def average_precision(
    found: Sequence[dict[str, Tensor]], photos: Sequence[ShapesPhoto], kind: int, least: float
) -> float:
    """The area under the precision, made monotonic, over the recall of one class (Everingham et al. 2010, section 4.2)."""
    scores, right, total = [], [], 0
    for one, photo in zip(found, photos, strict=True):
        truth = torch.from_numpy(photo.boxes[photo.kinds == kind]).float()
        total += len(truth)
        mine = one["labels"] == kind
        overlap = box_iou(one["boxes"][mine], truth)
        free = torch.ones(len(truth), dtype=torch.bool)
        for score, row in zip(one["scores"][mine], overlap, strict=True):  # the most certain first
            best = int(row.argmax()) if len(row) else -1
            hit = best >= 0 and bool(row[best] >= least) and bool(free[best])
            if hit:
                free[best] = False
            scores.append(float(score))
            right.append(hit)
    hits = np.cumsum(np.array(right)[np.argsort(-np.array(scores), kind="stable")])
    precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    return float((precision * np.diff(hits, prepend=0)).sum() / total)


def one_shape_each(first: int, count: int, shapes: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Photos of one shape, in turn: network input `[N 3 H W]` and the indices of the shapes `[N]`."""
    kinds = [number % len(shapes) for number in range(count)]
    photos = [draw_shapes(first + n, most=1, shapes=shapes, kind=kind) for n, kind in enumerate(kinds)]
    return network_input(photos), torch.tensor(kinds)


def embedding(recipe: Recipe) -> tuple[nn.Module, nn.Module]:
    """As `segmenter`. The loss is a softmax of cosines with a vector for each shape (Zhai & Wu 2019), which is then dropped."""
    pictures, kinds = one_shape_each(0, recipe.photos, KNOWN)
    net = ShapesEmbedding(batch_norm=True)
    proxies = nn.Parameter(torch.randn(len(KNOWN), 32))
    net.register_parameter("proxies", proxies)  # trained with the network

    def loss(batch: Tensor, chosen: np.ndarray, turns: int, mirrored: bool) -> Tensor:
        return F.cross_entropy(net(batch) @ F.normalize(proxies, dim=1).T / 0.1, kinds[chosen])

    return train(net, pictures, recipe, loss), ShapesEmbedding()


@torch.inference_mode()
def judge_embedding(net: nn.Module) -> dict[str, str]:
    """Recall@1: how often the nearest other photo has the same shape, for the shapes of training and for new ones."""
    new = tuple(shape for shape in MORE_SHAPES if shape not in KNOWN)
    told = {}
    for name, shapes in (("recall@1", KNOWN), ("recall@1 of shapes that are new to it", new)):
        pictures, kinds = one_shape_each(HELD_OUT, 60 * len(shapes), shapes)
        vectors = torch.cat([net(pictures[i : i + 50]) for i in range(0, len(pictures), 50)])
        near = (vectors @ vectors.T).fill_diagonal_(-2).argmax(1)
        right = 100 * float((kinds[near] == kinds).float().mean())
        told[name] = f"{right:.1f} % of {len(kinds)} held-out photos of {', '.join(shapes)}"
    return told


SUMMARIES = {
    "segmenter": "A U-Net that says of each pixel of a 96 x 96 photo which of four shapes it belongs to, if any.",
    "detector": "A one-stage detector without anchors that puts boxes around four shapes in a 96 x 96 photo.",
    "embedding": "A network that gives photos of the same shape vectors near each other, whatever colour, place and size.",
}
LAYERS = {
    "segmenter": "convolutions 3x3 with ReLU: 16/2, 20, 40/2, 40, 56/2, 56, 56; twice enlarged (nearest), joined with the map "
    "of that size, and 40, 24; 1x1 to the classes, enlarged to the photo (bilinear)",
    "detector": "convolutions 3x3 with ReLU: 16/2, 24, 48/2, 48, 64/2, 64, 64; enlarged (nearest), joined with the map of that "
    "size, and 48; 1x1 to the classes (sigmoid) and to the sides; non-maximum suppression at IoU 0.5",
    "embedding": "convolutions 3x3 with ReLU: 16/2, 24, 48/2, 48, 64/2, 64; maximum over the map; linear 32; length 1",
}


def main() -> None:
    """Train; write weights, class names and cards; print what the written files reach."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("assets"))
    parser.add_argument("--only", choices=list(RECIPES))
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    options = parser.parse_args()
    torch.set_num_threads(1)  # fixed order of summation, so the weights are reproducible
    makers = {"segmenter": segmenter, "detector": detector, "embedding": embedding}
    judges = {"segmenter": judge_segmenter, "detector": judge_detector, "embedding": judge_embedding}
    for kind in [options.only] if options.only else list(RECIPES):
        recipe = Recipe(**{**vars(RECIPES[kind]), "seed": options.seed})
        torch.manual_seed(recipe.seed)
        trained, plain = makers[kind](recipe)
        fold_batch_norm(trained, plain)
        weights = options.out / f"shapes-{kind}.safetensors"
        reached = judges[kind](half_precision(plain, weights))
        facts = {
            "data": f"synthetic photos of shapes on patterned ground, {recipe.photos} for training: `vizapp/media/shapes.py`",
            "network": LAYERS[kind] + "; batch norm in training only, folded into the convolutions",
            "recipe": f"from scratch, {recipe.steps} steps of {recipe.batch} photos, AdamW, one-cycle rate {recipe.rate}, "
            f"decay {recipe.decay}, quarter turns, mirror images, exchanged colours, seed {recipe.seed}: `training/shapes.py`",
            "preprocessing": "RGB, short side 96, centre crop 96, mean 0.5, std 0.25",
            "weights": f"float16 safetensors, {weights.stat().st_size / 1e3:.0f} kB; same licence as the project",
        }
        write_facts(options.out / f"shapes-{kind}.md", f"vizapp/shapes-{kind}", SUMMARIES[kind], facts | reached)
        for name, value in reached.items():
            print(f"{kind}: {name} {value}", flush=True)


if __name__ == "__main__":
    main()
