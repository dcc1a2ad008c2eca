"""The first page: files of rows, recipes, runs and studies of the folder; and jobs.

Tests: `tests/web/test_app.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from instil import format as fmt
from instil.config.recipe import load_recipe
from instil.errors import InstilError
from instil.results.names import PROMPTING, TUNED
from instil.results.run import RunSummary
from instil.stages.ledger import load_ledger
from instil.stages.lock import holder
from instil.stages.runfiles import REPORT, SUMMARY, is_finished, load_summary
from instil.web.jobs import Job, find, jobs
from instil.web.site import Site, aside, events, form, here, number, once
from instil.web.workplace import NotHereError

PAGE = 25
"""Runs a page."""


@dataclass(frozen=True, slots=True)
class Line:
    """A run in the list."""

    name: str
    """Its folder, from the page's."""
    state: str
    """finished, at work, or stopped with the stage that was done last."""
    model: str = ""
    """Its base model."""
    tasks: str = ""
    """What it was trained on."""
    score: float | None = None
    """The tuned model's mean on test, of its first task."""
    shown: str = ""
    """The same with its interval."""
    gain: str = ""
    """Against the best prompting, with its interval."""
    verdict: str = ""
    """The first sentence."""
    changed: float = 0.0
    """When, in seconds since 1970."""

    @property
    def when(self) -> str:
        """When it was last changed, local time."""
        return f"{datetime.fromtimestamp(self.changed):%Y-%m-%d %H:%M}"


SORTED = {
    "newest": lambda line: -line.changed,
    "name": lambda line: line.name,
    "score": lambda line: -(line.score if line.score is not None else -1.0),
    "state": lambda line: (line.state, line.name),
}
"""Name of an order -> the key of a line."""


def run_line(site: Site, folder: Path) -> Line:
    """Return a run for the list; one that cannot be read says so."""
    name, changed = site.workplace.name(folder), folder.stat().st_mtime
    try:
        if is_finished(folder):
            return _finished(name, summary_of(site, folder), (folder / SUMMARY).stat().st_mtime)
        recipe = load_recipe(folder / "recipe.yaml")
        tasks = ", ".join(Path(use.use).name.removesuffix(".task.yaml") for use in recipe.tasks)
        stages = [*load_ledger(folder).stages]
        state = "at work" if holder(folder) else f"stopped after {(['its beginning', *stages])[-1]}"
        return Line(name, state, Path(recipe.model).name, tasks, changed=changed)
    except (InstilError, OSError) as error:
        return Line(name, "cannot be read", verdict=str(error), changed=changed)


def summary_of(site: Site, folder: Path) -> RunSummary:
    """Return what a finished run found."""
    return once(site, "summary", folder / SUMMARY, lambda _: load_summary(folder), most=500)


def _finished(name: str, summary: RunSummary, changed: float) -> Line:
    tasks = ", ".join(task.task for task in summary.tasks)
    first = summary.tasks[0]
    tuned, gain = first.arm(TUNED), first.against(PROMPTING)
    score = tuned.summaries.get(first.metric) if tuned else None
    return Line(
        name,
        "finished",
        summary.model,
        tasks,
        score.mean if score else None,
        fmt.interval(score) if score else "",
        fmt.change_with_interval(gain) if gain else "",
        next(iter(summary.verdict), ""),
        changed,
    )


async def start(request: Request) -> Response:
    """`GET /`: what is in the folder."""
    site, asked = here(request), request.query_params

    def look() -> Response:
        place = site.workplace
        order = asked.get("sort", "newest")
        order = order if order in SORTED else "newest"
        lines = sorted((run_line(site, run) for run in place.runs()), key=SORTED[order])
        first = number(asked.get("from", ""))
        return site.page(
            "start.html.jinja",
            data=[place.name(path) for path in place.data()],
            recipes=[place.name(path) for path in place.recipes()],
            runs=lines[first : first + PAGE],
            all_runs=len(lines),
            first=first,
            page=PAGE,
            order=order,
            orders=[*SORTED],
            studies=[place.name(path) for path in place.studies()],
            jobs=jobs(place.folder)[:8],
        )

    return await aside(look)


async def upload(request: Request) -> Response:
    """`PUT /files/{name}`: a file that was dropped."""
    site = here(request)
    path = await site.workplace.take(request.path_params["name"], request.stream())
    name = site.workplace.name(path)
    kind = "task" if name.endswith(".task.yaml") else "data"
    kind = "plan" if name.endswith(".recipe.yaml") else kind
    return JSONResponse({"to": site.url(kind, name)}, 201)


async def study(request: Request) -> Response:
    """`GET /study/{name}`: a study's report, a page of its own."""
    folder = here(request).workplace.path(request.path_params["name"])
    return report_file(folder)


def report_file(folder: Path) -> Response:
    """Return a report as it lies in its folder: it has a style sheet inside, and no script."""
    path = folder / REPORT
    if not path.is_file():
        raise NotHereError(str(path))
    policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
    headers = {"content-security-policy": policy}
    return Response(path.read_bytes(), media_type="text/html", headers=headers)


# --- jobs ----------------------------------------------------------------------------------------


def job_of(site: Site, id: str) -> Job:
    """Return a job.

    Raises:
        NotHereError: There is none of that id.
    """
    job = find(site.workplace.folder, id)
    if job is None:
        raise NotHereError(id)
    return job


async def job(request: Request) -> Response:
    """`GET /job/{id}`: a command and what it says."""
    site = here(request)
    begun = job_of(site, request.path_params["id"])
    return await aside(lambda: site.page("job.html.jinja", job=begun, run=job_run(site, begun)))


async def job_events(request: Request) -> Response:
    """`GET /job/{id}/events`: the same, live."""
    site = here(request)
    begun = job_of(site, request.path_params["id"])

    def look() -> tuple[str, bool]:
        running = begun.running
        return site.render("job.part.html.jinja", job=begun, run=job_run(site, begun)), not running

    return StreamingResponse(events(request, look), media_type="text/event-stream")


async def job_stop(request: Request) -> Response:
    """`POST /job/{id}/stop`: Ctrl-C."""
    site = here(request)
    begun = job_of(site, request.path_params["id"])
    await form(request)
    begun.stop()
    return site.to_job(begun)


def job_run(site: Site, job: Job) -> str:
    """Return the run that a command works on, by its name in the folder; empty: none."""
    for option in ("--folder", "--resume"):
        if option in job.command[:-1]:
            name = job.command[job.command.index(option) + 1]
            with contextlib.suppress(NotHereError):
                return site.workplace.name(site.workplace.path(name.removeprefix("./")))
    return ""


def jobs_of(site: Site, run: str, *, commands: Sequence[str]) -> list[Job]:
    """Return the jobs of some commands that work on a run, the newest first."""
    return [
        job
        for job in jobs(site.workplace.folder)
        if job.command[0] in commands and run in job.command[1:] and not run.startswith("-")
    ]
