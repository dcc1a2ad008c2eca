"""The addresses of `instil ui`, and how it is served.

Tests: `tests/web/test_app.py`.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from instil.errors import InstilError
from instil.ship.server.listen import run_server
from instil.web.pages import answers, data, plan, runs, shipping, start, task, trying
from instil.web.site import Gate, Site, asset, here, text_of, told
from instil.web.workplace import NotHereError, Workplace

AHEAD = 3
"""Files and runs of each kind that are read ahead."""
_LARGEST_AHEAD = 50 << 20
_ASSETS = {"page.css": "text/css", "page.js": "text/javascript", "report.css": "text/css"}


def make_app(site: Site) -> Starlette:
    """Return the application of one folder."""
    get, post = ["GET"], ["POST"]
    addresses: list[tuple[str, Callable[..., object], list[str]]] = [
        ("/", start.start, get),
        ("/assets/{name}", assets, get),
        ("/files/{name}", start.upload, ["PUT"]),
        ("/study/{name:path}", start.study, get),
        ("/job/{id}", start.job, get),
        ("/job/{id}/events", start.job_events, get),
        ("/job/{id}/stop", start.job_stop, post),
        ("/data/{name:path}/guess", data.guess, post),
        ("/data/{name:path}", data.data, get),
        ("/data/{name:path}", data.write, post),
        ("/task/{name:path}/preview", task.preview, post),
        ("/task/{name:path}/findings", task.findings, post),
        ("/task/{name:path}/mend", task.mend, post),
        ("/task/{name:path}/leave-out", task.leave_out, post),
        ("/task/{name:path}", task.task, get),
        ("/task/{name:path}", task.save, post),
        ("/plan/{name:path}/forecast", plan.forecast, post),
        ("/plan/{name:path}", plan.plan, get),
        ("/plan/{name:path}", plan.save, post),
        ("/start/{name:path}", plan.start, post),
        ("/run/{name:path}", runs.run, get),
        ("/events/run/{name:path}", runs.run_events, get),
        ("/stop/{name:path}", runs.stop, post),
        ("/resume/{name:path}", runs.resume, post),
        ("/report/{name:path}", runs.report, get),
        ("/compare", runs.compare, get),
        ("/answers/{name:path}", answers.show, get),
        ("/mark/{name:path}", answers.mark, post),
        ("/try/{name:path}", trying.show, get),
        ("/try/{name:path}", trying.load, post),
        ("/try-state/{name:path}", trying.state, get),
        ("/try-stop/{name:path}", trying.unload, post),
        ("/ask/{name:path}", trying.ask, post),
        ("/classify/{name:path}", trying.classify, post),
        ("/blind/{name:path}", trying.blind, post),
        ("/vote/{name:path}", trying.vote, post),
        ("/ship/{name:path}", shipping.show, get),
        ("/export/{name:path}", shipping.export, post),
        ("/verify/{name:path}", shipping.verify, post),
    ]
    app = Starlette(
        routes=[Route(path, answer, methods=methods) for path, answer, methods in addresses],
        middleware=[Middleware(Gate, token=site.token)],
        exception_handlers={
            NotHereError: _not_here,
            404: _not_here,
            InstilError: _refused,
            OSError: _refused,
        },
    )
    app.state.site = site
    return app


async def assets(request: Request) -> Response:
    """`GET /assets/{name}`: style sheet and script."""
    name = request.path_params["name"]
    if name not in _ASSETS:
        raise NotHereError(name)
    return Response(asset(name), media_type=_ASSETS[name])


async def _not_here(request: Request, error: Exception) -> Response:
    text = "There is no such page; what it showed may have been moved or removed meanwhile."
    return here(request).page("message.html.jinja", status=404, title="Not here", text=text)


async def _refused(request: Request, error: Exception) -> Response:
    text, status = told(error)
    if request.method == "PUT":
        return JSONResponse({"error": text}, status)
    return here(request).page("message.html.jinja", status=status, title="Not done", text=text)


def read_ahead(site: Site) -> None:
    """Read what is likely looked at first: the newest files of rows, and the newest runs."""
    for path in site.workplace.data()[:AHEAD]:
        with contextlib.suppress(Exception):  # whoever looks at it is told
            if path.stat().st_size <= _LARGEST_AHEAD:
                data.table_of(site, path)
                data.guessed(site, path, data.Asked())
    for run in site.workplace.runs()[:AHEAD]:
        with contextlib.suppress(Exception):
            runs.result(site, run, site.workplace.name(run))
            for each in start.summary_of(site, run).tasks:
                answers.answers_of(site, run, each.task)
    for path in site.workplace.tasks()[:1]:
        with contextlib.suppress(Exception):
            task.views(site, text_of(path), path)


def serve(folder: Path, *, port: int, model: str, on_ready: Callable[[str], None]) -> None:
    """Serve the page of a folder on this machine until SIGINT or SIGTERM.

    Args:
        folder: What is shown.
        port: 0: any that is free.
        model: What a new recipe names.
        on_ready: Called with the address, which holds a secret.

    Raises:
        RunError: The port is taken.
    """
    site = Site(Workplace(folder.resolve()), secrets.token_urlsafe(24), model)
    threading.Thread(target=read_ahead, args=(site,), daemon=True).start()

    def ready(address: str) -> None:
        on_ready(f"{address}/{site.token}/")

    run_server(make_app(site), host="127.0.0.1", port=port, on_ready=ready, grace=1)
