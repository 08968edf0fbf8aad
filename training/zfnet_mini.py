"""Train `vizapp/zfnet-mini` on Caltech-101 from scratch and write it to `assets/` with its model card.

    python training/zfnet_mini.py --data caltech101 --out assets

`--data` holds `train/CLASS/*.jpg` and `test/CLASS/*.jpg`. The photos are those of
https://data.caltech.edu/records/mzrjq-6wc02 (137 MB, CC BY 4.0; `101_ObjectCategories` without `BACKGROUND_Google`),
reduced to a shorter side of at most 192 pixels. The split is our own: sort all 8,677 photos by class name (ignoring case), then
by file name. The first photo and every third after it are for testing (2,893), the other 5,784 for training. There is no
validation set: the test accuracy is printed during training, and the weights are those after the last epoch.

After every epoch a checkpoint is written to `--work`, from which the same command resumes. All randomness is seeded. The last
line of output is the accuracy of the written file.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from card import half_precision, per_class_table, write_card
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package runs from the checkout
import vizapp
from vizapp.zoo.classic.zfnet import ZFNet, fold_batch_norm, zfnet_mini

SIDE, EVALUATION_SIDE = 160, 176  # crop, and short side before the crop
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters."""

    epochs: int = 70
    batch: int = 64
    rate: float = 2e-3
    decay: float = 0.05
    smoothing: float = 0.1
    average: float = 0.998  # of the exponential moving average of the weights, per step
    seed: int = 0


def read_split(folder: Path) -> tuple[list[np.ndarray], Tensor, list[str]]:
    """Pictures (RGB uint8 `[H W 3]`), labels `[N]` and class names of `folder/CLASS/*.jpg`."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    pictures, labels = [], []
    for index, name in enumerate(classes):
        for path in sorted((folder / name).glob("*.jpg")):
            photo = cv2.imread(str(path))
            assert photo is not None, path
            pictures.append(cv2.cvtColor(photo, cv2.COLOR_BGR2RGB))
            labels.append(index)
    return pictures, torch.tensor(labels), classes


def normalise(batch: np.ndarray) -> Tensor:
    """The normalized batch `[N 3 H W]` of uint8 pictures `[N H W 3]`, channels-last."""
    scaled = (batch.astype(np.float32) / 255 - MEAN) / STD
    return torch.from_numpy(scaled).permute(0, 3, 1, 2)


def centre_crop(picture: np.ndarray, margin: int = 0) -> np.ndarray:
    """The evaluation crop: short side 176, centre 160 x 160, and at most 8 pixels around it."""
    height, width = picture.shape[:2]
    scale = EVALUATION_SIDE / min(height, width)
    size = (max(SIDE, round(width * scale)), max(SIDE, round(height * scale)))
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = (picture.shape[0] - SIDE) // 2, (picture.shape[1] - SIDE) // 2
    return picture[top - margin : top + SIDE + margin, left - margin : left + SIDE + margin]


def write_squares(tests: Path, out: Path) -> None:
    """Write the middle 176 x 176 of each test photo, resized as in training: vizapp resizes nothing and crops the same."""
    pictures, labels, classes = read_split(tests)
    for number, (picture, label) in enumerate(zip(pictures, labels.tolist(), strict=True)):
        (out / classes[label]).mkdir(parents=True, exist_ok=True)
        square = centre_crop(picture, (EVALUATION_SIDE - SIDE) // 2)
        cv2.imwrite(str(out / classes[label] / f"{number:04}.png"), cv2.cvtColor(square, cv2.COLOR_RGB2BGR))


def random_crop(picture: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    """A crop of random area, aspect ratio, position, rotation and mirroring, in one warp."""
    height, width = picture.shape[:2]
    area = height * width * dice.uniform(0.3, 1.0)
    aspect = math.exp(dice.uniform(-0.35, 0.35))
    w, h = min(width, math.sqrt(area * aspect)), min(height, math.sqrt(area / aspect))
    x, y = dice.uniform(0, width - w) + w / 2, dice.uniform(0, height - h) + h / 2
    angle = math.radians(dice.normal(0, 8))
    mirror = -1 if dice.random() < 0.5 else 1
    cos, sin = math.cos(angle), math.sin(angle)
    sx, sy = w / SIDE * mirror, h / SIDE
    linear = np.array([[cos * sx, -sin * sy], [sin * sx, cos * sy]])
    offset = np.array([x, y]) - linear @ np.array([SIDE / 2, SIDE / 2])
    return cv2.warpAffine(
        picture,
        np.hstack([linear, offset[:, None]]),
        (SIDE, SIDE),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )


def jitter(batch: Tensor, dice: torch.Generator) -> Tensor:
    """Random brightness, contrast, saturation and colour cast per picture; in some, a random rectangle is erased."""
    n = len(batch)

    def around_one(spread: float) -> Tensor:
        return 1 + spread * (2 * torch.rand(n, 1, 1, 1, generator=dice) - 1)

    mean = batch.mean((1, 2, 3), keepdim=True)
    batch = (batch - mean) * around_one(0.4) + mean + 0.8 * (around_one(1.0) - 1)
    grey = batch.mean(1, keepdim=True)
    saturation = around_one(0.5) * (torch.rand(n, 1, 1, 1, generator=dice) > 0.08)
    batch = (batch - grey) * saturation + grey + 0.1 * torch.randn(n, 3, 1, 1, generator=dice)
    for i in torch.nonzero(torch.rand(n, generator=dice) < 0.25).flatten().tolist():
        h, w = (int(v) for v in torch.randint(20, 70, (2,), generator=dice))
        y, x = (int(torch.randint(0, SIDE - side, (1,), generator=dice)) for side in (h, w))
        batch[i, :, y : y + h, x : x + w] = torch.randn(3, 1, 1, generator=dice)
    return batch


def mix(batch: Tensor, targets: Tensor, dice: torch.Generator, share: float) -> tuple[Tensor, Tensor]:
    """Mixup or cutmix of the batch with itself in random order, for a `share` of the batches."""
    kind = float(torch.rand(1, generator=dice))
    if kind > share:
        return batch, targets
    order = torch.randperm(len(batch), generator=dice)
    keep = float(torch._sample_dirichlet(torch.tensor([0.4, 0.4]), generator=dice)[0])
    if kind < share / 2:
        batch = keep * batch + (1 - keep) * batch[order]
    else:
        side = int(SIDE * math.sqrt(1 - keep))
        y, x = (int(torch.randint(0, SIDE - side + 1, (1,), generator=dice)) for _ in range(2))
        batch = batch.clone()
        batch[:, :, y : y + side, x : x + side] = batch[order, :, y : y + side, x : x + side]
        keep = 1 - (side / SIDE) ** 2
    return batch, keep * targets + (1 - keep) * targets[order]


@torch.inference_mode()
def predictions(net: ZFNet, pictures: list[np.ndarray]) -> Tensor:
    """Most probable class `[N]` of each picture's evaluation crop."""
    net.eval()
    crops = np.stack([centre_crop(picture) for picture in pictures])
    return torch.cat([net(normalise(crops[i : i + 128])).argmax(1) for i in range(0, len(crops), 128)])


