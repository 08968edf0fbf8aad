"""What each page shows, how to read it, and what not to conclude from it."""

from __future__ import annotations

from dataclasses import dataclass

from vizapp.methods.base import Method


@dataclass(frozen=True)
class Explanation:
    """A sentence each: what a page shows, how to read its colours, and what not to conclude from it."""

    shows: str
    read: str
    beware: str


EXPLANATIONS = {
    "start": Explanation(
        "One photo and one network, asked every question of this app: each card is a small picture of a page, which it opens.",
        "The colours of a card are those of its page, where their scale is given.",
        "The pictures are quick and coarse, so conclude nothing from a card that its page does not confirm.",
    ),
    "predict": Explanation(
        "The crop that the network gets, the classes that it finds most probable, and which part mattered for one of them.",
        "A bar is the probability of a class, and the brighter the map, the more that part raises the score of the class.",
        "The probabilities are shared among the classes that the network knows: of a thing that it never learned, it names the "
        "nearest one, often with confidence.",
    ),
    "feature_maps": Explanation(
        "For this photo the maps of a few layers from early to late, all channels of one layer, or the sum that made one cell.",
        "Dark is no response and bright a strong one at that place; the frame around a cell is its receptive field.",
        "A bright place says that the unit responds there, not that the decision depends on it.",
    ),
    "projection": Explanation(
        "One unit, sent back through the network to the pixels by three rules.",
        "Mid-grey is zero; what stands out are the edges and colours that made the unit respond in this photo.",
        "It shows what the unit saw here, not why the network decided, and without max pooling the deconvnet hardly depends on "
        "the photo.",
    ),
    "gallery": Explanation(
        "For each unit of a layer, the nine photos of a collection that make it respond most, cropped to what it sees.",
        "Look for what the nine photos share; in the projections beside them mid-grey is zero.",
        "What the nine share depends on the collection: a unit for dogs finds something else where there are no dogs.",
    ),
    "evaluate": Explanation(
        "How often the network is right about photos whose class is known, which classes it confuses, and its worst mistakes.",
        "In the matrix a row is the right class and a column the given one; below the diagonal of the reliability curve the "
        "network is surer than it is right.",
        "The rates hold for photos like these: the interval covers the chance of the draw, not photos of another kind.",
    ),
    "occlusion": Explanation(
        "A square moves over the photo, and the network is asked again at every position.",
        "Red marks places where hiding lowers the probability of the class, blue where it raises it, and white no change.",
        "A square also adds edges and hides several things at once, so try another fill or size before you infer a cause.",
    ),
    "probe": Explanation(
        "How often a linear classifier is right that gets the features of one layer, for each layer from first to last.",
        "A line is the mean over several draws of the photos to learn from; dashed is the same network with random weights, "
        "dotted the pixels themselves.",
        "What a linear classifier can read at a layer is there, but the network need not use it for its own answers.",
    ),
    "evolution": Explanation(
        "What some units of a layer responded to most after each of some epochs of the training, projected to the pixels.",
        "A row is a unit and a column a checkpoint; orange marks that the unit prefers another photo than before.",
        "Each column looks among these photos only, and a small change of the weights can bring another photo to the top.",
    ),
    "knockout": Explanation(
        "Each unit of a layer is set to zero in turn, and the rest of the network runs on with what is left.",
        "A bar to the left is what the class loses without that unit, a bar to the right what it gains; the curve falls below "
        "zero where another class takes over.",
        "The layers above were never trained without the unit, and on another photo other units may count.",
    ),
    "correspondence": Explanation(
        "A part that several photos share is hidden in each, and the directions in which the features change are compared.",
        "Low is alike: where the parts lie below random squares, the photos have something in common, and the line of the "
        "shared place says how much of that is their place alone.",
        "With few photos the values are rough, and an equal direction says nothing about how strong a change is.",
    ),
    "colours": Explanation(
        "Each cell of a layer in a colour that stands for what its channels respond with, on several photos by the same rule.",
        "Like colours are like activations; which thing has which is arbitrary; a click on a cell shows what is like it.",
        "Three colours hold only a part of what the cells differ in, and other photos in the choice give other colours.",
    ),
    "neighbours": Explanation(
        "The photos of a folder, or parts of them, with the features nearest to those of this photo, and all photos as points.",
        "The smaller the number on a tile, the more alike it is to the network; in the atlas, near points are alike.",
        "What is alike at one layer differs at another, and no plane keeps all distances, so mind the trustworthiness.",
    ),
    "dense": Explanation(
        "The network looks at every crop of a large photo at once and names each.",
        "Each colour is a class, as the legend above the photo says, and a click on a cell shows its crop.",
        "A label is about its whole crop, not about the spot of its cell, and padding makes some labels wrong.",
    ),
    "filters": Explanation(
        "The weights that a layer has learned, and an image made to excite one of its filters.",
        "Mid-grey is zero; in the first layer the kernels are small pictures of edges and colours.",
        "Kernels of later layers read other channels, not colours, so they look like noise even where the unit is clear.",
    ),
    "compare": Explanation(
        "Two networks, or two sets of weights of one, side by side on the same photo.",
        "Maps of a kind have the same colours in both; in the difference, bright is where the first depends more on a part.",
        "Channels have no order: number 7 of one network has nothing to do with number 7 of another.",
    ),
    "architecture": Explanation(
        "The network layer by layer: sizes, weights, operations, receptive fields and time.",
        "The colours of the drawing are kinds of layers, and in the comparison the accent colour is the chosen network.",
        "Times are rough, because they depend on this machine and on what else runs on it.",
    ),
    "transform": Explanation(
        "How far the features of some layers move, and how the probabilities change, as the photo is turned, moved or spoiled.",
        "A curve that jumps at once is of a layer that notices the change, and one that stays low of a layer that hardly does.",
        "Distances are divided by the size of the clean features; compare the shapes of two layers' curves, not their heights.",
    ),
    "attribution": Explanation(
        "Maps of which pixels mattered for a class or a unit, made in different ways, and numbers that test each of them.",
        "The score should fall soon when the pixels that a map marks most are blurred first (deletion: low is good), rise soon "
        "when they come back first (insertion: high is good), and fall further without the most marked pixels than without the "
        "least marked (ROAD: high is good), while a network with shuffled weights should give another map (near 0 is good).",
        "The maps answer different questions, and one photo says little, so trust an order on which several numbers and photos "
        "agree.",
    ),
}  # fmt: skip


def explanation(page: str, method: Method | None) -> Explanation | None:
    """The explanation of a page; of a method without one, in words that hold for all."""
    if page in EXPLANATIONS or method is None:
        return EXPLANATIONS.get(page)
    return Explanation(
        method.summary,
        "The scale beside each picture says what its darkest and its brightest colour stand for.",
        "The picture describes this network on this photo, and says nothing about other photos or about the world.",
    )
