"""The page Architecture: the table, the graph with its branches, and the plot of all networks."""

from __future__ import annotations

import json

import pytest

import vizapp
from tests.networks import Branching, seeded
from tests.ui.app import Open, chosen, sentences, went_well
from vizapp.ui.pages.architecture import graph, zoo_scatter
from vizapp.ui.widgets import charts


def test_the_table_names_every_layer_and_the_totals(open_app: Open) -> None:
    app = open_app("architecture", **{"architecture.repeats": "1"})
    assert went_well(app)
    assert not app.warning
    table = app.dataframe[0].value
    assert list(table["layer"])[:3] == ["features.0", "features.2", "features.3"]
    assert table["parameters"].sum() == 44_426
    assert (table["milliseconds"] > 0).all()
    captions = " ".join(caption.value for caption in app.caption)
    assert "**44,426** parameters" in captions
    assert "as a whole" in captions


def test_rows_and_counting_are_chosen_and_carried_by_the_link(open_app: Open) -> None:
    app = open_app("architecture", **{"architecture.rows": "modules", "architecture.count": "operations"})
    table = app.dataframe[0].value
    assert list(table["layer"]) == ["features", "flatten", "classifier"]
    assert "operations" in table.columns
    assert (chosen(app, "architecture.rows"), chosen(app, "architecture.count")) == ("modules", "operations")


def test_the_drawing_leads_from_the_picture_to_the_last_layer(open_app: Open) -> None:
    app = open_app("architecture", aspect="drawing")
    assert went_well(app)
    (drawn,) = app.get("graphviz_chart")
    assert '"picture" -> "features.0";' in drawn.proto.spec
    assert '"classifier.2" -> "classifier.4";' in drawn.proto.spec


def test_branches_are_arrows_and_names_are_only_text() -> None:
    rows = vizapp.ask("architecture", vizapp.wrap(seeded(Branching()), input_size=(3, 48, 40)), repeats=0).table
    drawn = graph.dot(rows)
    for arrow in ('"left" -> "cat"', '"right" -> "cat"', '"body" -> "add"', '"cat" -> "add"', '"cat" -> "body"'):
        assert f"{arrow};" in drawn
    assert '"stem" [label="stem\\nconvolution 5×5 / 2\\n8×24×20" fillcolor="#c3d3e6"];' in drawn
    odd = {"layer": 'a"];b', "kind": "other", "kernel": "", "stride": "", "output": "1", "from": "picture"}
    assert '"a\\"];b" [label="a\\"];b\\n1"' in graph.dot([odd])
    assert graph.dot(rows, graph.DARK) != drawn


@pytest.mark.slow
def test_a_drawing_that_could_not_be_read_shows_modules_in_place_of_layers(open_app: Open) -> None:
    app = open_app("architecture", aspect="drawing", network="vizapp/densenet100-12-cifar", weights="random")
    (drawn,) = app.get("graphviz_chart")
    assert '"blocks.0' in drawn.proto.spec
    assert drawn.proto.spec.count("->") < 300
    many = [{"layer": str(i), "from": ", ".join(map(str, range(i))) or "picture"} for i in range(60)]
    assert not graph.fits(many)
    assert graph.fits(many[:8])


def test_the_comparison_shows_the_classic_networks_with_the_chosen_one_first(open_app: Open) -> None:
    app = open_app("architecture", aspect="comparison", network="torchvision/vgg11")
    assert went_well(app)
    figure = json.loads(app.get("plotly_chart")[0].proto.spec)
    (accent, others) = figure["data"]
    assert [point[0] for point in accent["customdata"]] == ["torchvision/vgg11"]
    assert accent["x"] == [pytest.approx(7.609, abs=0.001)]
    names = {point[0] for point in others["customdata"]}
    assert {"vizapp/alexnet-2012", "vizapp/zfnet", "torchvision/resnet50", "torchvision/densenet201"} <= names
    assert "torchvision/efficientnet_b0" not in names
    table = app.dataframe[0].value
    assert {"vizapp/googlenet-2014", "vizapp/densenet264"} <= set(table["network"]), "also without an accuracy"
    assert "time" not in table.columns


@pytest.mark.parametrize(("data", "among"), [("CIFAR-10", "classic"), ("ImageNet", "all")])
def test_data_and_selection_are_carried_by_the_link(open_app: Open, data: str, among: str) -> None:
    app = open_app("architecture", aspect="comparison", trained=data, among=among)
    names = set(app.dataframe[0].value["network"])
    assert ("vizapp/wide-resnet28-10-cifar" in names) == (data == "CIFAR-10")
    assert ("torchvision/efficientnet_b0" in names) == (data == "ImageNet")


def test_the_time_here_is_measured_when_it_is_asked_for(open_app: Open) -> None:
    app = open_app("architecture", aspect="comparison", trained="CIFAR-10", axis="time")
    assert "None of these networks has been timed" in " ".join(caption.value for caption in app.caption)
    app.multiselect(key="comparison.chosen").set_value(["vizapp/resnet20-cifar", "vizapp/resnet32-cifar"]).run()
    app.button(key="comparison.measure").click().run()
    assert went_well(app)
    table = app.dataframe[0].value.set_index("network")["time"]
    assert table["vizapp/resnet20-cifar"] > 0
    assert table.isna().sum() == len(table) - 2
    figure = json.loads(app.get("plotly_chart")[0].proto.spec)
    assert sum(len(trace["customdata"]) for trace in figure["data"]) == 2


def test_a_network_that_is_missing_is_told_on_this_page_too(open_app: Open) -> None:
    app = open_app("architecture", network="vizapp/vgg-c")
    assert went_well(app)
    assert "weights" in sentences(app)


def test_entries_say_whose_accuracy_it_is() -> None:
    found = {entry.name: entry for entry in zoo_scatter.entries()}
    assert (found["torchvision/resnet50"].accuracy, found["torchvision/resnet50"].by) == (80.858, "weights")
    assert (found["vizapp/alexnet-2012"].accuracy, found["vizapp/alexnet-2012"].by) == (59.3, "paper")
    assert found["torchvision/resnet50"].multiply_adds == pytest.approx(4.089e9)
    assert not any(name.startswith("timm/") for name in found)


def test_names_in_the_figure_do_not_lie_over_each_other() -> None:
    names = [f"x/{i}" for i in range(4)]
    figure = charts.comparison(names, [1, 1.01, 100, 10], [70, 70.1, 70, 80], [10, 10, 20, 40], "x/0", "", labels=True)
    accent, others = figure.data
    assert list(accent.text) == ["0"], "the chosen one keeps its name"
    assert list(others.text) == ["", "2", "3"]
    sizes = [*accent.marker.size, *others.marker.size]
    assert sizes == [10, 10, 20, 40]
    assert accent.marker.sizemode == "area"
