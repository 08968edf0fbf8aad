"""The current networks: loaded in the background, kept in a bounded cache that all sessions share."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st
import torch

from vizapp.engine.trace.sites import Site
from vizapp.errors import VizError
from vizapp.files import atomic_write
from vizapp.service.jobs import Tick
from vizapp.service.lru_cache import ByteBoundedCache, forget
from vizapp.settings import settings
from vizapp.ui.inputs import interventions, stored_uploads, uploads
from vizapp.ui.session import access, compute, downloads, messages, state, url
from vizapp.ui.session.choice import Choice
from vizapp.ui.session.memory import empty_caches
from vizapp.zoo import Card, describe, group_networks, load, registry, taught
from vizapp.zoo.network import Network
from vizapp.zoo.weights import needs_download

_SOURCES_OF = {"published": "default", "random": "none"}  # the `weights` argument of `load` for each choice
NETWORK_SUFFIXES = (".onnx", ".pt2")
_TASKS = {
    "classification": "Classification", "segmentation": "Segmentation", "detection": "Detection", "features": "Features",
}  # fmt: skip
CHECKPOINTS = ["pth", "pt", "th", "ckpt", "safetensors"]


@st.cache_resource(show_spinner=False)
def open_networks() -> ByteBoundedCache[Network]:
    """The loaded networks of all sessions. An evicted one stays on its device while a session uses it."""
    capacity = int(settings().network_gb * 2**30)
    return ByteBoundedCache(capacity, min_kept_under_pressure=1, on_evict=empty_caches)


def labels() -> dict[str, str]:
    """A label per network of the zoo and per taught one, from its description: `torchvision/resnet50 · 25.6 M`."""
    return {
        row.name: " · ".join(part for part in (row.name, row.parameters) if part) for row in (*_own_rows(), *_rows())
    }


def _own_rows() -> tuple[ListedNetwork, ...]:
    """The taught networks; none on a shared server, where they are other people's."""
    if access.shared():
        return ()
    found = []
    for name in taught.names():
        with suppress(VizError):  # a damaged one is not offered
            known = describe(name)
            found.append(ListedNetwork(name, 0, _task(known), short_count(known.parameters or 0), ""))
    return tuple(found)


@dataclass(frozen=True)
class ListedNetwork:
    """A network in the chooser. `group`: its number in `registry.GROUPS`. `megabytes`: of its download, in words."""

    name: str
    group: int
    task: str
    parameters: str
    megabytes: str


@st.cache_resource(show_spinner=False, ttl=60)
def _rows() -> tuple[ListedNetwork, ...]:
    """The networks of the zoo by group, and in a group by source. Looked for again after a minute and after a download."""
    return tuple(
        ListedNetwork(
            card.name, group, _task(card), short_count(card.parameters) if card.parameters else "",
            card.size if group == 1 else "",
        )
        for group, cards in enumerate(group_networks().values()) for card in cards if not taught.is_own(card.name)
    )  # fmt: skip


def _task(card: Card) -> str:
    return _TASKS.get(card.task.partition(" ")[0], "Other")


def chooser_data(chosen: str, label: str = "Network", none: str = "") -> dict[str, Any]:
    """The data of the component `chooser`: all networks, and the chosen one if it is a file.

    `none`: the words of a first row, whose name is empty; without them there is no such row.
    """
    known = (*_own_rows(), *_rows())
    rows = [[row.name, row.group, row.task, row.parameters, row.megabytes] for row in known]
    if chosen and chosen not in labels() and is_file(chosen):
        rows.insert(0, [chosen, 0, _task(card(chosen)), "file", ""])
    tasks = [task for task in dict.fromkeys(_TASKS.values()) if any(row[2] == task for row in rows)]
    first = [["", 0, "", "", ""]] if none else []
    return {
        "label": label,
        "chosen": chosen,
        "rows": first + rows,
        "groups": registry.GROUPS,
        "tasks": tasks,
        "none": none,
    }


def badge() -> str:
    """What the title row says about the weights of the current network; empty if they are the published ones."""
    weights = state.get(state.WEIGHTS)
    if weights == "published":
        return "own weights" if is_file(state.get(state.NETWORK)) and state.get(state.NETWORK) not in labels() else ""
    return {"random": "random weights", "file": "own weights"}[weights]


def offered(*chosen: str | None) -> dict[str, str]:
    """The labels of all networks, and of those of the chosen ones that are files which may be opened here."""
    files = {name: f"{Path(name).name} · file" for name in chosen if name and name not in labels() and is_file(name)}
    return files | labels()


