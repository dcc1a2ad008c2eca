"""What the addresses of the page share: the folder, rendering, forms, and who is let in.

Every address begins with a secret that only the printed address has: no cookie is set, so no other
page can have its requests signed, and nothing is sent to another site (no referrer to it, a content
security policy). A request must also name this machine, and a change must come from the page
itself (`Origin`, `Sec-Fetch-Site`).

Tests: `tests/web/test_app.py`.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from instil import format as fmt
from instil.errors import InstilError
from instil.report.html import make_environment, plotter
from instil.ship.server.listen import names_this_machine
from instil.web.jobs import Job
from instil.web.workplace import Workplace

T = TypeVar("T")
LARGEST_FORM = 4 << 20
"""Bytes of a form."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Site:
    """The page of one folder."""

    workplace: Workplace
    """The folder."""
    token: str
    """The secret that every address begins with."""
    default_model: str = "smollm2-135m-instruct"
    """What a new recipe names."""
    memory: dict[str, Any] = field(default_factory=dict)
    """What is kept between requests, by whoever needs it."""

    def url(self, *parts: str, **query: object) -> str:
        """Return the address of a page; file names may hold anything."""
        path = "/".join(quote(part, safe="/") for part in parts)
        asked = "&".join(
            f"{name}={quote(str(value), safe='')}" for name, value in query.items() if value != ""
        )
        return f"/{self.token}/{path}" + (f"?{asked}" if asked else "")

    def render(self, template: str, **values: object) -> str:
        """Return a page or a part of one."""
        page = make_environment("instil.web").get_template(template)
        return page.render(site=self, url=self.url, plot=plotter(), fmt=fmt, **values)

    def page(self, template: str, *, status: int = 200, **values: object) -> Response:
        """Return a page as an answer."""
        return HTMLResponse(self.render(template, **values), status)

    def go(self, *parts: str, **query: object) -> Response:
        """Send the browser to another page."""
        return RedirectResponse(self.url(*parts, **query), 303)

    def to_job(self, job: Job) -> Response:
        """Send the browser to a command that was begun."""
        return self.go("job", job.id)


def here(request: Request) -> Site:
    """Return the site of a request."""
    site: Site = request.app.state.site
    return site


async def form(request: Request) -> dict[str, str]:
    """Read a form (`application/x-www-form-urlencoded`); of a name given twice the last counts.

    Raises:
        InstilError: It is too long.
    """
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > LARGEST_FORM:
            raise InstilError("this form is too long", fix="edit the file itself")
    pairs = parse_qsl(body.decode("utf-8", errors="replace"), keep_blank_values=True)
    return {name: value.replace("\r\n", "\n") for name, value in pairs}


def number(text: str, *, default: int = 0) -> int:
    """Return a whole number of a query, at least 0.

    >>> number("12"), number("-3"), number("x", default=1), number("--5"), number("\u00b3")
    (12, 0, 1, 0, 0)
    """
    try:
        return max(0, int(text)) if len(text) < 10 else default
    except ValueError:
        return default


def text_of(path: Path) -> str:
    """Return a file for people to edit; what is no UTF-8 is marked."""
    return path.read_text(encoding="utf-8-sig", errors="replace")


async def aside(work: Callable[[], T]) -> T:
    """Do slow work in a thread of its own, so that other requests are answered meanwhile."""
    return await run_in_threadpool(work)


def once(
    site: Site,
    what: str,
    path: Path,
    make: Callable[[Path], T],
    *,
    how: Hashable = "",
    most: int = 8,
) -> T:
    """Return what is made of a file, kept as long as the file is as it was.

    Args:
        site: Keeps it.
        what: Names it.
        path: The file.
        make: Makes it, where it is not kept.
        how: What else it depends on.
        most: How many of its kind are kept.
    """
    facts = path.stat()
    stamp = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
    kept: dict[Any, tuple[Any, T]] = site.memory.setdefault(what, {})
    known = kept.get((path, how))
    if known and known[0] == stamp:
        return known[1]
    made = make(path)
    while len(kept) >= most:
        kept.pop(next(iter(kept)), None)
    kept[path, how] = (stamp, made)
    return made


async def events(
    request: Request, look: Callable[[], tuple[str, bool]], *, seconds: float = 0.5
) -> AsyncIterator[str]:
    """Yield server-sent events: parts of the page as they change, and the end.

    Args:
        request: Ends when its client goes away.
        look: Called in a thread; returns the parts as HTML, and whether that was the last time.
        seconds: Between two looks.
    """
    before = ""
    while not await request.is_disconnected():
        html, last = await aside(look)
        if html != before:
            lines = "".join(f"data: {line}\n" for line in html.split("\n"))
            yield f"event: swap\n{lines}\n"
            before = html
        if last:
            yield "event: end\ndata: end\n\n"
            return
        await asyncio.sleep(seconds)


# --- who is let in -------------------------------------------------------------------------------


class Gate:
    """Lets in who knows the secret, from this machine and this page alone; sets the headers."""

    def __init__(self, app: ASGIApp, *, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on without its secret, or turn it away."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.encode(), value.encode())
                        for name, value in _HEADERS.items()
                        if name.encode() not in own
                    ),
                ]
            await send(message)

        secret, _, rest = scope["path"].removeprefix("/").partition("/")
        why = self._refused(Request(scope), secret)
        if why:
            await PlainTextResponse(why, 403)(scope, receive, guarded)
            return
        await self.app({**scope, "path": f"/{rest}", "raw_path": None}, receive, guarded)

    def _refused(self, request: Request, secret: str) -> str:
        host = request.headers.get("host", "")
        if not names_this_machine(host):
            return "This page is for the machine that it runs on: ask under the name localhost."
        if not hmac.compare_digest(secret.encode(), self.token.encode()):
            return "Use the whole address that `instil ui` has printed; it holds a secret."
        if request.method in ("GET", "HEAD"):
            return ""
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        if origin != f"http://{host}" or site not in (None, "same-origin"):
            return "Another page has sent this: nothing was done."
        return ""


@lru_cache
def asset(name: str) -> str:
    """Return a file that the page is made with, of its own assets or the report's."""
    environment = make_environment("instil.web")
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def told(error: Exception) -> tuple[str, int]:
    """Return what to say of an error, and the status."""
    from instil.cli.failures import told as words

    message, code = words(error)
    return message, 400 if code == InstilError.exit_code else 500


def picked(options: Mapping[str, object], wanted: str) -> str:
    """Return the option that is asked for, or else the first; empty where there is none."""
    return wanted if wanted in options else next(iter(options), "")
