"""The command line, one sub-command per method: `vizapp METHOD --network resnet50 --picture photo.jpg …`.

An installed package has the command `vizapp`. `python -m vizapp` is the same, also in a checkout.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

if sys.argv[1:2] == ["app"]:
    print("Starting vizapp …", flush=True)
try:
    from tqdm import tqdm

    from vizapp.engine.trace.sites import Unit
    from vizapp.errors import VizError, nearest, plain_name, quoted, read_index
    from vizapp.media.picture import open_picture
    from vizapp.media.samples import open_sample, sample_names
    from vizapp.media.sources import open_folder
    from vizapp.media.stacks import read_bands
    from vizapp.methods import ask, methods, problems
    from vizapp.methods.base import Method
    from vizapp.methods.params import Knob, build, knobs
    from vizapp.methods.reopen import open_result
    from vizapp.progress import Tick, bar
    from vizapp.report.document import Report, report_file
    from vizapp.zoo import Card, class_unit, group_networks, list_networks, load, registry
    from vizapp.zoo.intervention_text import read_intervention
    from vizapp.zoo.interventions import Intervention
    from vizapp.zoo.network import Network
    from vizapp.zoo.target import Target
    from vizapp.zoo.target_text import read_target
except KeyboardInterrupt:  # these imports take seconds, so Ctrl+C may come here as well as in `main`
    print("vizapp: stopped.", file=sys.stderr)
    sys.exit(130)


_NETWORK = (
    f"a name listed by 'networks' (default {registry.DEFAULT}), a folder of Hugging Face, an .onnx or .pt2 file, "
    "or hf:owner/name"
)
_LARGE_REPORT = 20 * 2**20  # bytes of a report whose size is told before it is made


class _Parser(argparse.ArgumentParser):
    """An argument parser that reports errors as one-line VizErrors and accepts no abbreviated options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)  # `--class` must not be read as `--classes`

    def error(self, message: str) -> NoReturn:
        raise VizError(f"{message[0].upper()}{message[1:]}. See '{self.prog} --help'.", code="bad-arguments")


def parser() -> argparse.ArgumentParser:
    """The argument parser: a sub-command per method, and `app`, `networks`, `sites`, `methods`."""
    prog = "vizapp" if Path(sys.argv[0]).stem == "vizapp" else "python -m vizapp"
    return _parser(prog, tuple(methods().values()))


@cache
def _parser(prog: str, known: tuple[Method, ...]) -> argparse.ArgumentParser:
    top = _Parser(prog=prog, description="See what convolutional networks compute.")
    commands = top.add_subparsers(dest="command", required=True, metavar="METHOD", parser_class=_Parser)
    for method in known:
        _add_method(commands, method)
    report = commands.add_parser("report", help="save answers as one HTML file that opens anywhere")
    report.add_argument(
        "--from",
        dest="saved",
        nargs="+",
        metavar="FOLDER",
        help="answers saved with --out, in place of a METHOD",
    )
    _add_report(report, "")
    reported = report.add_subparsers(dest="command", metavar="METHOD", parser_class=_Parser)
    for method in known:
        _add_method(reported, method, report=True)
    app = commands.add_parser("app", help="serve the app; other options are passed to 'streamlit run'")
    app.add_argument("--port", "--server.port", type=int, help="the port, or the next free one, default 8501")
    app.add_argument("--address", "--server.address", help="default localhost; 0.0.0.0 serves other machines")
    networks = commands.add_parser("networks", help="list the networks that can be loaded")
    networks.add_argument("match", nargs="?", default="", help="only names that contain this text")
    networks.add_argument(
        "--groups",
        action="store_true",
        help="by where their weights are: on this machine, to be downloaded (MB), nowhere",
    )
    sites = commands.add_parser("sites", help="list the layers of a network")
    sites.add_argument("network", nargs="?", default=registry.DEFAULT, help=_NETWORK)
    listing = commands.add_parser("methods", help="list the methods with their parameters")
    for command in (networks, sites, listing):
        command.add_argument("--json", action="store_true", help="as JSON")
    _add_weights(sites)
    return top


