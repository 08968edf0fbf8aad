"""Under torchrun the processes share the passes of neighbours and probe; the leader answers as one process does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import vizapp
from tests.import_graph import ROOT
from tests.media.files import noise, saved
from tests.networks import seeded
from vizapp.zoo.network import Network

SIDE = 16
QUESTIONS: dict[str, dict[str, Any]] = {"neighbours": {"k": 5}, "probe": {"photos": 3, "splits": 1, "curve": (3,)}}
SCRIPT = """
import os, sys
import numpy as np
from tests.methods.test_torchrun import QUESTIONS, answer
for method in QUESTIONS:
    np.savez(f"{sys.argv[2]}/{method}-{os.environ['RANK']}.npz", **answer(method, sys.argv[1]))
"""


def small_network() -> Network:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 49, 6), nn.ReLU(), nn.Linear(6, 2)
    )
    return vizapp.wrap(seeded(module), (3, SIDE, SIDE), name="small", categories=("cat", "dog"))


def answer(method: str, folder: str | Path) -> dict[str, np.ndarray]:
    picture = {"picture": noise(SIDE, SIDE, 99)} if method == "neighbours" else {}
    return vizapp.ask(method, small_network(), folder=str(folder), **picture, **QUESTIONS[method]).arrays


@pytest.mark.slow
def test_two_processes_answer_as_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(11):
        place = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(saved(noise(SIDE, SIDE, number)))
    (tmp_path / "photos" / "dog" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "run.py").write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {
        "VIZAPP_CACHE": str(tmp_path / "two"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [*torchrun, str(tmp_path / "run.py"), str(tmp_path / "photos"), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path / "one"))
    for method in QUESTIONS:
        wanted = answer(method, tmp_path / "photos")
        with np.load(tmp_path / f"{method}-0.npz") as leader, np.load(tmp_path / f"{method}-1.npz") as other:
            assert other.files == []
            assert set(leader.files) == set(wanted)
            for name, values in wanted.items():
                np.testing.assert_allclose(leader[name], values, rtol=1e-6, atol=1e-7, err_msg=name)