def averaged(net: ZFNet, average: dict[str, Tensor], classes: int) -> ZFNet:
    """A copy of the network with the averaged weights."""
    copy = zfnet_mini(classes, batch_norm=True).to(memory_format=torch.channels_last)
    copy.load_state_dict(average)
    return copy


def train(
    pictures: list[np.ndarray], labels: Tensor, tests: list[np.ndarray], answers: Tensor, recipe: Recipe, work: Path
) -> ZFNet:
    """The network with averaged weights after `recipe.epochs`; resumes from `work/last.pt` if it exists.

    Args:
        pictures: The training pictures, uint8 `[H W 3]`.
        labels: Their classes `[N]`.
        tests: The test pictures, for the accuracy that is printed.
        answers: Their classes.
        recipe: Hyperparameters.
        work: Folder for checkpoints.
    """
    classes = int(labels.max()) + 1
    torch.manual_seed(recipe.seed)
    net = zfnet_mini(classes, batch_norm=True).to(memory_format=torch.channels_last)
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": recipe.decay}, {"params": others, "weight_decay": 0.0}], lr=recipe.rate
    )
    steps = len(pictures) // recipe.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.rate, total_steps=recipe.epochs * steps, pct_start=0.15, final_div_factor=1e3
    )
    average = {key: value.clone() for key, value in net.state_dict().items()}
    first, checkpoint = 0, work / "last.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        average, first = state["average"], state["epoch"]
        print(f"going on after epoch {first}", flush=True)
    for epoch in range(first, recipe.epochs):
        # One generator per epoch, so that a resumed run sees the same data as an uninterrupted one.
        numpy_dice = np.random.default_rng((recipe.seed, epoch))
        torch.manual_seed(recipe.seed * 100_003 + epoch)
        dice = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch)
        order, total, start = numpy_dice.permutation(len(pictures)), 0.0, time.time()
        mixing = 0.5 if epoch < recipe.epochs * 0.9 else 0.0  # no mixing in the last epochs
        net.train()
        for step in range(steps):
            chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
            batch = jitter(normalise(np.stack([random_crop(pictures[i], numpy_dice) for i in chosen])), dice)
            smooth = F.one_hot(labels[chosen], classes) * (1 - recipe.smoothing) + recipe.smoothing / classes
            batch, targets = mix(batch, smooth, dice, mixing)
            with torch.autocast("cpu", torch.bfloat16):
                scores = net(batch.contiguous(memory_format=torch.channels_last))
            loss = -(targets * scores.float().log_softmax(1)).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
            pace = min(recipe.average, (1 + epoch * steps + step) / (10 + epoch * steps + step))
            for key, value in net.state_dict().items():
                if value.is_floating_point():
                    average[key].lerp_(value, 1 - pace)
                else:
                    average[key].copy_(value)
        line = f"epoch {epoch + 1:3d}/{recipe.epochs}  loss {total / steps:.3f}  {time.time() - start:.0f} s"
        if (epoch + 1) % 5 == 0 or epoch + 1 == recipe.epochs:
            accuracy = (predictions(averaged(net, average, classes), tests) == answers).float().mean()
            line += f"  test {100 * accuracy:.1f} %"
        print(line, flush=True)
        state = {
            "net": net.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "average": average,
            "epoch": epoch + 1,
        }
        torch.save(state, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").replace(checkpoint)
    return averaged(net, average, classes)


def by_vizapp(weights: Path, tests: Path) -> str:
    """What `vizapp evaluate` says about the test photos as they are."""
    network = vizapp.load("vizapp/zfnet-mini", weights=str(weights), device="cpu")
    return vizapp.ask("evaluate", network, folder=tests).facts["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("assets"))
    parser.add_argument("--work", type=Path, default=Path("build/zfnet-mini"))
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--squares", type=Path, help="only write the test photos there, resized as in training")
    options = parser.parse_args()
    if options.squares:
        write_squares(options.data / "test", options.squares)
        return
    recipe = Recipe(epochs=options.epochs, seed=options.seed)
    options.work.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    pictures, labels, classes = read_split(options.data / "train")
    tests, answers, _ = read_split(options.data / "test")
    trained = train(pictures, labels, tests, answers, recipe, options.work)
    shipped = half_precision(fold_batch_norm(trained, zfnet_mini(len(classes))), options.out / "zfnet-mini.safetensors")
    answers_given = predictions(shipped, tests)
    (options.out / "zfnet-mini.classes.txt").write_text("\n".join(classes) + "\n")
    write_card(
        options.out / "zfnet-mini.md",
        title="vizapp/zfnet-mini",
        summary="A small ZFNet (Zeiler & Fergus 2013) for 160 x 160 photos of 101 object classes.",
        rows={
            "data": f"Caltech-101 (Li, Andreeto, Ranzato, Perona; CC BY 4.0), {len(pictures)} training and {len(tests)} "
            "test photos, 101 classes, no background class",
            "network": "conv 64@7x7/2, pool 3x3/2, conv 160@5x5/2, pool 3x3/2, conv 320, 320, 256@3x3, pool 3x3/2, "
            "linear 384, 384, 101; ReLU throughout; batch norm in training only, folded into the convolutions",
            "recipe": f"from scratch, {recipe.epochs} epochs, batch {recipe.batch}, AdamW, one-cycle rate {recipe.rate}, decay "
            f"{recipe.decay}, label smoothing {recipe.smoothing}, random crops, rotation, mirror image, colour jitter, "
            f"erasing, mixup and cutmix, averaged weights, bfloat16, seed {recipe.seed}: `training/zfnet_mini.py`",
            "preprocessing": "RGB, short side 176 (OpenCV's area interpolation), centre crop 160, mean (0.485, 0.456, 0.406), "
            "std (0.229, 0.224, 0.225)",
            "weights": "float16 safetensors, "
            f"{(options.out / 'zfnet-mini.safetensors').stat().st_size / 1e6:.1f} MB; same licence as the project",
            "`vizapp evaluate`": f"{by_vizapp(options.out / 'zfnet-mini.safetensors', options.data / 'test')}, of the test "
            "photos resized with Pillow, as everywhere in vizapp; training and the numbers below resize with OpenCV",
        },
        accuracy=float((answers_given == answers).float().mean()),
        table=per_class_table(answers, answers_given, classes),
    )
    print(f"test accuracy of the shipped file: {100 * (answers_given == answers).float().mean():.2f} %")


if __name__ == "__main__":
    main()