def _add_weights(command: argparse.ArgumentParser) -> None:
    command.add_argument("--weights", default="default", help="default (published), none (random) or a checkpoint file")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda:0 …")
    command.add_argument("--classes", help="number of classes, or a file with one name per line")
    command.add_argument(
        "--preprocessing",
        metavar="FILE",
        help="a preprocessor_config.json, in place of the network's own preprocessing",
    )
    command.add_argument(
        "--rename",
        choices=["order"],
        help="order: match a checkpoint with foreign key names by the order of its shapes",
    )
    command.add_argument("--output", metavar="NAME", help="the output with the class scores, if there are several")
    command.add_argument(
        "--probabilities",
        metavar="FUNCTION",
        help="what turns class scores into probabilities: softmax, sigmoid or none; by default as found in the network",
    )
    command.add_argument(
        "--channel-map",
        metavar="MAP",
        help="what feeds each channel, such as R,G,B,mean: a band from 0, R, G or B as shown, L (luminance), mean, zero",
    )


def _add_method(commands: Any, method: Method, report: bool = False) -> None:
    command = commands.add_parser(
        method.key, help=method.summary, description=f"{method.summary} Source: {method.source}."
    )
    command.set_defaults(method=method, report=report)
    command.add_argument("--network", default=registry.DEFAULT, help=_NETWORK)
    _add_weights(command)
    asked = method.needs | method.optional_inputs
    if "picture" in asked:
        command.add_argument("--picture", help="a photo, a stack of bands (NPY, NPZ, TIFF), or the name of a sample")
        command.add_argument("--bands", metavar="R,G,B", help="the bands of a stack that are shown, such as 3,2,1")
    if "folder" in asked:
        sources = "a folder of photos (sub-folders are classes), a zip or CSV file, digits, samples or torchvision/NAME"
        command.add_argument("--folder", help=sources)
    if "unit" in asked:
        unit = command.add_mutually_exclusive_group()
        unit.add_argument("--unit", metavar="SITE:CHANNEL[@ROW,COL]", help="layer, channel and, optionally, cell")
        unit.add_argument("--class", dest="class_", metavar="NAME_OR_INDEX", help="the unit of a class, instead")
    command.add_argument(
        "--set",
        metavar="SITE:CHANNELS=FACTOR",
        action="append",
        default=[],
        help="change units in every pass: CHANNELS is 3, 3,7, 3-9 or all; FACTOR 0 to 3 (0 silences), or mean:FOLDER, "
        "mean:NUMBER, add:NUMBER, freeze:PHOTO, skip; repeatable",
    )
    command.add_argument(
        "--target",
        metavar="PARTS",
        help="what of the output is explained: class=NAME cell=ROW,COLUMN; region=whole, predicted, TOP,LEFT,BOTTOM,RIGHT or a "
        "mask file; box=TOP,LEFT,BOTTOM,RIGHT or a detection's number; embedding=PHOTO; head=NAME; separated by spaces",
    )
    if report:
        _add_report(command, argparse.SUPPRESS)
    else:
        command.add_argument("--out", help="folder for pictures, arrays.npz and result.json")
        command.add_argument("--json", action="store_true", help="print the facts and the table as JSON")
    for knob in knobs(method.params).values():
        if knob.name == "out":  # the common --out, which this method also reads
            continue
        option, metavar = f"--{knob.name.replace('_', '-')}", knob.name.upper()
        alone: dict[str, Any] = {"nargs": "?", "const": "true"} if isinstance(knob.default, bool) else {}
        command.add_argument(option, dest=f"param_{knob.name}", metavar=metavar, help=_help(knob), **alone)


def _add_report(command: argparse.ArgumentParser, default: str) -> None:
    """Add the options of reports; those of a method leave alone what stands before it."""
    command.add_argument("--out", metavar="FILE", default=default, help="the HTML file")
    command.add_argument("--title", default=default, help="title of the report")
    command.add_argument("--remark", default=default, help="your words above the answer")
    command.add_argument("--json", action="store_true", default=default, help="print the file and its size as JSON")


def _help(knob: Knob) -> str:
    of = f" ({', '.join(knob.choices)})" if knob.choices else ""
    default = ",".join(map(str, knob.default)) if isinstance(knob.default, tuple) else str(knob.default)
    return f"{knob.help}{of}{default and f', default {default}'}".replace("%", "%%")


def read_unit(text: str) -> Unit:
    """A unit from `SITE:CHANNEL` or `SITE:CHANNEL@ROW,COL`.

    Raises:
        VizError: the text has another form.
    """
    site, _, rest = text.rpartition(":")
    channel, at, cell = rest.partition("@")
    try:
        row, column = map(int, cell.split(",")) if at else (0, 0)
        if not site:
            raise ValueError
        return Unit(site, int(channel), (row, column) if at else None)
    except ValueError:
        raise VizError(
            f"{text!r} is not a unit; use SITE:CHANNEL or SITE:CHANNEL@ROW,COL, as in layer1.0.relu:7.", code="bad-unit"
        ) from None


