"""What results keep of how they were asked, and that the command and the link ask the same again."""

from __future__ import annotations

import shlex
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import torch

import vizapp
from tests.networks import seeded
from vizapp.__main__ import main, parser
from vizapp.media.samples import open_sample
from vizapp.methods import methods
from vizapp.methods.base import Result
from vizapp.methods.params import knobs
from vizapp.methods.provenance import Provenance, _text
from vizapp.ui.app.pages import PAGES, pages
from vizapp.zoo.intervention_text import read_intervention
from vizapp.zoo.interventions import Intervention, intervention_text
from vizapp.zoo.network import Network
from vizapp.zoo.target import Target
from vizapp.zoo.target_text import read_target


@pytest.fixture(scope="module")
def network() -> Network:
    return vizapp.load("vizapp/lenet5-digits", device="cpu")


def asked(result: Result) -> Provenance:
    assert result.provenance is not None
    return result.provenance


def test_the_command_computes_the_same_arrays(network: Network, tmp_path: Path) -> None:
    unit = vizapp.class_unit(network, 8)
    changes = [Intervention("features.1", [1, 2, 5], "scale", 0.5), Intervention("features.4", 3, "add", -1.5)]
    result = vizapp.ask(
        "attribution", network, open_sample("digit 3"), unit=unit, interventions=changes, kind="smoothgrad", steps=3
    )
    words = shlex.split(asked(result).command)
    assert words[:2] == ["vizapp", "attribution"]
    assert main([*words[1:], "--device", "cpu", "--out", str(tmp_path)]) == 0
    with np.load(tmp_path / "arrays.npz") as saved:
        np.testing.assert_array_equal(saved["attribution"], result.arrays["attribution"])


def test_a_unit_with_its_cell_is_in_the_command_and_the_link(network: Network) -> None:
    unit = vizapp.Unit("features.1", 3, (4, 5))
    found = asked(vizapp.ask("projection", network, open_sample("digit 3"), unit=unit, rule="guided"))
    options = parser().parse_args(shlex.split(found.command)[1:])
    assert (options.unit, options.class_, options.picture) == ("features.1:3@4,5", None, "digit 3")
    query = parse_qs(urlsplit(found.link).query)
    assert (query["layer"], query["channel"], query["cell"]) == (["features.1"], ["3"], ["4,5"])
    assert query["picture"] == ["digit 3"]


def test_a_photo_of_ones_own_is_named_and_kept_out_of_the_link(network: Network, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    own = vizapp.open_picture(pixels, name="digit 3.png")  # the name of a sample, with other pixels
    found = asked(vizapp.ask("predict", network, own))
    assert (found.picture, found.sample) == ("digit 3.png", "")
    assert "picture" not in found.query
    assert "'digit 3.png'" in found.command
    assert found.seen is not None
    assert found.seen.shape == (*network.input_size[1:], 3)


def test_weights_are_named_without_their_folder(network: Network, tmp_path: Path) -> None:
    torch.save(network.module.state_dict(), tmp_path / "mine.pt")
    loaded = vizapp.load("vizapp/lenet5-digits", tmp_path / "mine.pt", device="cpu")
    found = asked(vizapp.ask("predict", loaded, open_sample("digit 3")))
    assert "--weights mine.pt" in found.command
    assert str(tmp_path) not in repr(found)


def test_a_module_of_pythons_has_no_command(tmp_path: Path) -> None:
    module = seeded(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
                                        torch.nn.Flatten(), torch.nn.Linear(4, 3)))  # fmt: skip
    found = asked(vizapp.ask("predict", vizapp.wrap(module, (3, 32, 32)), open_sample("digit 3")))
    assert (found.command, found.link) == ("", "")


@pytest.mark.parametrize("text", ["a.b:3,7=0", "a:all=mean:samples", "a:1-4@2,3@0,0=add:-1.5", "a:all=skip", "b:2=1.5"])
def test_interventions_are_written_as_they_are_read(text: str) -> None:
    given = read_intervention(text)
    assert read_intervention(intervention_text(given)) == given


@pytest.mark.parametrize(
    "text", ["class=dog cell=3,4", "region=1,2,30,40", "box=1,2,3.5,4", "box=2", "region=predicted head=aux"]
)
def test_targets_are_written_as_they_are_read(text: str) -> None:
    given = read_target(text)
    assert read_target(given.text).__dict__ == given.__dict__


def test_photos_of_targets_and_interventions_are_named(network: Network) -> None:
    photo = open_sample("digit 3")
    assert Target(embedding=photo).text == "embedding=digit 3.png"
    assert intervention_text(Intervention("a", None, "freeze", photo)) == "a:all=freeze:digit 3.png"