def is_file(text: str) -> bool:
    """Whether the text is the path of a network, and the user may open files here."""
    if not access.names_folders() or "\0" in text or text.startswith(("hf:", "hf-hub:")):
        return False
    try:
        path = access.allowed(text, "network")
    except VizError:
        return False
    return path.suffix.lower() in NETWORK_SUFFIXES or (
        (registry.is_path(text) or text not in labels()) and (path / "config.json").exists()
    )


def named(text: str) -> str:
    """The path of a network in the form that an address carries: it is no name of the zoo."""
    return text if registry.is_path(text) else f"./{text}"


def _source(name: str) -> str | Path:
    """What `load` takes: the name of a network of the zoo, or the path of a file.

    Raises:
        VizError: the path may not be opened on this server.
    """
    return name if name in labels() else access.allowed(name, "network")


def _stamp(name: str) -> tuple[int, ...]:
    """What changes with the files of a network that is no part of the zoo."""
    source = _source(name)
    files = [source, *sorted(source.glob("*"))[:50]] if isinstance(source, Path) and source.exists() else []
    if taught.is_own(name):
        files = [taught.file(name)]
    return tuple(number for file in files for number in (file.stat().st_mtime_ns, file.stat().st_size))


@st.cache_resource(show_spinner=False, max_entries=100)
def _card(name: str, stamp: tuple[int, ...], root: str) -> Card:
    return describe(_source(name))


def card(name: str) -> Card:
    """What is known about a network of the zoo or of a file without loading it.

    Raises:
        VizError: the file may not be opened here, is damaged or holds something else.
    """
    return _card(name, _stamp(name), str(settings().root))


def short_count(parameters: int) -> str:
    """A number of parameters in short form: `44.4 k`, `4.15 M`."""
    return f"{parameters / 1e6:.3g} M" if parameters >= 1e6 else f"{parameters / 1e3:.3g} k"


def summary(name: str, trained: bool = True) -> str:
    """A caption for a network: parameters, accuracy of the published weights if it is `trained` with these, input size."""
    known = card(name)
    parts = [short_count(known.parameters)] if known.parameters else []
    if known.accuracy and trained:
        parts.append(f"{known.accuracy:.3g} % top-1")
    return " · ".join([*parts, f"{known.input_size[2]} px"])


@st.cache_resource(show_spinner=False)
def devices() -> dict[str, str]:
    """The devices of this machine, with their labels."""
    found = {"auto": "Automatic", "cpu": "CPU"}
    for index in range(torch.cuda.device_count()):
        found[f"cuda:{index}"] = f"GPU {index}" if torch.cuda.device_count() > 1 else "GPU"
    return found


@st.cache_resource(show_spinner=False)
def _uploaded_files() -> tempfile.TemporaryDirectory[str]:
    """The folder of uploaded checkpoints, deleted when the app ends."""
    return tempfile.TemporaryDirectory(prefix="vizapp-")


def keep_checkpoint(content: bytes, name: str) -> str:
    """Keep an uploaded checkpoint; returns its name in an address."""
    digest = stored_uploads.digest_of(content, name)
    if not any(_folder(digest).glob("*")):
        stored_uploads.store(digest, content, name)
    _write_checkpoint(digest, content, name)
    return url.upload_text(digest)


def checkpoint(text: str) -> tuple[Path, str]:
    """The file of a checkpoint and the name to show. `text` is its name in an address: a path, or `upload/DIGEST`.

    Raises:
        VizError: the upload is not stored any more, or the path may not be opened on this server.
    """
    digest = url.upload_digest(text)
    if digest is None:
        return access.allowed(text, "file"), text
    found = next(iter(_folder(digest).glob("*")), None)
    if found is None:
        found = _write_checkpoint(digest, *stored_uploads.restore(digest, "checkpoint"))
    return found, found.name


def _folder(digest: str) -> Path:
    return Path(_uploaded_files().name) / digest


def _write_checkpoint(digest: str, content: bytes, name: str) -> Path:
    """Write an uploaded checkpoint to a file in a folder named by its digest."""
    path = _folder(digest) / f"{downloads.file_name(Path(name).stem)[:60]}{Path(name).suffix}"
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, content)
        except OSError as error:
            shutil.rmtree(path.parent, ignore_errors=True)
            raise VizError(
                f"The checkpoint {name!r} cannot be stored on this machine ({error.strerror or error}). Upload it again later.",
                code="checkpoint-not-stored",
            ) from None
    uploads.register(("checkpoint", str(path)), len(content), lambda: forget_checkpoint(str(path)))
    return path


def forget_checkpoint(path: str) -> None:
    """Delete an uploaded checkpoint, the network loaded from it and all results about that network."""
    shutil.rmtree(Path(path).parent, ignore_errors=True)
    for key, network in open_networks().items():
        if path in key:
            forget(network.digest)
    forget(path)


