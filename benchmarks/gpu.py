"""All benchmarks of methods in a few minutes, with a table for the documentation; meant for a machine with a GPU.

Needs neither the app's packages nor the peers: what is not installed is left out. Each part has a time limit of its own, so
that one that hangs does not cost the others their turn. The table names the device, and what did not finish.

    python benchmarks/gpu.py [--out build/gpu.md]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = ["--networks", "vgg16", "resnet50", "squeezenet1_0", "googlenet"]
PARTS = {  # its script with options, and its limit in seconds: 6 minutes together
    "Occlusion, 784 positions, exact": (["occlusion.py", "--strides", "8", "--repeats", "2", *NETWORKS], 100),
    "Occlusion, 784 positions, bf16": (
        ["occlusion.py", "--strides", "8", "--repeats", "2", "--precision", "bf16", *NETWORKS],
        80,
    ),
    "Projections of 64 units": (["projection.py"], 50),
    "Gallery": (["gallery.py", "--networks", "resnet50", "alexnet", "--pictures", "194"], 60),
    "Dense prediction": (["dense.py"], 30),
    "Ideal inputs of 16 units": (["filters.py", "--layers", "resnet18:layer2.1", "vgg16:features.15"], 40),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/gpu.md"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    parts, failed = [f"# Benchmarks of {time.strftime('%Y-%m-%d')}\n"], []
    for title, (command, limit) in PARTS.items():
        started = time.perf_counter()
        text, ended = run(command, limit)
        failed += [] if ended == "done" else [title]
        seconds = time.perf_counter() - started
        parts.append(
            f"## {title}\n\n`benchmarks/{' '.join(command)}`: {ended} after {seconds:.0f} s\n\n```\n{text}```\n"
        )
        print(parts[-1], flush=True)
        options.out.write_text("\n".join(parts))
    print(f"Written to {options.out}." + (f" Not finished: {', '.join(failed)}." if failed else ""))
    return 1 if failed else 0


def run(command: list[str], limit: int) -> tuple[str, str]:
    """What a benchmark printed, and how it ended."""
    script = [sys.executable, str(ROOT / "benchmarks" / command[0]), *command[1:]]
    try:
        done = subprocess.run(script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit)
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode(errors="replace"), f"stopped at its limit of {limit} s"
    return done.stdout, "done" if done.returncode == 0 else f"failed (status {done.returncode})"


if __name__ == "__main__":
    sys.exit(main())