def _network(options: argparse.Namespace, tick: Tick | None) -> Network:
    classes: Any = options.classes
    if isinstance(classes, str) and (count := read_index(classes)) is not None:
        classes = count
    if options.rename and options.weights not in ("default", "none"):
        for foreign, own in registry.match_checkpoint(options.network, options.weights):
            print(f"vizapp: {plain_name(foreign)} -> {own}", file=sys.stderr)
    network = load(
        options.network, options.weights, options.device, classes, tick, options.output, options.probabilities,
        options.preprocessing, options.rename,
    )  # fmt: skip
    return network.with_channels(options.channel_map) if options.channel_map else network


def _answer(options: argparse.Namespace) -> None:
    given = vars(options)
    # Cheap checks first, so that a mistyped path is reported before a network is downloaded.
    if options.report:
        _check_report(options, "" if not options.saved else "either a METHOD or --from, not both")
    picture = _picture(given["picture"], given["bands"]) if given.get("picture") else None
    folder = open_folder(given["folder"]) if given.get("folder") else None
    unit = read_unit(given["unit"]) if given.get("unit") else None
    interventions = [_with_photo(read_intervention(text)) for text in options.set]
    target = _with_opened(read_target(options.target)) if options.target else None
    params = {name[6:]: value for name, value in given.items() if name.startswith("param_") and value is not None}

    if "out" in knobs(options.method.params) and options.out and not options.report:
        params["out"] = options.out
    build(options.method.params, params, f"method {options.command!r}")
    with _progress("Opening the network") as tick:
        network = _network(options, tick)
    if given.get("class_") is not None:
        index = read_index(given["class_"])
        unit = class_unit(network, given["class_"] if index is None else index)
    with _progress(options.method.title) as tick:
        result = ask(options.command, network, picture, folder, unit, tick, interventions, target, **params)
    if not _leads():
        return
    if options.report:
        section = result.section(remark=options.remark)
        _save_report(Report((section,), options.title or section.title), options)
        return
    saved = result.save(options.out) if options.out else None
    if options.json:
        print(json.dumps(result.summary() | ({"out": str(saved)} if saved else {}), ensure_ascii=False))
        return
    _print_table(result.table[:25])
    for name, fact in result.facts.items():
        print(f"{name}: {fact}")
    if saved:
        print(f"saved: {saved}")


def _collect(options: argparse.Namespace) -> None:
    """Save the report of answers that were saved before."""
    _check_report(options, "" if options.saved else "a METHOD, or --from with the folders of saved answers")
    sections = tuple(open_result(folder).section() for folder in options.saved)
    title = options.title or (sections[0].title if len(sections) == 1 else Report.title)
    _save_report(Report(sections, title, options.remark), options)


def _check_report(options: argparse.Namespace, missing: str) -> None:
    """Refuse a report that cannot be made as it is asked for; `missing`: what to give instead."""
    missing = missing or ("" if options.out else "--out with the HTML file")
    if missing:
        raise VizError(f"Give {missing}. See 'vizapp report --help'.", code="bad-arguments")
    report_file(options.out)


def _save_report(report: Report, options: argparse.Namespace) -> None:
    """Save a report, and tell its size; that of a large one before it is made."""
    if report.nbytes > _LARGE_REPORT:
        print(f"vizapp: the report will have {_megabytes(report.nbytes)}.", file=sys.stderr)
    saved = report.save(options.out)
    size = saved.stat().st_size
    told = json.dumps({"out": str(saved), "bytes": size}, ensure_ascii=False)
    print(told if options.json else f"saved: {saved}, {_megabytes(size)}")


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MB"


def _leads() -> bool:
    """Whether this process prints and writes files: of those started by torchrun, only rank 0."""
    return os.environ.get("RANK", "0") == "0" or "WORLD_SIZE" not in os.environ


def _picture(text: str, bands: str | None = None) -> Any:
    sample = not os.path.exists(text) and text in sample_names()
    if not sample and not os.path.exists(text) and not Path(text).suffix and Path(text).name == text:
        hint = nearest(text, sample_names())
        raise VizError(f"There is no file and no sample photo {quoted(text)}.{hint}", code="no-such-file")
    return open_picture(open_sample(text) if sample else text, bands=read_bands(bands) if bands else None)


