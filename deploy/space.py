"""Lay out the files of a Hugging Face Space that shows the app.

    python deploy/space.py FOLDER

`docs/space.md` says how to publish the folder. It holds what the image of `Dockerfile` copies, that Dockerfile with the
defaults that a Space needs, and `space/README.md`, whose first lines are the settings of the Space.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SITE = "https://huggingface.co"  # it shows the app in a frame
DEFAULTS = {"UID": "1000", "PORT": "7860", "FRAMES": SITE, "XSRF": "false"}


def lay_out(folder: Path) -> None:
    """Write the files into the folder, which is made if it is missing. What is there already is kept or replaced."""
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    for name, value in DEFAULTS.items():
        text, count = re.subn(rf"(?m)^ARG {name}=.*$", f"ARG {name}={value}", text)
        if count != 1:
            raise ValueError(f"The Dockerfile has {count} arguments {name}.")
    folder.mkdir(parents=True, exist_ok=True)
    ignored = shutil.ignore_patterns("__pycache__")
    for line in re.findall(r"(?m)^COPY (.+)$", text):
        for source in shlex.split(line)[:-1]:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, folder / source, ignore=ignored, dirs_exist_ok=True)
            else:
                shutil.copy(ROOT / source, folder / source)
    shutil.copy(ROOT / ".dockerignore", folder)
    (folder / "Dockerfile").write_text(text)
    shutil.copy(ROOT / "deploy" / "space" / "README.md", folder)  # in place of that of the project


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    lay_out(Path(sys.argv[1]))