def current() -> Network | None:
    """The chosen network with the chosen head, under the session's interventions; None where a message explains why not."""
    drawn, known = bool(heads()), channels()
    network = _load_chosen(state.NETWORK, state.WEIGHTS, state.CHECKPOINT)
    if network is None:
        return None
    if (not drawn and heads()) or (not known and channels() not in (0, 1, 3)):
        st.rerun()  # the sidebar was drawn before it was open
    return interventions.applied(_with_channels(_with_head(network)))


def heads() -> dict[str, str | None]:
    """The heads of the chosen network by name, as `state.OUTPUT` has them; empty if it has one only, or is not open yet."""
    network = _opened()
    if network is None or len(network.heads) < 2 or len(network.answers) < 2:
        return {}
    return {head.name: None if head.path == network.head.path else head.name for head in network.answers}


def _with_head(network: Network) -> Network:
    """The network with the chosen head; if it has no such head, that is said and its own output stays."""
    name = state.get(state.OUTPUT)
    if name is None:
        return network
    try:
        other = network.with_output(name)
    except VizError as error:
        state.note(f"The link's choice of output was ignored. {error}")
        state.put(state.OUTPUT, None)
        st.rerun()
    known = heads().get(other.head.name)
    if known != name:  # another name of it, or that of the network's own output
        state.put(state.OUTPUT, known)
        st.rerun()
    compute.name_for_log(other.digest, other.name)
    return other


def channels() -> int:
    """How many channels the chosen network takes; 0 while it is not open."""
    network = _opened()
    return 0 if network is None else network.input_size[0]


def _opened() -> Network | None:
    """The chosen network if it is open."""
    try:
        return open_networks().get(_key(*_chosen(state.NETWORK, state.WEIGHTS, state.CHECKPOINT)))
    except VizError:  # of a checkpoint; `current` says it
        return None


def _with_channels(network: Network) -> Network:
    """The network with the chosen channel map; if that does not fit, this is said and there is none."""
    chosen = state.get(state.CHANNELS)
    if chosen is None:
        return network
    try:
        other = network.with_channels(chosen)
    except VizError as error:
        state.note(f"The channel map was ignored. {error}")
        state.put(state.CHANNELS, None)
        st.rerun()
    compute.name_for_log(other.digest, other.name)
    return other


def _like_current(network: Network | None, chosen: Choice) -> Network | None:
    """The network that is compared with the current one: with the same head, if it is the same with other weights."""
    return network if network is None or state.get(chosen) != state.get(state.NETWORK) else _with_head(network)


def suit_other() -> bool:
    """Compare random weights with the trained default network unless another is chosen, not with the same random weights.

    Returns whether that changed the choice.
    """
    if {state.get(state.WEIGHTS), state.get(state.OTHER_WEIGHTS)} != {"random"} or state.load(
        state.OTHER.key
    ) is not None:
        return False
    state.save(state.OTHER.key, registry.DEFAULT)
    state.put(state.OTHER_WEIGHTS, "published")
    return True


def other() -> Network | None:
    """The network of the Compare page, or None where a message explains why there is none."""
    return _like_current(_load_chosen(state.OTHER, state.OTHER_WEIGHTS, state.OTHER_CHECKPOINT), state.OTHER)


def second() -> Network | None:
    """The second network of the Occlusion page, or None where a message explains why there is none."""
    return _like_current(_load_chosen(state.SECOND_NETWORK, state.SECOND_WEIGHTS), state.SECOND_NETWORK)


def published(name: str) -> Network | None:
    """A network of the zoo with its published weights, whatever is chosen, or None where a message explains why."""
    return _open(name, _SOURCES_OF["published"])


def is_open(compared: bool = False) -> bool:
    """Whether the chosen network is loaded. `compared`: that of the Compare page."""
    of = (state.OTHER, state.OTHER_WEIGHTS) if compared else (state.NETWORK, state.WEIGHTS)
    name, weights = map(state.get, of)
    return any(
        key[:2] == ("network", name) and (weights == "file" or key[2] == _SOURCES_OF[weights])
        for key, _ in open_networks().items()
    )


def _load_chosen(chosen: Choice, of: Choice, file: Choice | None = None) -> Network | None:
    """The network of one choice with the weights of another, and the checkpoint of a third."""
    weights, given = state.get(of), "" if file is None else state.get(file)
    if weights == "file" and not given:
        messages.info("Upload a checkpoint of this network, or choose other weights.")
        return None
    if weights == "published" and not _is_available(state.get(chosen), of):
        return None
    name, source, rename = _chosen(chosen, of, file)
    network = _open(name, source, rename)
    if network is None and weights == "file" and not rename:
        _offer_rename(of, state.get(chosen), source)
    if network is None and weights != "random":
        _offer_random(of)
    return network


