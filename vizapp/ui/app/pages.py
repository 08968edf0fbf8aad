"""The pages of the app. A hand-made page is a file in `vizapp/ui/pages` and a row of `PAGES`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from vizapp.methods import methods
from vizapp.methods.base import Method
from vizapp.ui.session import forms, state
from vizapp.ui.session.choice import Choice

PAGES_FOLDER = Path(__file__).resolve().parents[1] / "pages"


@dataclass(frozen=True)
class PageSpec:
    """A page: its file in `vizapp/ui/pages`, its title and icon, and the choices that its address carries.

    `question`: what the page answers, in the words of a newcomer. `methods` are the keys of the methods that it shows.
    `form` are the methods whose parameters it draws and puts in the address. `name` is its `key` where several pages share a
    file.
    """

    file: str
    title: str
    icon: str
    choices: tuple[Choice, ...] = ()
    methods: tuple[str, ...] = ()
    form: tuple[str, ...] = ()
    default: bool = False
    name: str = ""
    question: str = ""

    @property
    def key(self) -> str:
        """The page's name in addresses and in the log: `occlusion` of `occlusion/page.py`."""
        return self.name or self.file.removesuffix(".py").removesuffix("/page")

    @property
    def carried(self) -> tuple[Choice, ...]:
        """All choices that the page's address carries."""
        return (
            *self.choices,
            *(one for method in self.form for one in forms.choices(method).values()),
            state.CARD,
            state.CARD_OF,
        )

    @property
    def page(self) -> st.Page:
        """The page for Streamlit."""
        return st.Page(
            PAGES_FOLDER / self.file, title=self.title, icon=self.icon, default=self.default, url_path=self.key
        )


