"""Train `vizapp/lenet5-digits` on scikit-learn's handwritten digits and write it to `assets/` with its model card.

The weights after some epochs go to `assets/lenet5-digits-training`, for the page "During training". They are averaged like
those of the network itself, so the last of these files is the network.

    python training/lenet5_digits.py --out assets

The digits come with scikit-learn, so nothing is downloaded. Every ten epochs a checkpoint is written to `--work`, from which
the same command resumes. All randomness is seeded. The last line of output is the accuracy of the written file.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from card import half_precision, per_class_table, write_card, write_half
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package runs from the checkout
from vizapp.media.samples import digit_pixels
from vizapp.zoo.bundled import DIGITS
from vizapp.zoo.classic.lenet import LeNet5

SPLIT_SEED, TEST_SHARE = 0, 0.25
CLASSES = [str(digit) for digit in range(10)]
KEPT = (1, 2, 5, 10, 20, 30, 40, 64, 100)  # epochs whose weights are kept, and the last


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters. `shift` in pixels of 28, `rotation` in degrees, `scale` and `shear` as fractions."""

    epochs: int = 150
    batch: int = 64
    rate: float = 3e-3
    decay: float = 0.02
    smoothing: float = 0.05
    average: float = 0.99  # of the exponential moving average of the weights, per step
    shift: float = 2.0
    rotation: float = 10.0
    scale: float = 0.1
    shear: float = 0.1
    seed: int = 0


def read_digits() -> tuple[Tensor, Tensor]:
    """All 1,797 digits as network input `[N 1 28 28]`, and their labels `[N]`."""
    digits = load_digits()
    pixels = [digit_pixels(image) for image in digits.images]
    return DIGITS.normalize(pixels, torch.device("cpu"), torch.float32), torch.from_numpy(digits.target).long()


def split(labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Indices of training and held-out digits: a fixed quarter of each class is held out."""
    everything = np.arange(len(labels))
    train, test = train_test_split(everything, test_size=TEST_SHARE, random_state=SPLIT_SEED, stratify=labels.numpy())
    return np.sort(train), np.sort(test)


def bend(batch: Tensor, recipe: Recipe, dice: torch.Generator) -> Tensor:
    """The digits `[N 1 28 28]`, each randomly shifted, rotated, scaled and sheared on a black background."""

    def around_zero(spread: float) -> Tensor:
        return spread * (2 * torch.rand(len(batch), generator=dice) - 1)

    angle = around_zero(math.radians(recipe.rotation))
    scale, shear = 1 + around_zero(recipe.scale), around_zero(recipe.shear)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    shift = 2 * recipe.shift / batch.shape[-1]  # in units of grid_sample, where a picture is 2 wide
    rows = [torch.stack([cos, shear - sin, around_zero(shift)], 1), torch.stack([sin, cos, around_zero(shift)], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(batch.shape), align_corners=False)
    black = -DIGITS.mean[0] / DIGITS.std[0]
    return F.grid_sample(batch - black, grid, padding_mode="zeros", align_corners=False) + black


@torch.inference_mode()
def predictions(net: LeNet5, pictures: Tensor) -> Tensor:
    """Most probable digit `[N]` of each picture."""
    return net.eval()(pictures).argmax(1)


def train(pictures: Tensor, labels: Tensor, recipe: Recipe, work: Path, series: Path) -> LeNet5:
    """The network with averaged weights after `recipe.epochs`; resumes from `work/last.pt` if it exists.

    The averaged weights after the epochs `KEPT` and after the last go to the folder `series`.
    """
    torch.manual_seed(recipe.seed)
    net = LeNet5(len(CLASSES))
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    steps = len(pictures) // recipe.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=recipe.epochs * steps)
    average = {key: value.clone() for key, value in net.state_dict().items()}
    first, checkpoint, start = 0, work / "last.pt", time.time()
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        average, first = state["average"], state["epoch"]
        print(f"going on after epoch {first}", flush=True)
    net.train()
    for epoch in range(first, recipe.epochs):
        # One generator per epoch, so that a resumed run sees the same data as an uninterrupted one.
        dice = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch)
        order, total = torch.randperm(len(pictures), generator=dice), 0.0
        for step in range(steps):
            chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
            scores = net(bend(pictures[chosen], recipe, dice))
            loss = F.cross_entropy(scores, labels[chosen], label_smoothing=recipe.smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
            pace = min(recipe.average, (1 + epoch * steps + step) / (10 + epoch * steps + step))
            for key, value in net.state_dict().items():
                average[key].lerp_(value, 1 - pace)
        if epoch + 1 in (*KEPT, recipe.epochs):
            write_half(average, series / f"epoch-{epoch + 1:03d}.safetensors")
        if (epoch + 1) % 10 == 0 or epoch + 1 == recipe.epochs:
            print(
                f"epoch {epoch + 1:3d}/{recipe.epochs}  loss {total / steps:.3f}  {time.time() - start:.0f} s",
                flush=True,
            )
            state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(),
                     "average": average, "epoch": epoch + 1}  # fmt: skip
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
    net.load_state_dict(average)
    return net


def main() -> None:
    """Train; write weights, class names and model card; print the accuracy of the written file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("assets"))
    parser.add_argument("--work", type=Path, default=Path("build/lenet5-digits"))
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    options = parser.parse_args()
    recipe = Recipe(epochs=options.epochs, seed=options.seed)
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # fixed order of summation, so the weights are reproducible
    pictures, labels = read_digits()
    ours, held_out = split(labels)
    trained = train(pictures[ours], labels[ours], recipe, options.work, options.out / "lenet5-digits-training")
    weights = options.out / "lenet5-digits.safetensors"
    given = predictions(half_precision(trained, weights), pictures[held_out])
    answers = labels[held_out]
    (options.out / "lenet5-digits.classes.txt").write_text("\n".join(CLASSES) + "\n")
    write_card(
        options.out / "lenet5-digits.md",
        title="vizapp/lenet5-digits",
        summary="LeNet-5 in its common modern form, with ReLU and max pooling (after LeCun et al. 1998), for 28 x 28 "
        "handwritten digits.",
        rows={
            "data": "scikit-learn's `load_digits` (UCI Optical Recognition of Handwritten Digits, Alpaydin & Kaynak; "
            f"CC BY 4.0), 8 x 8, enlarged to 28 x 28 (bicubic); {len(ours)} training and {len(held_out)} held-out "
            f"digits, stratified split of seed {SPLIT_SEED} (by the same 13 writers)",
            "network": "conv 6@5x5, max pool 2x2, conv 16@5x5, max pool 2x2, linear 120, 84, 10; ReLU throughout",
            "recipe": f"from scratch, {recipe.epochs} epochs, batch {recipe.batch}, AdamW, one-cycle rate "
            f"{recipe.rate}, decay {recipe.decay}, label smoothing {recipe.smoothing}, shifts up to "
            f"{recipe.shift:g} px, rotation up to {recipe.rotation:g} degrees, scale and shear up to "
            f"{100 * recipe.scale:g} %, averaged weights, seed {recipe.seed}: `training/lenet5_digits.py`",
            "preprocessing": f"luminance, white on black, short side 28, centre crop 28, mean {DIGITS.mean[0]}, "
            f"std {DIGITS.std[0]}",
            "weights": f"float16 safetensors, {weights.stat().st_size / 1e3:.0f} kB; same licence as the project",
        },
        accuracy=float((given == answers).float().mean()),
        table=per_class_table(answers, given, CLASSES),
    )
    print(f"test accuracy of the shipped file: {100 * (given == answers).float().mean():.2f} %")


if __name__ == "__main__":
    main()