def _chosen(chosen: Choice, of: Choice, file: Choice | None) -> tuple[str, str, bool]:
    """Name, `weights` argument of `load`, and whether a checkpoint is matched by order."""
    name, weights = state.get(chosen), state.get(of)
    given = "" if file is None else str(state.get(file) or "")
    source = str(checkpoint(given)[0]) if weights == "file" and given else _SOURCES_OF.get(weights, "")
    return name, source, weights == "file" and state.is_wished("rename", (name, source))


def _offer_rename(of: Choice, name: str, file: str) -> None:
    """If the shapes of a checkpoint with foreign names match in order, show the pairs of names and ask."""
    if not Path(file).is_file():
        return
    try:
        pairs = _matched(name, file, _stamp(name), Path(file).stat().st_mtime_ns)
    except VizError:  # the message above says why it cannot be read
        return
    if not pairs:
        return
    st.dataframe(
        {"In the checkpoint": [pair[0] for pair in pairs], f"In {name}": [pair[1] for pair in pairs]}, height=240
    )
    st.button(
        f"Match all {len(pairs)} by their order", key=f"{of.name}.rename", type="primary",
        on_click=state.wish, args=("rename", (name, file)),
    )  # fmt: skip


@st.cache_resource(show_spinner="Comparing the shapes", max_entries=20)
def _matched(name: str, file: str, *stamps: object) -> list[tuple[str, str]]:
    return registry.match_checkpoint(_source(name), file)


def _is_available(name: str, of: Choice) -> bool:
    """Whether the weights are here or the user wants to download them; a link alone starts no download."""
    if name not in state.load(state.LINKED, ()) or state.is_wished("download", name):
        return True
    recipe = registry.find_recipe(_source(name))
    if not needs_download(recipe):
        return True
    size = f" ({recipe.size_mb:.0f} MB)" if recipe.size_mb else ""
    messages.info(f"The weights of {name}{size} are not on this machine yet. Links never start a download.")
    st.button(
        "Download them", key=f"{of.name}.download", type="primary", icon=":material/cloud_download:",
        on_click=state.wish, args=("download", name),
    )  # fmt: skip
    _offer_random(of)
    return False


def _offer_random(choice: Choice) -> None:
    st.button(
        "Continue with random weights", key=f"{choice.name}.go_on", on_click=state.put, args=(choice, "random"),
        help="The same layers, untrained. Enough to see shapes and receptive fields.",
    )  # fmt: skip


def _open(name: str, source: str, rename: bool = False) -> Network | None:
    """A network of the zoo or of a file; `source` is the `weights` argument of `load`."""
    where, device = _source(name), _device()
    return compute.compute(
        _key(name, source, rename),
        lambda tick: _load(where, source, device, tick, rename),
        size=_nbytes,
        title=f"Loading {name if where == name else Path(name).name}",
        shelf=open_networks(),
    )


def _device() -> str:
    device = str(state.get(state.DEVICE))
    return settings().device if device == "auto" else device


def _key(name: str, source: str, rename: bool) -> tuple[str, ...]:
    """The key of a network in `open_networks`."""
    return ("network", name, source, _device(), *map(str, _stamp(name)), *(["renamed"] if rename else []))


def preload(name: str) -> Network:
    """A network with its published weights, loaded before a session asks for it."""
    device, source = settings().device, _SOURCES_OF["published"]
    network = _load(name, source, device)
    open_networks().put(("network", name, source, device), network, _nbytes(network))
    return network


def _load(name: str | Path, source: str, device: str, tick: Tick | None = None, rename: bool = False) -> Network:
    network = load(name, weights=source, device=device, tick=tick, rename="order" if rename else None)
    if source == _SOURCES_OF["published"] and isinstance(name, str):
        _rows.clear()  # it may have been downloaded
    # Computed here, because hashing the weights of a large network and a pass through it take a while.
    with suppress(VizError, MemoryError, RuntimeError):  # of a network that can only be looked at
        _ = network.task
    compute.name_for_log(network.digest, network.name)
    return network


def _nbytes(network: Network) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in network.module.state_dict().values())


def sites(network: Network) -> tuple[Site, ...]:
    """The sites of the network, found in the background. Empty where a message explains why there are none."""
    found = compute.compute(
        compute.key_of("sites", network),
        lambda tick: network.sites,
        size=lambda sites: 500 * len(sites),
        title="Finding the layers",
        device=str(network.device),
    )
    return found or ()