def test_sample_photos_of_targets_and_interventions_are_found_again(network: Network, tmp_path: Path) -> None:
    photo = open_sample("digit 3")
    changes = [Intervention("features.1", 0, "freeze", open_sample("digit 8"))]
    result = vizapp.ask(
        "predict", network, photo, target=Target(embedding=open_sample("digit 4")), interventions=changes
    )
    assert main([*shlex.split(asked(result).command)[1:], "--device", "cpu", "--out", str(tmp_path)]) == 0
    with np.load(tmp_path / "arrays.npz") as saved:
        np.testing.assert_array_equal(saved["probabilities"], result.arrays["probabilities"])


def test_how_the_network_was_opened_is_in_the_command(tmp_path: Path) -> None:
    for given in ({"probabilities": "sigmoid"}, {"classes": 4, "weights": "none"}):
        opened = vizapp.load("vizapp/lenet5-digits", device="cpu", **given)
        result = vizapp.ask("predict", opened, open_sample("digit 6"))
        assert asked(result).link == ""  # the app opens it otherwise
        assert main([*shlex.split(asked(result).command)[1:], "--device", "cpu", "--out", str(tmp_path)]) == 0
        with np.load(tmp_path / "arrays.npz") as saved:
            np.testing.assert_array_equal(saved["probabilities"], result.arrays["probabilities"])
    named = vizapp.load("vizapp/lenet5-digits", device="cpu", classes=list("abcdefghij"))
    assert asked(vizapp.ask("predict", named, open_sample("digit 6"))).command == ""


def test_what_has_no_name_has_no_command(network: Network) -> None:
    photo = open_sample("digit 6")
    assert asked(vizapp.ask("predict", network, photo.pixels)).command == ""
    mask = np.zeros((96, 96), bool)
    mask[:40] = True
    maps = vizapp.load("vizapp/shapes-segmenter", device="cpu")
    found = asked(vizapp.ask("predict", maps, open_sample("shapes 1"), target=Target(class_=2, region=mask)))
    assert (found.command, found.link) == ("", "")


def test_links_carry_the_choices_of_the_page(network: Network) -> None:
    photo, unit = open_sample("digit 6"), vizapp.class_unit(network, 3)
    query = asked(vizapp.ask("attribution", network, photo, unit=unit, kind="lrp")).query
    assert (query["trust.kinds"], query["attribution.explain"], query["class"]) == ("lrp", "class", "3")
    query = asked(vizapp.ask("knockout", network, photo, site="features.1")).query
    assert query["layer"] == "features.1"
    query = asked(vizapp.ask("trust", network, photo, unit=unit, kinds=("random",), measures=("deletion",))).query
    assert (query["trust.kinds"], query["attribution.explain"]) == ("random", "class")
    query = asked(vizapp.ask("ideal", network, unit=unit, steps=2)).query
    assert (query["ideal"], query["layer"], query["channel"]) == ("on", unit.site, "3")


def test_every_link_leads_to_a_page() -> None:
    for page in PAGES:
        for key in page.methods:
            found = Provenance(key, "", "", "n", "default").link
            assert urlsplit(found).path == f"/{page.key}", key


@pytest.mark.parametrize("key", methods())
def test_the_page_reads_each_parameter_of_a_link_or_the_link_leaves_it_out(key: str) -> None:
    usual = Provenance(key, "", "", "n", "default")
    choices = {choice.name: choice for choice in pages()[urlsplit(usual.link).path[1:]].carried}
    for name, knob in knobs(methods()[key].params).items():
        if name == "out":
            continue
        asked = Provenance(key, "", "", "n", "default", params={name: "0.77"})
        carried = [one for one, text in asked.query.items() if text in ("0.77", "77")]
        assert bool(carried) != (name in asked.not_in_link), name
        if not carried:
            continue
        assert carried[0] in choices, name
        default, of_page = _text(knob.default), choices[carried[0]].default
        if carried[0] in usual.query:
            assert usual.query[carried[0]] == default, name
        elif default and name != "threshold":  # in percent on the page
            assert _text(of_page) == default, f"the page has another default, which a link without {name} opens"


def test_a_class_is_opened_as_a_unit_on_pages_of_units(network: Network) -> None:
    query = asked(vizapp.ask("projection", network, open_sample("digit 6"), unit=vizapp.class_unit(network, 3))).query
    assert (query["layer"], query["channel"]) == ("classifier.4", "3")


def test_what_a_link_leaves_out_is_told(network: Network) -> None:
    unit = vizapp.Unit("features.4", 2, (1, 3))
    given = {"kind": "smoothgrad", "steps": 3, "noise": 0.2, "seed": 7}
    result = vizapp.ask("attribution", network, open_sample("digit 6"), unit=unit, **given)
    assert asked(result).query["trust.seed"] == "7"
    assert "cell" not in asked(result).query
    note = "The link leaves out what the page does not take: steps 3; noise 0.2; cell 1, 3."
    assert note in result.to_html()
    assert result.section(link="https://example.org/view").note == "", "that of the view leaves out nothing"
    assert asked(vizapp.ask("predict", network, open_sample("digit 6"), threshold=0.25)).query["threshold"] == "25"
