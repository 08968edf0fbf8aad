"""Tours: every step sets exactly what it names, on its page, and a wrong tour is told in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from tests.ui.app import Open, click, sentences, shown, turn_to, went_well
from tests.ui.app import chosen as linked
from vizapp.errors import VizError
from vizapp.media.samples import sample_names
from vizapp.ui.app import tours
from vizapp.ui.app.pages import pages
from vizapp.ui.app.tours import Step, Tour, open_tour, read_tour
from vizapp.ui.session import state, url
from vizapp.ui.session.choice import Choice

BUNDLED = tuple(tours.files())
WITH_WEIGHTS = {"vizapp/efficientnet-lite0", "vizapp/zfnet-mini", "vizapp/lenet5-digits"}  # that come with the app
STEPS = [(name, number) for name in BUNDLED for number in range(1, len(open_tour(name).steps) + 1)]
SMALL = """
title = "Small"
seconds = 5

[[steps]]
title = "A digit"
text = "The first one."
link = "http://localhost:8501/predict?network=vizapp/lenet5-digits&picture=digit+3&top=3"

[[steps]]
title = "Its maps"
text = '''Two
lines.'''
link = "feature_maps?network=vizapp/lenet5-digits&picture=digit+4&stages=one&layer=features.1&channel=2"
seconds = 9

[[steps]]
title = "Another digit"
text = "The third one."
link = "predict?network=vizapp/lenet5-digits&picture=digit+5"
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tour "small" in the folder of the user's own."""
    (tmp_path / "small.toml").write_text(SMALL)
    monkeypatch.setenv("VIZAPP_TOURS", str(tmp_path))


def choices(page: str) -> dict[str, Choice]:
    shared = {choice.name: choice for choice in state.CHOICES.values() if choice.shared}
    return shared | {choice.name: choice for choice in pages()[page].carried}


def chosen(app: AppTest) -> dict[str, object]:
    """What differs from the defaults, by name, without what a page finds by itself."""
    own = {choice.name for choice in (state.TOUR, state.STEP, state.PRESENT, state.AUTOPLAY, state.DEVICE)}
    every = state.CHOICES | {name: one for page in pages() for name, one in choices(page).items()}
    values = {name: app.session_state[one.key] for name, one in every.items() if one.key in app.session_state}
    return {name: value for name, value in values.items() if value != every[name].default and name not in own}


def named(step: Step) -> dict[str, object]:
    known = choices(step.page)
    return {name: known[name].read(value) for name, value in step.query.items() if name in known}


def is_at(app: AppTest, tour: Tour, number: int) -> None:
    """Whether the app shows that step, as its own link would."""
    step = tour.steps[number - 1]
    assert went_well(app)
    assert sentences(app) == ""
    assert app.session_state["page"] == step.page
    bar = shown(app, "-tour")
    assert (bar["step"], bar["title"], bar["steps"][number - 1]["text"]) == (number, tour.title, step.text)
    wanted, found = named(step), chosen(app)
    assert {name: found.get(name, choices(step.page)[name].default) for name in wanted} == wanted
    by_itself = {"stride"}  # of the first view of Occlusion
    assert not set(found) - set(wanted) - by_itself, "nothing of an earlier step"
    assert linked(app, "tour") == tour.name
    assert linked(app, "step") == str(number), "Back leads to it"


@pytest.mark.parametrize("name", BUNDLED)
def test_the_bundled_tours_name_networks_and_photos_that_are_bundled(name: str) -> None:
    tour = open_tour(name)
    assert 6 <= len(tour.steps) <= 9
    assert tour.about
    for step in tour.steps:
        assert step.query["network"] in WITH_WEIGHTS
        assert step.query.get("picture", sample_names()[0]) in sample_names()
        assert len(step.text) < 420
        assert 2 <= step.text.count(". ") + 1 <= 4


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), STEPS)
def test_every_step_of_the_bundled_tours_opens(open_app: Open, name: str, number: int) -> None:
    tour = open_tour(name)
    app = open_app("about", tour=name, step=str(number))
    is_at(app, tour, number)
    app._page_hash = calc_hash(tour.steps[number - 1].page)  # as a browser does, which has followed the switch of pages
    app.session_state["choice.network"] = "vizapp/lenet5-digits"
    app.session_state["choice.cell"] = (0, 0)
    other = number % len(tour.steps) + 1
    is_at(click(app, "tour", "step", other), tour, other)


