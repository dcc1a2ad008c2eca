"""The page of a run: live while it is at work, its report when it is done; stop, resume, compare.

Tests: `tests/web/test_runs.py`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse

from instil import format as fmt
from instil.errors import InstilError
from instil.pipeline import compare_runs, comparison_notes
from instil.report.build import build_report
from instil.report.parts import COMPARED, capital, compared_texts
from instil.report.sections.curves import curve_plots
from instil.stages.ledger import load_ledger
from instil.stages.lock import holder
from instil.stages.runfiles import RECIPE, STEPS, SUMMARY, is_finished, load_manifest, load_steps
from instil.types import Step
from instil.web.jobs import Job, begin, command_line, find
from instil.web.pages.start import jobs_of, report_file, summary_of
from instil.web.site import Site, aside, events, form, here, once, told
from instil.web.workplace import NotHereError

TABS = {
    "": "Report",
    "answers": "Answers",
    "try": "Try",
    "ship": "Ship",
}
"""The pages of a finished run: first part of the address -> name."""


def newest_job(site: Site, name: str) -> Job | None:
    """Return the last command that worked on a run's training."""
    return next(iter(jobs_of(site, name, commands=("run",))), None)


def run_folder(request: Request) -> tuple[Path, str]:
    """Return the run that an address names, and its name in the folder."""
    site = here(request)
    folder = site.workplace.path(request.path_params["name"])
    return folder, site.workplace.name(folder)


async def run(request: Request) -> Response:
    """`GET /run/{name}`: the run as it stands."""
    site, name = here(request), request.path_params["name"]
    try:
        folder, name = run_folder(request)
    except NotHereError:
        job = find(site.workplace.folder, request.query_params.get("job", "")) or newest_job(
            site, name
        )
        if job is None or name not in job.command:
            raise
        # It has only just begun, or was refused before it began.
        return await aside(lambda: _live(site, site.workplace.folder / name, name))
    if not is_run(folder):
        raise NotHereError(name)

    def look() -> Response:
        if not is_finished(folder) or holder(folder):
            return _live(site, folder, name)
        return HTMLResponse(result(site, folder, name))

    return await aside(look)


def result(site: Site, folder: Path, name: str) -> str:
    """Return the page of a finished run, drawn once."""

    def draw(_: Path) -> str:
        summary, manifest = summary_of(site, folder), load_manifest(folder)
        report = build_report(summary, steps=load_steps(folder), manifest=manifest)
        return site.render("result.html.jinja", name=name, report=report, tab="", tabs=TABS)

    return once(site, "result", folder / SUMMARY, draw)


def is_run(folder: Path) -> bool:
    """Whether a folder is a run directory, or one that is being begun."""
    return folder.is_dir() and ((folder / RECIPE).is_file() or bool(holder(folder)))


def _live(site: Site, folder: Path, name: str) -> Response:
    return site.page("live.html.jinja", **live_values(site, folder, name))


def live_values(site: Site, folder: Path, name: str) -> dict[str, Any]:
    """Return what the live page shows."""
    job = newest_job(site, name)
    begun = (folder / RECIPE).is_file()
    who = holder(folder) if folder.is_dir() else ""
    running = bool(who) or bool(job and job.running)
    stages, drawn, error = list[str](), Markup(), ""
    if begun:
        try:
            stages = [*load_ledger(folder).stages]
            drawn = curves(site, folder)
        except InstilError as bad:
            error = told(bad)[0]
    return {
        "name": name,
        "job": job,
        "running": running,
        "begun": begun,
        "stages": stages,
        "progress": job.progress if job and job.running else {},
        "curves": drawn,
        "alarms": alarms(job.output) if job else [],
        "error": error,
        "resume": command_line(["run", "--resume", name]),
    }


