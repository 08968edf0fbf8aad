"""The terms that the pages use, and tooltips with their meaning."""

from __future__ import annotations

import re

GLOSSARY = {
    "activation": "The number that a unit gives for a photo at one place; most networks pass on only what is above zero.",
    "average precision": "A score of an order, from 0 to 1: 1 if all that is wanted comes first, 0 if nothing of it is found.",
    "calibration error": "How far the probabilities of the answers are, on average, from how often these are right.",
    "cell": "One place in the map of a layer. Later layers have fewer cells, and each sees more of the photo.",
    "channel": "One map of a layer: the same unit at every place of the photo. A layer has a few to some thousand.",
    "class": "A kind of thing that the network was trained to name.",
    "crop": "The part of the photo that the network gets, resized to its input size.",
    "dead unit": "A unit that is zero for every photo.",
    "deconvnet": "A rule to send a unit back to the pixels: only what is positive passes each rectifier.",
    "Grad-CAM": "A map of where the last feature maps raise a class: the maps, weighted by how much the class gains from each.",
    "guided": "Like the deconvnet, but the signal also passes only where the unit below was active.",
    "layer": "A step of the network, from the pixels to the classes.",
    "logit": "The score of a class before it is turned into a probability.",
    "random weights": "Weights as they are before training. What such a network shows comes from its architecture alone.",
    "receptive field": "The part of the photo that can influence a cell.",
    "selectivity": "How much stronger a unit is for its favourite photos than for most.",
    "stride": "The distance in pixels between neighbouring cells, or between two positions of a square.",
    "top-1": "The share of test photos for which the most probable class is the right one.",
    "unit": "A channel of a layer, or one of its cells: it looks for one pattern.",
}
TERMS = {
    "start": ("unit", "layer"),
    "predict": ("crop", "logit", "Grad-CAM"),
    "feature_maps": ("channel", "cell", "deconvnet", "receptive field"),
    "projection": ("unit", "deconvnet", "guided", "receptive field"),
    "gallery": ("unit", "average precision", "selectivity", "dead unit", "receptive field"),
    "evaluate": ("class", "crop", "calibration error"),
    "occlusion": ("stride", "activation", "logit", "deconvnet"),
    "knockout": ("unit", "layer", "logit"),
    "correspondence": ("layer", "logit"),
    "probe": ("layer", "random weights", "class"),
    "evolution": ("unit", "activation", "deconvnet"),
    "dense": ("crop", "cell", "stride", "logit"),
    "filters": ("channel", "unit"),
    "compare": ("unit", "random weights", "logit"),
    "architecture": ("stride", "receptive field", "top-1"),
    "transform": ("layer", "crop", "class"),
    "attribution": ("Grad-CAM", "class", "unit", "random weights"),
}  # what each page explains in its sentences, by key of the page


def explained(text: str, page: str) -> str:
    """Markdown in which each term of the page links to its meaning where it is used first, with a tooltip that says it."""
    terms = TERMS.get(page, ())
    if not terms:
        return text
    left = {term.lower(): term for term in terms}

    def link(match: re.Match[str]) -> str:
        term = left.pop(match[1].lower(), None)
        return match[0] if term is None else f'[{match[0]}](about#terms "{GLOSSARY[term]}")'

    longest = sorted(terms, key=len, reverse=True)
    return re.sub(rf"(?<![\w-])({'|'.join(map(re.escape, longest))})s?(?![\w-])", link, text, flags=re.IGNORECASE)
