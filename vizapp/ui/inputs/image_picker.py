"""Where pictures come from: one picker, for a single picture, for several, and for a whole collection.

Some sources are chosen by their button alone (samples, digits). The others need a file or a path first: until they have it,
the source is pending and the earlier choice stays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import streamlit as st

from vizapp.errors import VizError
from vizapp.media import samples
from vizapp.media.datasets import NAMES, is_downloaded
from vizapp.media.source import Source, spread
from vizapp.settings import settings
from vizapp.ui.inputs import datasets, images, uploads
from vizapp.ui.inputs.images import Origin
from vizapp.ui.session import access, messages, state
from vizapp.ui.session.choice import Choice
from vizapp.ui.widgets.components import component
from vizapp.zoo.network import Network

Kept = TypeVar("Kept")
_SOURCES = {
    "samples": "Samples", "digits": "Digits", "upload": "Upload", "camera": "Camera", "folder": "Folder", "dataset": "Data set"
}  # fmt: skip
_COLUMNS = 8  # of the sprite of samples
_FIRST = len(samples.OBJECTS)  # samples of the start page
_PER_PAGE = 16  # thumbnails of a folder
_FIELD = 438  # pixels of an uploader or a path beside the sources: as wide as the samples of the start page


# Choices


def choose_one(page: str) -> None:
    """Draw the picker of a single picture, which becomes the current one. `page` is the prefix of the widget keys."""
    current = {"folder": "folder", "given": "upload"}.get(images.origin()[0], "samples")
    source = _source(page, ("samples", "upload", "camera", "folder"), current)
    if source == "samples":
        _samples(page)
        names, now = images.sample_names(), images.origin()
        at = names.index(now[1]) if now[0] == "sample" and now[1] in names else None
        _steps(page, len(names), at, lambda number: _choose_sample(names[number]))
    elif source == "folder":
        _folder_picture(page)
    else:
        _upload_picture(page, source)


def choose_own(page: str) -> None:
    """Draw a large button that uploads a photo, which becomes the current one, and the first samples beside it."""
    with st.container(key=f"{page}_own"):
        _take_uploads(page, "Use your photo")
    _strip(page)
    _samples(page, _FIRST)


def choose_several(
    page: str, choice: Choice, most: int, advice: str = "The command line and Python take more."
) -> list[tuple[Origin, str]]:
    """Draw the picker of at most `most` pictures; returns the origin and the name of each.

    `choice` is "samples", "upload", or the path of a folder, of which evenly spaced pictures are taken. `advice`: what to do
    where there are more.
    """
    chosen = state.get(choice)
    current = chosen if chosen in ("samples", "upload") else "folder"
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"{page}_pictures"):
        source = _source(page, ("samples", "upload", "folder"), current, choice, ("samples", "upload"))
        if source == "samples":
            return [(("sample", name), name) for name in images.sample_names()[:most]]
        if source == "upload":
            label = f"Photos, at most {settings().upload_mb} MB each"
            kept, _ = _uploads(page, state.UPLOADED, label, _keep_picture, several=True)
            _explain_limit(len(kept), most, advice)
            return [(origin, origin[2]) for origin in kept[:most]]
        path = _path(page, choice, chosen if current == "folder" else "")
    if not path:
        return []
    found = images.folder(path)
    _explain_limit(len(found), most, advice)
    return [(("folder", path, name), name) for name in map(found.path, spread(len(found), most))]


def choose_collection(page: str, network: Network) -> datasets.Collection | None:
    """Draw the picker of a collection; returns the listed collection, or None where a message says what is missing."""
    chosen = datasets.chosen_text(network)
    current = datasets.kind(chosen)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"{page}_data"):
        names = ("samples", "digits", "folder", "upload", "dataset")
        source = _source(page, names, current, state.DATA, ("samples", "digits"))
        if source == "folder":
            _path(page, state.DATA, chosen if current == "folder" else "")
        elif source == "upload":
            _upload_archive(page)
        elif source == "dataset":
            _dataset(page, chosen)
    if source != current:
        if source == "dataset":
            messages.info("Choose a data set, then Open. It is downloaded into the cache folder if it is not there.")
        return None
    if source == "dataset" and not _is_available(page, chosen):
        return None
    return datasets.list_collection(chosen)


def _explain_limit(count: int, most: int, advice: str) -> None:
    if count > most:
        messages.info(f"Using {most} of {count:,} photos. {advice}")


# The sources


def _source(
    page: str, names: Sequence[str], current: str, choice: Choice | None = None, instant: Collection[str] = ()
) -> str:
    """Draw the sources as a row of buttons; returns the one that is shown.

    Args:
        page: Prefix of the widget keys.
        names: Sources on offer; folders only where this server opens any.
        current: The source of the current choice.
        choice: The choice; None if only the button holds it.
        instant: Sources that are chosen by their button alone.
    """
    pending, over = state.load(f"{page}.pending", (None, None))
    shown = pending if pending is not None and over == (choice and state.get(choice)) else current
    names = [name for name in names if name != "folder" or access.names_folders()]
    if shown not in names:
        messages.warn("Folders of this machine cannot be opened here; upload your photos.")
        shown = names[0]
    state.save(f"{page}.source", shown)
    st.segmented_control(
        "Source of photos", names, format_func=_SOURCES.__getitem__, required=True, label_visibility="collapsed",
        key=f"{page}.source", on_change=_take_source, args=(page, choice, instant), width="content" if choice else "stretch",
    )  # fmt: skip
    return str(shown)


def _take_source(page: str, choice: Choice | None, instant: Collection[str]) -> None:
    source = state.load(f"{page}.source")
    if choice is not None and source in instant:
        _take(page, choice, source)
    else:
        state.save(f"{page}.pending", (source, choice and state.get(choice)))


def _take(page: str, choice: Choice, value: str) -> None:
    state.clear(f"{page}.pending")
    state.put(choice, value)


def _samples(page: str, most: int | None = None) -> None:
    """Draw at most `most` samples: clear objects, and the rest in a fold."""
    names, origin = images.sample_names()[:most], images.origin()
    chosen = origin[1] if origin[0] == "sample" else None
    first = [name for name in names if name in samples.OBJECTS] or names
    _sample_sheet(f"{page}.samples", first, chosen)
    more = [name for name in names if name not in first]
    if more:
        with st.expander("More", expanded=chosen in more):
            _sample_sheet(f"{page}.more_samples", more, chosen)


def _sample_sheet(key: str, names: list[str], chosen: str | None) -> None:
    data = {
        "sprite": images.sprite(tuple(names), _COLUMNS), "tile": [images.THUMB, images.THUMB], "columns": _COLUMNS,
        "side": 48, "most": 48, "items": names, "titles": names, "label": f"{len(names)} sample photos", "chosen": chosen,
    }  # fmt: skip
    component("sheet")(key=key, data=data, on_chosen_change=lambda: _take_sample(key))


def _take_sample(key: str) -> None:
    name = state.clicked(key, "chosen")
    if name is not None:
        _choose_sample(name)


def _choose_sample(name: str) -> None:
    state.put(state.SAMPLE, name)
    state.save(state.ORIGIN, ("sample", name))


def _steps(page: str, count: int, at: int | None, choose: Callable[[int], None]) -> None:
    """Draw buttons that choose the photo before and after number `at` of `count`; the keys P and N press them."""
    if count < 2 or at is None:
        return
    with st.container(horizontal=True, gap="small", vertical_alignment="center", key=f"{page}_steps"):
        for name, key, to in (("Previous", "P", at - 1), ("Next", "N", at + 1)):
            st.button(
                name, key=f"{page}.{name.lower()}", shortcut=key, width="stretch", disabled=not 0 <= to < count,
                on_click=choose, args=(to,),
            )  # fmt: skip
    st.caption(f"Photo {at + 1:,} of {count:,}")


def _folder_picture(page: str) -> None:
    field, box, shown, origin = f"{page}.folder", f"{page}.folder_picture", f"{page}.folder_shown", images.origin()
    elsewhere = origin[0] == "folder" and state.load(shown) != origin  # chosen by a link or on a page
    if elsewhere:
        state.save(field, origin[1])
    path = st.text_input(f"Path of a folder {access.place()}", key=field, persist_state="session").strip()
    if not path:
        return
    found = images.folder(path)
    names = [found.path(index) for index in range(len(found))]
    if elsewhere:
        state.save(box, origin[2] if origin[2] in names else None)
    name = st.selectbox(f"{len(found)} photos", names, key=box)
    if name is not None:
        state.save(state.ORIGIN, ("folder", path, name))
    state.save(shown, images.origin())
    _folder_sheet(page, found, path, name)
    at = found.index_of(name) if name is not None else None
    _steps(page, len(names), at, lambda number: state.save(box, names[number]))


def _folder_sheet(page: str, found: Source, path: str, name: str | None) -> None:
    """Draw thumbnails of some photos of a folder, beginning with the page of the chosen one, and buttons to turn the pages."""
    key, turned, count = f"{page}.folder_sheet", f"{page}.folder_page", len(found)
    at = found.index_of(name) if name is not None else 0
    about, first = state.load(turned, (None, 0))
    if about != (path, name) or first >= count:
        first = at // _PER_PAGE * _PER_PAGE
    numbers = range(first, min(first + _PER_PAGE, count))
    paths = [found.path(number) for number in numbers]
    sprite = images.folder_thumbs(found, numbers, _COLUMNS)
    if sprite is not None:
        data = {
            "sprite": sprite, "tile": [images.THUMB, images.THUMB], "columns": _COLUMNS, "side": 48, "most": 48,
            "items": paths, "titles": paths, "label": f"Photos {first + 1} to {numbers[-1] + 1} of the folder",
            "chosen": name,
        }  # fmt: skip
        component("sheet")(key=key, data=data, on_chosen_change=lambda: _take_folder_photo(page, key))
    if count <= _PER_PAGE:
        return
    with st.container(horizontal=True, gap="small", vertical_alignment="center", key=f"{page}_folder_pages"):
        for sign, word, to in (("‹", "before", first - _PER_PAGE), ("›", "after", first + _PER_PAGE)):
            st.button(
                sign, key=f"{page}.thumbs_{word}", help=f"Thumbnails {word} these", disabled=not 0 <= to < count,
                on_click=state.save, args=(turned, ((path, name), to)),
            )  # fmt: skip
        st.caption(f"{first + 1:,} to {numbers[-1] + 1:,} of {count:,}", width="content")


def _take_folder_photo(page: str, key: str) -> None:
    name = state.clicked(key, "chosen")
    if isinstance(name, str):
        state.save(f"{page}.folder_picture", name)


def _path(page: str, choice: Choice, chosen: str) -> str:
    """Draw a field for the path of a folder; returns the `chosen` one. It starts with the folder of the sidebar."""
    key = f"{page}.folder"
    if not state.has(key):
        state.save(key, chosen or state.load("sidebar.folder", ""))
    elif chosen and not state.has(f"{page}.pending"):
        state.save(key, chosen)
    st.text_input(
        "Folder", key=key, label_visibility="collapsed", width=_FIELD, on_change=_take_path, args=(page, choice),
        placeholder=f"Path of a folder, zip or CSV file {access.place()}; folders are classes",
    )  # fmt: skip
    if not chosen and state.load(key):
        st.button("Open", key=f"{page}.open_folder", on_click=_take_path, args=(page, choice))
    return chosen


def _take_path(page: str, choice: Choice) -> None:
    path = str(state.load(f"{page}.folder")).strip()
    if path:
        _take(page, choice, path)


def _dataset(page: str, chosen: str) -> None:
    name, part = datasets.name_and_part(chosen)
    shown = []
    for key, title, value, names, width in (
        ("dataset", "Data set", name, list(NAMES), 200), ("dataset_part", "Part", part, ["test", "train"], 100)
    ):  # fmt: skip
        if not state.has(f"{page}.{key}"):
            state.save(f"{page}.{key}", value if value in names else names[0])
        shown.append(st.selectbox(title, names, label_visibility="collapsed", width=width, key=f"{page}.{key}"))
    wanted = datasets.text_of(*shown)
    if wanted != chosen:
        st.button(
            "Open", key=f"{page}.open_dataset", on_click=_take_dataset, args=(page, wanted),
            help="Downloaded into the cache folder if it is not there.",
        )  # fmt: skip


def _take_dataset(page: str, text: str) -> None:
    """Open a data set, and download it if it is not there."""
    state.wish("download", text)
    _take(page, state.DATA, text)


def _is_available(page: str, text: str) -> bool:
    """Whether the data set is on this machine or the user asked for it; a link never starts a download."""
    if state.is_wished("download", text) or is_downloaded(text):
        state.wish("download", text)
        return True
    messages.info("This data set is not on this machine yet. It is downloaded once, into the cache folder.")
    st.button(
        "Download", key=f"{page}.download", type="primary", icon=":material/download:", on_click=_take_dataset,
        args=(page, text),
    )  # fmt: skip
    return False


# Uploads


def _upload_picture(page: str, source: str) -> None:
    # No list of extensions: our message about an unreadable file says more than Streamlit's "not allowed".
    with st.container(key=f"{page}_own_files"):
        _take_uploads(page, f"Drop photos here, at most {settings().upload_mb} MB each", camera=source == "camera")
    if images.origin()[0] == "unreadable":
        messages.info(images.origin()[1])  # pages that use no photo say nothing about it
        st.button("Show another photo", key=f"{page}.another", on_click=_leave_unreadable)
    _strip(page, remove=True)
    kept, now = images.uploaded(), images.origin()
    at = next((number for number, one in enumerate(kept) if one[:2] == now[:2]), None)
    _steps(page, len(kept), at, lambda number: state.save(state.ORIGIN, kept[number]))
    if now[0] == "given":
        with suppress(VizError):  # the page says that it is gone
            messages.info(f"Using the upload {images.current().name}.")


def _take_uploads(page: str, label: str, camera: bool = False) -> None:
    """Draw an uploader that is empty again once its files are kept; the first photo of them becomes the current one."""
    times = f"{page}.times"
    _, new = _uploads(
        page, f"{page}.uploads", label, _keep_picture_or_error, several=not camera, camera=camera,
        time=state.load(times, 0),
    )  # fmt: skip
    photos = [images.add_upload(one) for one in new if one[0] == "given"]
    for one in new:
        if photos and one[0] != "given":
            state.note(one[1])
    if new:
        state.save(state.ORIGIN, photos[0] if photos else new[-1])
        if not camera:
            state.save(times, state.load(times, 0) + 1)
            st.rerun()


def _leave_unreadable() -> None:
    kept = state.load(state.UPLOADS, [])
    state.clear(state.ORIGIN)
    if kept:
        state.save(state.ORIGIN, tuple(kept[-1]))


def _strip(page: str, remove: bool = False) -> None:
    """Draw thumbnails of the uploaded photos, if there are any. `remove`: with a button that removes the current one."""
    images.add_linked()
    found, now = images.uploaded(), images.origin()
    if not found:
        return
    key, columns = f"{page}.strip", min(len(found), _COLUMNS)
    data = {
        "sprite": images.upload_thumbs(found, columns), "tile": [images.THUMB, images.THUMB], "columns": columns, "side": 48,
        "most": 48, "items": [one[1] for one in found], "titles": [one[2] for one in found],
        "label": f"{len(found)} of your photos", "chosen": now[1] if now[0] == "given" else None,
    }  # fmt: skip
    component("sheet")(key=key, data=data, on_chosen_change=lambda: _take_upload(key))
    current = next((one for one in found if one[:2] == now[:2]), None)
    if remove and current is not None:
        st.button(
            "Remove this photo", key=f"{page}.remove", icon=":material/delete:", type="tertiary",
            on_click=images.remove_upload, args=(current,),
        )  # fmt: skip


def _take_upload(key: str) -> None:
    digest = state.clicked(key, "chosen")
    chosen = next((one for one in images.uploaded() if one[1] == digest), None)
    if chosen is not None:
        state.save(state.ORIGIN, chosen)


def _keep_archive(file: Any) -> str | None:
    return datasets.keep(uploads.content_of(file, settings().upload_mb, "zip files"))


def _keep_picture(file: Any) -> Origin | None:
    return images.keep(uploads.content_of(file, settings().upload_mb, "photos"), file.name)


def _keep_picture_or_error(file: Any) -> Origin | None:
    """The origin of an upload. For a file that is not a picture it is the error, so no older picture stands under its name."""
    try:
        made = _keep_picture(file)
    except VizError as error:
        made = ("unreadable", str(error), error.code)
    if made is not None:  # else it was cancelled, and may be started again
        uploads.drop_file(file)
    return made


def _upload_archive(page: str) -> None:
    label = f"A zip file of photos, at most {settings().upload_mb} MB; its folders are classes"
    _, new = _uploads(page, state.UPLOAD, label, _keep_archive)
    if new:
        _take(page, state.DATA, new[-1])
        st.rerun()


def _uploads(
    page: str,
    store: str,
    label: str,
    keep: Callable[[Any], Kept | None],
    several: bool = False,
    camera: bool = False,
    time: int = 0,
) -> tuple[list[Kept], list[Kept]]:
    """Draw an uploader; returns all files that were kept, and those that are new in this run.

    When a page is opened again its uploader is empty, but the files are kept until the user removes them.

    Args:
        page: Prefix of the widget keys.
        store: Session key of the kept files, by file ID.
        label: Text over the uploader.
        keep: Keeps a file; one for which it raises VizError is skipped with a message, and one that was cancelled without.
        several: Whether several files are allowed.
        camera: Whether the file is a photo taken by the camera.
        time: A new number gives an empty uploader.
    """
    key = f"{page}.{'camera' if camera else 'upload'}{f'.{time}' if time else ''}"
    more: dict[str, Any] = {"key": key, "on_change": _forget_removed, "args": (key, store)}
    files: Any
    if camera:
        files = st.camera_input(label, label_visibility="collapsed", **more)
    else:
        more |= {"width": _FIELD} if page != "sidebar" else {}
        files = st.file_uploader(label, accept_multiple_files=several, max_upload_size=settings().upload_mb, **more)
    given = files if isinstance(files, list) else [files] if files is not None else []
    kept, new = dict(state.load(store, {})), []
    for file in given:
        if file.file_id not in kept:
            try:
                one = keep(file)
            except VizError as error:
                messages.warn(str(error))
                continue
            if one is not None:
                kept[file.file_id] = one
                new.append(one)
    if given:
        kept = {number: value for number, value in kept.items() if number in {file.file_id for file in given}}
    state.save(store, kept)
    return list(kept.values()), new


def _forget_removed(key: str, store: str) -> None:
    if not state.load(key):
        state.clear(store)
        if images.origin()[0] == "unreadable":
            state.clear(state.ORIGIN)