PAGES = (
    PageSpec("start/page.py", "Start", ":material/home:", default=True, question="One photo, one network, all questions"),
    PageSpec(
        "predict/page.py", "Predict", ":material/leaderboard:",
        (state.TOP, state.CROPS, state.CLASS, state.THRESHOLD), ("predict",),
        question="What is it?",
    ),
    PageSpec(
        "feature_maps/page.py", "Feature maps", ":material/grid_view:",
        (state.STAGES, state.LAYER, state.CHANNEL, state.CELL, state.WALK, state.ORDER, state.SCALE, state.VIEW),
        ("activations", "stages", "arithmetic"), ("stages",), question="What do early and late layers see?",
    ),
    PageSpec(
        "projection/page.py", "Projection", ":material/filter_center_focus:",
        (state.LAYER, state.CHANNEL, state.CELL, state.MODE, state.PART, state.CONTRAST), ("projection",), ("projection",),
        question="What does one unit look for?",
    ),
    PageSpec(
        "gallery/page.py", "Gallery", ":material/photo_library:",
        (
            state.DATA, state.SITES, state.LAYER, state.CHANNEL, state.SORT, state.SEED, state.GROUP, state.SEARCH,
            state.WITHIN, state.PAGE,
        ),
        ("gallery",), question="Which photos excite a unit?",
    ),
    PageSpec(
        "evaluate/page.py", "Evaluate", ":material/fact_check:", (state.DATA, state.CONFUSION), ("evaluate",), ("evaluate",),
        question="How often is it right, and where is it wrong?",
    ),
    PageSpec(
        "occlusion/page.py", "Occlusion", ":material/filter_none:",
        (
            state.WAY, state.PHOTOS, state.WINDOW, state.STRIDE, state.MAP, state.CLASS, state.SHOWN, state.POSITION,
            state.SECOND_PICTURE, state.SECOND_NETWORK, state.SECOND_WEIGHTS,
        ), ("occlusion",), ("occlusion",), question="What if a part is hidden?",
    ),
    PageSpec(
        "attribution/page.py", "Attribution", ":material/local_fire_department:",
        (
            forms.target("attribution"), state.CLASS, state.LAYER, state.CHANNEL, state.KIND, state.BY, state.SHARE,
            state.SEVERAL, state.PHOTOS,
        ), ("attribution", "trust"), ("trust",), question="Which part mattered?",
    ),
    PageSpec(
        "transform/page.py", "Transform", ":material/rotate_right:",
        (state.AMOUNT, state.SEVERAL, state.PHOTOS, state.SECOND_NETWORK, state.SECOND_WEIGHTS), ("transform",), ("transform",),
        question="What if it is moved, turned or blurred?",
    ),
    PageSpec(
        "knockout.py", "Knock out", ":material/blur_off:", (state.LAYER, state.CHANNEL, state.CLASS, state.VIEW), ("knockout",),
        ("knockout",), question="What is one unit for?",
    ),
    PageSpec(
        "correspondence/page.py", "Correspondence", ":material/join_inner:", (state.PHOTOS, state.PARTS),
        ("correspondence",), ("correspondence",), question="Is it the part, or just its place?",
    ),
    PageSpec(
        "evolution/page.py", "During training", ":material/timeline:", (state.DATA, state.LAYER, state.EPOCH),
        ("evolution",), ("evolution",), question="How did its features grow?",
    ),
    PageSpec(
        "neighbours/page.py", "Neighbours", ":material/hub:",
        (state.DATA, state.LAYER, state.CHANNEL, state.CELL, state.COLOUR), ("neighbours", "atlas"), ("neighbours", "atlas"),
        question="Which photos are alike to it?",
    ),
    PageSpec(
        "colours/page.py", "Colours", ":material/palette:", (state.LAYER, state.CELL, state.PHOTOS, state.BLEND), ("colours",),
        ("colours",), question="What looks alike to it?",
    ),
    PageSpec(
        "probe/page.py", "What each layer knows", ":material/school:", (state.DATA,), ("probe", "teach"), ("probe",),
        question="Which layer can tell my classes apart?",
    ),
    PageSpec(
        "dense/page.py", "Dense", ":material/apps:", (state.PLACE, state.TINT, state.CLASS), ("dense",), ("dense",),
        question="What does it see at every place?",
    ),
    PageSpec(
        "filters/page.py", "Filters", ":material/texture:", (state.LAYER, state.CHANNEL, state.VIEW, state.IDEAL),
        ("filters", "ideal"), ("filters", "ideal"), question="What are its filters like?",
    ),
    PageSpec(
        "compare/page.py", "Compare", ":material/compare_arrows:",
        (state.OTHER, state.OTHER_WEIGHTS, state.OTHER_CHECKPOINT, state.PART, state.MATCH, state.SECOND_MATCH),
        question="Where do two networks differ?",
    ),
    PageSpec(
        "architecture/page.py", "Architecture", ":material/account_tree:",
        (state.ASPECT, state.TRAINED, state.AMONG, state.AXIS), ("architecture",), ("architecture",),
        question="What is it made of?",
    ),
    PageSpec("about.py", "About", ":material/info:", question="What is this app?"),
)  # fmt: skip


def sections() -> dict[str, tuple[PageSpec, ...]]:
    """The pages by section of the navigation: the hand-made ones without a name, and a generic one per other method."""
    shown = {key for page in PAGES for key in page.methods}
    more = tuple(_generic(method) for key, method in methods().items() if key not in shown)
    return {"": PAGES, "More": more} if more else {"": PAGES}


def _generic(method: Method) -> PageSpec:
    """A page for a method that has none of its own, drawn from the declarations of the method."""
    choices: tuple[Choice, ...] = ()
    if "unit" in method.inputs:
        choices += (forms.target(method.key), state.CLASS, state.LAYER, state.CHANNEL, state.CELL)
    if "folder" in method.inputs:
        choices += (state.DATA,)
    key = method.key if all(method.key != page.key for page in PAGES) else f"{method.key}_method"
    return PageSpec(
        "method.py", method.title, ":material/widgets:", choices, (method.key,), (method.key,), name=key,
        question=method.summary,
    )  # fmt: skip


def pages() -> dict[str, PageSpec]:
    """All pages by key, in the order of the navigation."""
    return {page.key: page for section in sections().values() for page in section}