def facts(steps: tuple[Step, ...]) -> list[tuple[str, str]]:
    """Return the figures of the last step, and of all so far."""
    if not steps:
        return []
    last, seconds = steps[-1], sum(step.seconds for step in steps)
    tokens = sum(step.tokens for step in steps)
    figures = [
        ("Step", f"{last.step:,} (epoch {last.epoch:.2f})"),
        ("Loss", f"{fmt.figure(last.loss, 'nats_per_token')} nats per token"),
        ("Tokens a second", f"{tokens / max(seconds, 1e-9):,.0f}"),
        ("Memory", fmt.size(last.memory_bytes)),
    ]
    scores = [step.validation_score for step in steps if step.validation_score is not None]
    return [*figures, *([("Validation", f"{scores[-1]:.3f}")] if scores else [])]


def curves(site: Site, folder: Path) -> Markup:
    """Return figures and curves of a run's steps so far, drawn anew when there are more."""

    def draw(_: Path) -> Markup:
        steps = load_steps(folder)
        plots = curve_plots(steps, best_step=0, metric="") if steps else ()
        # The template escapes what it is given.
        return Markup(site.render("curves.part.html.jinja", facts=facts(steps), plots=plots))

    steps = folder / STEPS
    return once(site, "curves", steps, draw) if steps.is_file() else Markup()


def alarms(output: str) -> list[str]:
    """Return the lines of an output that a user should not miss."""
    words = ("warning:", "nothing is shown to be learnt", "get the same answer", "not finite")
    lines = output.splitlines()
    return [line for line in lines if any(word in line.lower() for word in words)][-5:]


async def run_events(request: Request) -> Response:
    """`GET /events/run/{name}`: the live part, as it changes."""
    site, name = here(request), request.path_params["name"]
    job = newest_job(site, name)
    try:
        folder = site.workplace.path(name)
    except NotHereError:
        if job is None or name not in job.command:
            raise
        folder = site.workplace.folder / name  # it has only just begun
    if job is None and not is_run(folder):
        raise NotHereError(name)

    def look() -> tuple[str, bool]:
        values = live_values(site, folder, name)
        return site.render("live.part.html.jinja", **values), not values["running"]

    return StreamingResponse(events(request, look), media_type="text/event-stream")


async def stop(request: Request) -> Response:
    """`POST /stop/{name}`: stop a run as Ctrl-C does; what is finished is kept."""
    site, name = here(request), request.path_params["name"]
    await form(request)
    job = newest_job(site, name)
    if job is not None:
        await aside(partial(job.stop, wait=3))
    return site.go("run", name)


async def resume(request: Request) -> Response:
    """`POST /resume/{name}`: go on with a run that was stopped."""
    site = here(request)
    _, name = run_folder(request)
    await form(request)
    job = await aside(lambda: begin(site.workplace.folder, ["run", "--resume", name]))
    return site.go("run", name, job=job.id)


async def report(request: Request) -> Response:
    """`GET /report/{name}`: the report file itself."""
    folder, _ = run_folder(request)
    return report_file(folder)


async def compare(request: Request) -> Response:
    """`GET /compare?a=&b=`: two runs on the rows that both were tested on."""
    site, asked = here(request), request.query_params
    names = [asked.get("a", ""), asked.get("b", "")]
    a, b = (site.workplace.path(name) for name in names)

    def look() -> Response:
        rows, notes, error = list[tuple[str, ...]](), tuple[str, ...](), ""
        try:
            found, notes = compare_runs(a, b), comparison_notes(a, b)
            texts = zip(found, compared_texts(found), strict=True)
            rows = [(f"{pair.b} \u2212 {pair.a}", *row) for pair, row in texts]
        except InstilError as bad:
            error = told(bad)[0]
        return site.page(
            "compare.html.jinja",
            names=names,
            titles=["Runs", *(capital(each) for each in COMPARED)],
            rows=rows,
            notes=notes,
            error=error,
            line=command_line(["compare", *names]),
        )

    return await aside(look)
