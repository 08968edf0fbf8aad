"""What class names mean, against what everybody knows of ImageNet's list, and against timm's own list of numbers."""

from __future__ import annotations

import pytest

from vizapp.zoo import wordnet
from vizapp.zoo.labels import imagenet_categories, imagenet_synonyms

NAMES = imagenet_categories()


def test_the_classes_are_in_the_order_of_networks() -> None:
    timm = pytest.importorskip("timm.data")
    numbers = list(wordnet.synsets())[:1000]
    assert numbers == list(timm.ImageNetInfo("imagenet-1k").label_names())
    same = [
        wordnet.synsets()[number].names[0].lower() == name.lower() for number, name in zip(numbers, NAMES, strict=True)
    ]
    assert sum(same) >= 998  # torchvision calls the second crane and the second maillot otherwise


@pytest.mark.parametrize("text", ["dog", "Dogs", "domestic dog", "n02084071", "DOG"])
def test_dogs_are_the_breeds(text: str) -> None:
    assert wordnet.matches(text, NAMES) == list(range(151, 269))


@pytest.mark.parametrize(
    ("text", "some", "none", "count"),
    [
        ("bird", ["cock", "goldfinch", "king penguin", "flamingo", "crane bird"], ["crane", "bat", "kite snake"], 59),
        ("snake", ["boa constrictor", "green mamba", "sea snake"], ["African crocodile", "worm fence"], 17),
        ("fish", ["tench", "goldfish", "great white shark", "puffer"], ["starfish", "killer whale"], 16),
        ("terrier", ["Airedale", "Norfolk terrier"], ["golden retriever"], 26),
        ("butterflies", ["monarch", "sulphur butterfly"], ["dragonfly"], 6),
        ("wolves", ["timber wolf", "white wolf"], ["wolf spider", "Irish wolfhound"], 4),
        ("musical instrument", ["accordion", "violin", "grand piano"], ["iPod", "microphone"], None),
        ("vehicle", ["ambulance", "airliner", "canoe"], ["motor scooter helmet", "car wheel"], None),
        ("crane", ["crane", "crane bird"], ["goldfish"], 2),
        ("n02012849", ["crane bird"], ["crane"], 1),
        ("husky", ["Eskimo dog", "Siberian husky"], ["malamute"], 2),
        ("tiger", ["tiger"], ["tiger shark", "tiger cat"], 1),
        ("ball", ["baseball", "golf ball"], ["ballplayer"], None),
    ],
)
def test_kinds_of_things_are_whole_and_nothing_else(
    text: str, some: list[str], none: list[str], count: int | None
) -> None:
    found = [NAMES[place] for place in wordnet.matches(text, NAMES)]
    assert set(some) <= set(found)
    assert not set(none) & set(found)
    assert count is None or len(found) == count


@pytest.mark.slow
def test_each_class_is_found_by_each_of_its_names() -> None:
    for place, (name, others) in enumerate(imagenet_synonyms().items()):
        for one in (name, *filter(None, others.split(", "))):
            number = list(wordnet.synsets())[place]
            assert number in wordnet.meanings(one) or one == name
    texts = wordnet.texts(NAMES)
    assert all(place in wordnet.matches(text, NAMES) for place, text in enumerate(texts))
    assert len(set(texts)) == 1000


def test_labels_of_other_sets_are_found_by_meaning_and_by_word() -> None:
    labels = [
        "Dogs",
        "my_dog",
        "golden_retriever",
        "cat",
        "hotdog",
        "n02099601",
        "dogsled",
        "cats and dogs",
        "dalmatian",
        "",
    ]
    assert [labels[n] for n in wordnet.matches("dog", labels)] == [
        "Dogs", "my_dog", "golden_retriever", "n02099601", "cats and dogs", "dalmatian",
    ]  # fmt: skip
    assert wordnet.matches("", labels) == []
    assert wordnet.matches("graphene", ["graphene sheet", "Graphenes", "graph"]) == [0, 1]
    assert wordnet.matches("crane", ["crane", "goldfish"]) == [0]
    assert wordnet.matches("bird", ["crane", "goldfish"]) == [0]


def test_groups_are_kinds_of_several_labels_named_once() -> None:
    groups = wordnet.groups(NAMES)
    assert groups["n02084071"] == 118
    assert list(groups.values()) == sorted(groups.values(), reverse=True)
    assert max(groups.values()) <= 500
    members = {number: tuple(wordnet.matches(number, NAMES)) for number in groups}
    assert len(set(members.values())) == len(groups)
    assert {number: len(places) for number, places in members.items()} == groups
    assert wordnet.groups(["dalmatian", "pug", "goldfish", "tench"]) == {
        "n02084071": 2,
        "n01439121": 2,
    }  # dog, cyprinid
