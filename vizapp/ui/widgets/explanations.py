"""What each page shows and how to read it, and the terms that the pages use."""

from __future__ import annotations

from dataclasses import dataclass

GLOSSARY = {
    "activation": "The number that a unit gives for a photo at one place; most networks pass on only what is above zero.",
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


@dataclass(frozen=True)
class Explanation:
    """What a page shows, how to read it, what not to conclude from it, and the terms of the glossary that it uses."""

    shows: str
    read: str
    beware: str
    terms: tuple[str, ...] = ()


EXPLANATIONS = {
    "start": Explanation(
        "One photo and one network, asked every question of this app.",
        "Each card is a small picture of a page; click it to open that page on what the card shows.",
        "The pictures are quick and coarse; the pages compute them in full.",
        ("unit", "layer", "random weights"),
    ),
    "predict": Explanation(
        "The crop that the network gets, and the classes that it finds most probable.",
        "A bar is the probability of a class; point at it for the score.",
        "The probabilities are shared among the classes that the network knows: of a thing it never learned, it names the "
        "nearest one, often with confidence.",
        ("class", "crop", "logit", "top-1"),
    ),
    "feature_maps": Explanation(
        "All channels of one layer for this photo, and one of them over the photo.",
        "Bright is a strong response at that place. The frame around a cell is its receptive field.",
        "A bright place says that the unit responds there, not that the decision depends on it.",
        ("channel", "cell", "activation", "receptive field"),
    ),
    "projection": Explanation(
        "One unit, sent back through the network to the pixels by three rules.",
        "Mid-grey is zero; what stands out are the edges and colours that made the unit respond in this photo.",
        "It shows what the unit saw here, not why the network decided; where there is no max pooling, the deconvnet hardly "
        "depends on the photo.",
        ("unit", "deconvnet", "guided", "receptive field"),
    ),
    "gallery": Explanation(
        "For each unit of a layer, the photos of a collection that make it respond most, cropped to what it sees.",
        "Look for what the nine have in common: that is the best guess of what the unit looks for.",
        "It depends on the collection: a unit for dogs finds something else where there are no dogs.",
        ("unit", "selectivity", "dead unit", "receptive field"),
    ),
    "occlusion": Explanation(
        "A square moves over the photo, and the network is asked again at every position.",
        "The map shows the probability of a class with the square there: where it drops, something that matters was hidden.",
        "A square also adds edges and hides several things at once; try another fill or size before you infer a cause.",
        ("class", "stride", "activation"),
    ),
    "dense": Explanation(
        "The network looks at every crop of a large photo at once and names each.",
        "A colour is a class; click a cell to see its crop and its classes.",
        "Each crop is classified alone. Padding makes the one pass differ from the single crops; the page measures it.",
        ("class", "crop", "cell", "stride"),
    ),
    "filters": Explanation(
        "The weights that a layer has learned, and an image made to excite one of them.",
        "In the first layer, kernels are small pictures of edges and colours; grey is zero.",
        "Kernels of later layers read other channels, not colours, so they look like noise even where the unit is clear.",
        ("layer", "channel", "unit"),
    ),
    "compare": Explanation(
        "Two networks, or two sets of weights of one, side by side on the same photo.",
        "Compare the answers first, then the maps; matched units are pairs that respond to the same photos.",
        "Channels have no order: number 7 of one network has nothing to do with number 7 of another.",
        ("unit", "random weights", "logit"),
    ),
    "architecture": Explanation(
        "The network layer by layer: sizes, weights, operations, receptive fields and time.",
        "Operations are multiply-adds for one photo; the comparison sets them against accuracy for many networks.",
        "Times are rough: they depend on this machine and on what else runs on it.",
        ("layer", "stride", "receptive field", "top-1"),
    ),
    "attribution": Explanation(
        "How much each pixel or region contributes to a class or a unit.",
        "Bright regions contribute most; Grad-CAM is coarse and reliable, the others are fine and noisy.",
        "The methods disagree, because they ask different questions; hide the region on the page Occlusion to check.",
        ("Grad-CAM", "guided", "class"),
    ),
}  # fmt: skip