def _with_photo(given: Intervention) -> Intervention:
    """The intervention, with the photo that it freezes to opened."""
    return replace(given, value=_picture(given.value)) if given.operation == "freeze" else given


def _with_opened(given: Target) -> Target:
    """The target, with its photo opened."""
    return given if given.embedding is None else replace(given, embedding=_picture(given.embedding))


def _serve(options: argparse.Namespace) -> None:
    from vizapp.ui.app.serve import serve  # Streamlit, which no other command needs

    serve(options.port, options.address, options.passed)


def _list_networks(options: argparse.Namespace) -> None:
    def matches(name: str) -> bool:
        return bool(options.match.lower() in name.lower())

    if options.groups:
        _list_groups(
            {title: [c for c in cards if matches(c.name)] for title, cards in group_networks().items()}, options.json
        )
        return
    names = list(filter(matches, list_networks()))
    print(json.dumps(names) if options.json else "\n".join(names))


def _list_groups(groups: Mapping[str, Sequence[Card]], as_json: bool) -> None:
    if as_json:
        found = {
            title: [{"name": c.name, "parameters": c.parameters, "task": c.task, "megabytes": c.size_mb} for c in cards]
            for title, cards in groups.items()
        }
        print(json.dumps(found))
        return
    for number, (title, cards) in enumerate(groups.items()):
        print(f"{title} ({len(cards):,})")
        _print_table(
            [
                {"network": f"  {c.name}", "parameters": f"{c.parameters:,}" if c.parameters else "", "task": c.task}
                | ({"download": c.size} if number == 1 else {})
                for c in cards
            ]
        )


def _list_sites(options: argparse.Namespace) -> None:
    network = _network(options, None)
    rows = [{"site": s.name, "kind": s.kind, "shape": " x ".join(map(str, s.shape))} for s in network.sites]
    if options.json:
        print(json.dumps([row | {"shape": list(s.shape)} for row, s in zip(rows, network.sites, strict=True)]))
    else:
        _print_table(rows)


def _list_methods(options: argparse.Namespace) -> None:
    found = methods().values()
    for problem in problems():
        print(f"vizapp: {problem}", file=sys.stderr)
    if options.json:
        listed = [
            {"key": m.key, "title": m.title, "needs": sorted(m.needs), "source": m.source}
            | {"params": {k.name: k.default for k in knobs(m.params).values()}}
            for m in found
        ]
        print(json.dumps(listed))
        return
    for method in found:
        print(f"{method.key}: {method.summary}")
        for knob in knobs(method.params).values():
            print(f"    --{knob.name.replace('_', '-')}: {_help(knob).replace('%%', '%')}")


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    texts = [{k: f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in row.items()} for row in rows]
    if texts:
        names = list(dict.fromkeys(name for row in texts for name in row))
        widths = {k: max(len(k), *(len(row.get(k, "")) for row in texts)) for k in names}
        for row in [{k: k for k in names}, *texts]:
            print("  ".join(row.get(k, "").ljust(widths[k]) for k in names).rstrip())


@contextmanager
def _progress(what: str) -> Iterator[Tick | None]:
    """A progress bar on the terminal for work that takes more than half a second; cleared at the end."""
    if not (sys.stderr.isatty() and _leads()):
        yield None
        return
    with bar(tqdm, what, file=sys.stderr, dynamic_ncols=True) as tick:
        yield tick


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 after a VizError, 130 after Ctrl+C."""
    commands = {
        None: _collect,
        "app": _serve,
        "networks": _list_networks,
        "sites": _list_sites,
        "methods": _list_methods,
    }
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names and signs that the terminal's encoding lacks
    try:
        top = parser()
        options, passed = top.parse_known_args(arguments)
        if passed and options.command != "app":
            top.error(f"unrecognized arguments: {' '.join(passed)}")
        options.passed = passed
        commands.get(options.command, _answer)(options)
    except VizError as error:
        print(f"vizapp: {error}", file=sys.stderr)
        if "--json" in (sys.argv[1:] if arguments is None else arguments):
            print(json.dumps({"error": str(error), "code": error.code}, ensure_ascii=False))
        return 2
    except BrokenPipeError:  # the reader of our output has closed it
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("vizapp: stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
