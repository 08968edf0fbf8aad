"""Security headers of the server's responses."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vizapp.settings import settings
from vizapp.ui.session import access

# Scripts come from the app only: Streamlit loads those of components as blobs, and its styles are inline; Graphviz draws the
# graph of a network in WebAssembly. The hash is that of the script inside Streamlit's index.html.
POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'; "
    "script-src 'self' blob: 'wasm-unsafe-eval' 'sha256-THxz9J9+wf7rhwR2YkXJoSZ13UCmYyC+3lNDv2+8ugA='; "
    "worker-src 'self' blob:; style-src 'self' 'unsafe-inline'; font-src 'self' data:; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(self)",
}


def headers() -> dict[str, str]:
    """`HEADERS`, where the sites of `VIZAPP_FRAMES` may show the app in a frame."""
    sites = settings().frames
    if not sites:
        return HEADERS
    policy = POLICY.replace("frame-ancestors 'self'", " ".join(("frame-ancestors 'self'", *sites)))
    kept = {name: value for name, value in HEADERS.items() if name != "X-Frame-Options"}  # it cannot name sites
    return kept | {"Content-Security-Policy": policy}


class SecurityHeaders:
    """ASGI middleware that adds `headers` to every response in server mode. On one's own machine, editors embed the app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start" and access.shared():
                kept = [(name, value) for name, value in message["headers"] if name.decode().title() not in HEADERS]
                message["headers"] = [*kept, *((name.encode(), value.encode()) for name, value in headers().items())]
            await send(message)

        await self._app(scope, receive, send_with_headers)
