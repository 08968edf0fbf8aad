"""The last step of every training script: half-precision weights and a model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Net = TypeVar("Net", bound=nn.Module)


def half_precision(net: Net, path: Path) -> Net:
    """Write the weights as float16 safetensors, and return the network with the weights of that file."""
    write_half(net.state_dict(), path)
    net.load_state_dict({key: value.float() for key, value in load_file(str(path)).items()})
    return net.eval()


def write_half(state: Mapping[str, Tensor], path: Path) -> None:
    """Write weights as float16 safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.half().contiguous() for key, value in state.items()}, str(path))
    path.chmod(0o644)  # safetensors makes files that only their owner can read


def per_class_table(answers: Tensor, given: Tensor, classes: list[str]) -> list[tuple[str, int, float]]:
    """Name, number of test pictures and accuracy of each class."""
    rows = []
    for index, name in enumerate(classes):
        of_class = answers == index
        rows.append((name, int(of_class.sum()), float((given[of_class] == index).float().mean())))
    return rows


def write_card(
    path: Path, title: str, summary: str, rows: dict[str, str], accuracy: float, table: list[tuple[str, int, float]]
) -> None:
    """Write a model card in Markdown.

    Args:
        path: The file.
        title: The name of the network.
        summary: A sentence about it.
        rows: Facts about data, training and preprocessing.
        accuracy: Top-1 accuracy on the test pictures, from 0 to 1.
        table: Name, number of test pictures and accuracy of each class.
    """
    total = sum(count for _, count, _ in table)
    average = sum(share for _, _, share in table) / len(table)
    reached = {
        "top-1 accuracy": f"{100 * accuracy:.2f} % of {total} test pictures",
        "mean over classes": f"{100 * average:.2f} %",
    }
    write_facts(path, title, summary, rows | reached)
    lines = ["", "| class | test pictures | correct |", "|---|---|---|"]
    lines += [f"| {name} | {count} | {100 * share:.0f} % |" for name, count, share in table]
    with path.open("a") as card:
        card.write("\n".join(lines) + "\n")


def write_facts(path: Path, title: str, summary: str, rows: Mapping[str, str]) -> None:
    """Write a model card in Markdown that is a table of facts."""
    lines = [f"# {title}", "", summary, "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in rows.items()]
    path.write_text("\n".join(lines) + "\n")
