"""Parameters are checked, and an error message says what is expected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from vizapp.errors import VizError
from vizapp.methods import methods
from vizapp.methods.params import Params, build, knob, knobs


@dataclass(frozen=True)
class Some(Params):
    window: int = knob(32, "Side of the square", low=1, high=512, unit="pixels")
    opacity: float = knob(0.5, "How much shows through", low=0, high=1)
    flip: bool = knob(False, "Also the mirror image")
    fill: Literal["grey", "black"] = knob("grey", "What covers")
    name: str = knob("", "A name")


def test_defaults_and_given_values() -> None:
    assert build(Some, {}, "method 'some'") == Some()
    assert build(Some, {"window": 8, "fill": "black"}, "m") == Some(window=8, fill="black")


def test_text_is_read_as_the_command_line_and_links_give_it() -> None:
    given = {"window": "8", "opacity": "0.25", "flip": "yes", "fill": "black", "name": "x"}
    assert build(Some, given, "m") == Some(8, 0.25, True, "black", "x")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"window": 0}, "window is 0; it must be a whole number from 1 to 512 pixels."),
        ({"window": "many"}, "window is 'many'; it must be a whole number from 1 to 512 pixels."),
        ({"window": 2.5}, "window is 2.5; it must be a whole number from 1 to 512 pixels."),
        ({"window": True}, "window is True; it must be a whole number"),
        ({"window": None}, "window is None; it must be a whole number"),
        ({"opacity": float("nan")}, "opacity is nan; it must be a number from 0 to 1."),
        ({"opacity": "inf"}, "opacity is 'inf'; it must be a number from 0 to 1."),
        ({"flip": "perhaps"}, "flip is 'perhaps'; it must be yes or no."),
        ({"fill": "gray"}, "fill is 'gray'; it must be one of grey, black. Did you mean grey?"),
        ({"windw": 8}, "The method 'some' has no parameter 'windw'. Did you mean window?"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(VizError) as caught:
        build(Some, given, "method 'some'")
    assert str(caught.value).startswith(sentence)


@dataclass(frozen=True)
class Lists(Params):
    numbers: tuple[float, ...] = knob((), "Numbers")
    names: tuple[str, ...] = knob((), "Names")


def test_lists_are_of_texts_or_of_numbers() -> None:
    for given in ("1, -2.5,", ["1", "-2.5"], (1, -2.5), [np.float32(1), -2.5]):
        assert build(Lists, {"numbers": given}, "test").numbers == (1.0, -2.5)
    assert build(Lists, {"names": "a, b"}, "test").names == ("a", "b")
    for wrong in ("1,x", [None], [float("inf")], ["nan"], [True], 3, [10**400]):
        with pytest.raises(VizError, match="a list of finite numbers"):
            build(Lists, {"numbers": wrong}, "test")


def test_a_parameter_without_a_text_form_is_read_by_its_own_function() -> None:
    @dataclass(frozen=True)
    class Read(Params):
        pairs: tuple[int, ...] = knob((), "Pairs", read=lambda value: (len(value),))

    assert build(Read, {"pairs": "abc"}, "m") == Read((3,))
    assert build(Read, {}, "m") == Read()


def test_knobs_describe_the_form() -> None:
    found = knobs(Some)
    assert list(found) == ["window", "opacity", "flip", "fill", "name"]
    window = found["window"]
    assert (window.kind, window.default, window.low, window.high, window.unit) == (int, 32, 1, 512, "pixels")
    assert found["fill"].choices == ("grey", "black")


def test_the_square_of_an_occlusion_is_32_pixels_every_8() -> None:
    params = methods()["occlusion"].params
    assert [knobs(params)[name].default for name in ("window", "stride")] == [32, 8]
    for given, expected in (({}, (32, 32)), ({"window": 32}, (32, 32)), ({"width": 5}, (32, 5))):
        found = build(params, given, "test")
        assert (found.size, found.stride) == (expected, 8)  # type: ignore[attr-defined]