def test_one_moves_along_a_tour_and_leaves_it_with_the_page_as_it_is(open_app: Open, small: None) -> None:
    tour = open_tour("small")
    app = open_app("start", tour="small")
    is_at(app, tour, 1)
    assert [step["seconds"] for step in shown(app, "-tour")["steps"]] == [5, 9, 5]
    assert tour.steps[1].text == "Two lines."
    assert linked(app, "present") == "on"
    is_at(click(app, "tour", "step", 2), tour, 2)
    assert linked(app, "step") == "2"
    assert linked(app, "channel") == "2"
    app.session_state[state.CHANNEL.key] = 4  # a person touches the page
    app.session_state[state.SECOND_ORIGIN] = ("sample", "digit 9")
    app.run()
    assert linked(app, "channel") == "4"
    is_at(click(app, "tour", "step", 3), tour, 3)
    assert state.SECOND_ORIGIN not in app.session_state
    assert "channel" not in app.query_params
    is_at(click(app, "tour", "step", 2), tour, 2)
    click(app, "tour", "play", True)
    assert linked(app, "autoplay") == "on"
    assert shown(app, "-tour")["on"]
    is_at(click(app, "tour", "step", 1), tour, 1)
    assert shown(app, "-tour")["on"]
    before = chosen(app)
    click(app, "tour", "leave", True)
    assert went_well(app)
    assert not [one for one in app.get("bidi_component") if one.proto.id.endswith("-tour")]
    assert chosen(app) == before
    assert app.session_state["page"] == "predict"
    assert not {"tour", "step", "autoplay", "present"} & set(app.query_params)
    turn_to(app, "feature_maps")
    assert "tour" not in app.query_params


def test_the_same_dot_makes_the_step_as_it_was(open_app: Open, small: None) -> None:
    app = open_app("start", tour="small", step="2")
    app.session_state[state.CHANNEL.key] = 4
    app.run()
    is_at(click(app, "tour", "step", 2), open_tour("small"), 2)


def test_leaving_the_presentation_leaves_the_tour(open_app: Open, small: None) -> None:
    app = open_app("start", tour="small")
    click(app, "present", "present", False)
    assert not {"tour", "present"} & set(app.query_params)
    app.query_params["tour"] = "small"
    app.query_params["step"] = "3"
    is_at(app.run(), open_tour("small"), 3)


def test_visitors_cannot_leave_a_tour_that_always_plays(open_app: Open, small: None) -> None:
    app = open_app("start", tour="small", autoplay="always")
    is_at(app, open_tour("small"), 1)
    bar = shown(app, "-tour")
    assert bar["on"]
    assert bar["always"]
    is_at(click(app, "present", "present", False), open_tour("small"), 1)
    is_at(click(app, "tour", "step", 2), open_tour("small"), 2)
    assert linked(app, "autoplay") == "always"


