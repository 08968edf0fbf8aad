"""Parameters in words, as reports tell them."""

from __future__ import annotations

from collections.abc import Mapping

_NAMES = {"site": "layer", "sites": "layers"}
# Titles of kinds of attribution, where they are not their keys in words; a test compares them with those of the kinds.
_TITLES = {
    "gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++", "hirescam": "HiResCAM", "layercam": "LayerCAM", "eigencam": "Eigen-CAM",
    "scorecam": "Score-CAM", "ablationcam": "Ablation-CAM", "smoothgrad": "SmoothGrad", "deeplift": "DeepLIFT",
    "guided_gradcam": "Guided Grad-CAM", "lrp": "LRP", "rise": "RISE", "rollout": "Attention rollout", "legrad": "LeGrad",
}  # fmt: skip
_VALUES = {"true": "on", "false": "off"}
_MOST = 12  # values of a list that are written out


def in_words(params: Mapping[str, str]) -> str:
    """Each parameter with its value, by the names that the app gives them; long lists are shortened."""
    return "; ".join(
        f"{_NAMES.get(name, name.replace('_', ' '))} {_value(name, text)}" for name, text in params.items()
    )


def _value(name: str, text: str) -> str:
    values = [_kind(one) if name in ("kind", "kinds") else _VALUES.get(one, one) for one in text.split(",")]
    if len(values) > _MOST:
        return f"{', '.join(values[: _MOST // 2])} … {values[-1]} ({len(values)} values)"
    return ", ".join(values)


def _kind(key: str) -> str:
    return _TITLES.get(key, key.replace("_", " ").capitalize())
