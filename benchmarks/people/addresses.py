"""Links that users open: every page, with several methods and options."""

from __future__ import annotations

from vizapp.ui.app.pages import PAGES as PAGES_IN_SIGHT
from vizapp.ui.app.pages import pages

LENET, SQUEEZE = "network=vizapp/lenet5-digits", "network=torchvision/squeezenet1_1&weights=random"
LINKS = [  # those without a network are of an earlier release, whose default was zfnet-mini
    "",
    "feature_maps",
    "compare",
    f"?{LENET}&picture=digit 3",
    f"?{LENET}&picture=digit 7&crops=ten",
    "?picture=motorcycle",
    "?picture=coffee&crops=ten",
    f"?{SQUEEZE}&picture=chelsea",
    "feature_maps?layer=features.relu2&picture=rocket",
    "feature_maps?layer=features.relu5&channel=7&cell=3,4",
    f"feature_maps?{LENET}&layer=features.3&picture=digit 5",
    f"feature_maps?{SQUEEZE}&layer=features.6.cat&picture=coffee",
    "projection?layer=features.relu3&channel=11&picture=astronaut",
    "projection?layer=features.relu5&mode=nine",
    f"projection?{LENET}&layer=features.4&picture=digit 2",
    f"occlusion?{LENET}&picture=digit 4",
    f"occlusion?{LENET}&picture=digit 9&stride=2&window=8&class=4",
    f"occlusion?{LENET}&picture=digit 4&picture2=digit 9&stride=3",
    "occlusion?picture=rocket&window=40&stride=20",
    "occlusion?picture=coffee&stride=8",
    f"occlusion?{LENET}&picture=digit 6&way=hand",
    "dense?picture=coffee",
    "dense?picture=motorcycle&dense.stride=16",
    f"dense?{LENET}&picture=digit 8",
    "dense?picture=rocket&dense.input=crop&tint=class",
    "filters",
    "filters?layer=features.relu3&channel=5&view=numbers",
    f"filters?{LENET}&layer=features.3",
    f"compare?{LENET}&other=vizapp/lenet5-digits&picture=digit 1",
    "compare?picture=astronaut&other=vizapp/lenet5-digits&other_weights=published",
    "compare?picture=chelsea",
    f"architecture?{LENET}&architecture.repeats=0",
    f"architecture?{SQUEEZE}&architecture.repeats=0&architecture.rows=modules",
    "architecture?aspect=drawing",
    "architecture?aspect=comparison",
    "architecture?aspect=comparison&trained=CIFAR-10&among=all",
    f"attribution?{LENET}&picture=digit 3&trust.kinds=gradcam,random&trust.measures=deletion",
    "about",
    *(f"{key}?{LENET}&picture=digit 3" for key, page in pages().items() if page not in PAGES_IN_SIGHT),
]  # fmt: skip
GALLERIES = [
    "gallery",
    f"gallery?{LENET}&data=digits&layer=features.3&channel=3",
    f"gallery?{LENET}&data=digits&layers=linear&layer=classifier.4&channel=4",
    f"gallery?{LENET}&data=digits&layers=convolution",
    f"gallery?{LENET}&weights=random&data=digits&layer=features.1&channel=2",
    "gallery?data=samples&layer=features.relu5&channel=7",
    "gallery?data=samples&layers=convolution&layer=features.conv1&channel=0",
    f"gallery?{SQUEEZE}&data=samples&layers=classifier.1&layer=classifier.1&channel=9",
]  # fmt: skip
LONG = [
    "?network=torchvision/resnet101&weights=random&crops=multi",
    "occlusion?picture=rocket&stride=2",
    "dense?picture=chelsea&dense.zoom=4&dense.stride=4",
    f"gallery?{SQUEEZE}&weights=random&data=digits",
]
PRESSES = {  # buttons that start more work: the text that then appears, and links to their pages
    "Run feature visualization": (
        "Activation from", [f"filters?{LENET}&layer=features.3&channel=2", f"filters?{LENET}&layer=features.1"],
    ),
    "Compare with randomised networks": (
        "The numbers are rank correlations",
        [
            "projection?layer=features.relu3&channel=11&picture=astronaut",
            f"projection?{LENET}&layer=features.4&picture=digit 2",
        ],
    ),
}  # fmt: skip
PAGES = [
    page.title for page in PAGES_IN_SIGHT if page.key not in ("about", "attribution")
]  # which takes long by default
