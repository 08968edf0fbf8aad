"""The command `vizapp app`: serves the app, with the default network loaded before the address is printed."""

from __future__ import annotations

import errno
import runpy
import socket
import sys
from collections.abc import Sequence

import click
import streamlit as st
from streamlit import config
from streamlit.web import cli

from vizapp.errors import VizError
from vizapp.media import samples
from vizapp.methods import ask
from vizapp.settings import TOP
from vizapp.ui.app.pages import PAGES, PAGES_FOLDER
from vizapp.ui.inputs import images, networks
from vizapp.ui.session import state

SCRIPT = TOP / "streamlit_app.py"
_TRIES = 100  # ports, from the wanted one on


def serve(port: int | None = None, address: str | None = None, options: Sequence[str] = ()) -> None:
    """Serve the app until Ctrl+C is pressed. A busy port is replaced by the next free one, which is printed.

    Args:
        port: The port; None: Streamlit's setting `server.port`, 8501.
        address: The address to listen on; None: Streamlit's setting `server.address`, this machine only.
        options: More options of `streamlit run`, such as `--server.headless=true`.

    Raises:
        VizError: no such port is free, this machine has no such address, or Streamlit has no such option.
    """
    st.App(SCRIPT)  # from here on, Streamlit knows the settings in `.streamlit` beside the script
    given = {"server.port": port, "server.address": address}
    flags = [f"--{name}={value}" for name, value in given.items() if value is not None]
    try:
        with cli.main_run.make_context("vizapp app", [str(SCRIPT), *flags, *options]) as context:
            if context.params["args"]:
                raise click.UsageError(f"Unrecognized arguments: {' '.join(context.params['args'])}")
            for name, value in context.params.items():
                if name not in ("target", "args") and value not in (None, ()):
                    config.set_option(name.replace("_", "."), value)
            context.params["server_port"] = _take_port()
            warm_up()
            cli.main_run.invoke(context)
    except click.ClickException as error:
        raise VizError(f"{error.format_message()} See 'vizapp app --help'.", code="bad-arguments") from None
    except KeyboardInterrupt:
        print("vizapp: stopped.", file=sys.stderr)


def _take_port() -> int:
    wanted = config.get_option("server.port")
    port = free_port(config.get_option("server.address"), wanted)
    if port != wanted:
        print(f"Port {wanted} is busy. vizapp uses port {port}.", flush=True)
        config.set_option("server.port", port)
    return port


def free_port(address: str | None, port: int) -> int:
    """The port, or the first free one after it.

    Raises:
        VizError: there is none among the next 100, or this machine has no such address.
    """
    family = socket.AF_INET6 if ":" in (address or "") else socket.AF_INET
    for candidate in range(port, port + _TRIES):
        try:
            with socket.create_server((address or "", candidate), family=family):
                return candidate
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                reason = error.strerror or error
                raise VizError(f"The app cannot listen on {address}:{port}: {reason}.", code="cannot-listen") from None
        except OverflowError:
            raise VizError(f"{candidate} is not a port: they end at 65535.", code="cannot-listen") from None
    raise VizError(f"No port from {port} to {candidate} is free.", code="cannot-listen")


def warm_up() -> None:
    """Load what the first page needs: its code, the list of networks, and the default network with its layers."""
    name = state.NETWORK.default
    print(f"Loading the list of networks and {name} …", flush=True)
    networks.labels()
    runpy.run_path(str(PAGES_FOLDER / next(spec.file for spec in PAGES if spec.default)))  # imports what it imports
    try:
        network = networks.preload(name)
        ask("predict", network, images.sample(samples.sample_names()[0]))
        _ = network.sites  # found once per network
    except VizError as error:
        print(f"vizapp: {error}", flush=True)  # the page will offer what else can be done