def test_a_file_of_this_machine_is_a_tour_but_not_on_a_server(
    open_app: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "own.toml"
    path.write_text(SMALL)
    is_at(open_app("start", tour=str(path), step="2"), open_tour(str(path)), 2)
    monkeypatch.setenv("VIZAPP_MODE", "server")
    app = open_app("start", tour=str(path))
    assert "cannot be opened here" in sentences(app)
    assert str(tmp_path) not in sentences(app)
    assert "tour" not in app.query_params


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ({"tour": "first"}, "There is no tour 'first'. Did you mean first-look"),
        ({"tour": "small", "step": "9"}, "The tour 'Small' has 3 steps and no step 9. This is the first."),
        ({"tour": "small", "step": "two"}, "The link's choice of step was ignored. 'two' is not a whole number"),
        ({"tour": "gone.toml"}, "The tour gone.toml cannot be read: No such file or directory."),
    ],
)
def test_a_wrong_link_to_a_tour_is_told_in_one_sentence(
    open_app: Open, small: None, address: dict[str, str], told: str
) -> None:
    app = open_app("about", **address)
    assert went_well(app)
    assert len(app.warning) == 1
    assert told in sentences(app)
    assert ("tour" in app.query_params) == (address["tour"] == "small")


def test_a_step_whose_network_or_photo_is_missing_says_so(
    open_app: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SMALL.replace("picture=digit+3", "picture=digit+33").replace(
        "vizapp/lenet5-digits&picture=digit+4", "vizapp/lenet"
    )
    (tmp_path / "small.toml").write_text(text)
    monkeypatch.setenv("VIZAPP_TOURS", str(tmp_path))
    app = open_app("about", tour="small")
    assert "Step 1: the choice of picture was ignored. There is no picture 'digit 33'." in sentences(app)
    assert went_well(app)
    app = open_app("about", tour="small", step="2", network="vizapp/lenet5-digits")
    assert "Step 2: the choice of network was ignored. There is no network 'vizapp/lenet'." in sentences(app)
    assert went_well(app)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('title = "Small"', "title = Small", "at line 2"),
        ("seconds = 9", "seconds = nine", "at line 15"),
        ("seconds = 9", "seconds = 0", "Step 2 of the tour mine.toml, line 10, takes 0 seconds; write 2 to 3600."),
        ('title = "Its maps"', "", "Step 2 of the tour mine.toml, line 10, has no title."),
        ('title = "Its maps"', "title = 3", "line 10, has 3 as its title."),
        ('title = "Its maps"', 'title = "A"\nnote = "B"', "line 10, has 'note', which tours do not have."),
        ("feature_maps?", "feature_map?", "line 10, names the page 'feature_map', which there is not. Did you mean"),
        ("&layer=features.1", "&lager=features.1", "line 10, names 'lager', which links to feature_maps do not have. Did you"),
        ("channel=2", "channel=two", "line 10, has a wrong channel. 'two' is not a whole number"),
        ("channel=2", "window=3", "line 10, names 'window', which links to feature_maps do not have."),
        ('title = "Small"', 'titel = "Small"', "The tour mine.toml has 'titel', which tours do not have. Did you mean title"),
        ("[[steps]]", "[[stops]]", "has 'stops', which tours do not have. Did you mean steps"),
    ],
)  # fmt: skip
def test_an_error_in_a_file_is_told_with_its_line(before: str, after: str, told: str) -> None:
    assert before in SMALL
    with pytest.raises(VizError) as error:
        read_tour(SMALL.replace(before, after), "mine", "mine.toml")
    assert told in str(error.value)
    assert error.value.code == "bad-tour"


@pytest.mark.parametrize(
    "content", ["title = 'a'\nsteps = []", "title = 'a'\nsteps = [3]", "title = 'a'\nsteps = 3", ""]
)
def test_a_file_without_steps_is_no_tour(content: str) -> None:
    with pytest.raises(VizError):
        read_tour(content, "mine", "mine.toml")


def test_a_link_copied_during_a_tour_loses_what_is_of_that_tour() -> None:
    text = SMALL.replace("&top=3", "&top=3&present=on&tour=first-look&step=2&autoplay=on")
    assert set(read_tour(text, "small").steps[0].query) == {"network", "picture", "top"}
    assert url.FOLDER in read_tour(SMALL.replace("&top=3", "&folder=photos"), "small").steps[0].query
