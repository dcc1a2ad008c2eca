"""The page that takes a run's model to where it is used: export, verify, serve, with their outcome.

Tests: `tests/web/test_runs.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from instil.ship.formats import Format, Quantization
from instil.web.jobs import begin, command_line
from instil.web.pages.runs import TABS, run_folder
from instil.web.pages.start import jobs_of
from instil.web.site import Site, aside, form, here

_OUT = re.compile(r"[\w.][\w. -]*(/[\w.][\w. -]*)*")
FORMATS = {
    Format.HF: "as the run saved it: adapter or weights, for transformers and peft",
    Format.MERGED: "one transformers model, the adapter in its weights",
    Format.GGUF: "one file for llama.cpp",
    Format.GGUF_LORA: "the adapter alone, for llama.cpp",
    Format.OLLAMA: "GGUF with a Modelfile",
}


async def show(request: Request) -> Response:
    """`GET /ship/{name}`: the forms, and what became of them."""
    site = here(request)
    folder, name = run_folder(request)
    return await aside(lambda: _page(site, folder, name))


def _page(site: Site, folder: Path, name: str, *, error: str = "") -> Response:
    out = site.workplace.name(site.workplace.free(f"models/{folder.name}"))
    done = jobs_of(site, name, commands=("export", "verify", "serve", "gate", "push"))
    targets = [job.command[2] for job in done if job.command[0] == "export" and job.code in (0, 4)]
    return site.page(
        "ship.html.jinja",
        status=400 if error else 200,
        name=name,
        tab="ship",
        tabs=TABS,
        out=out,
        formats={str(each): text for each, text in FORMATS.items()},
        quantizations=[str(each) for each in Quantization],
        jobs=done,
        targets=list(dict.fromkeys(targets)),
        error=error,
        export=command_line(["export", name, out]),
        serve=command_line(["serve", name]),
    )


async def export(request: Request) -> Response:
    """`POST /export/{name}`: begin `instil export`."""
    site, said = here(request), await form(request)
    folder, name = run_folder(request)
    out, form_ = said.get("out", "").strip(), said.get("format", "")
    quantize = said.get("quantize", "")
    known = form_ in FORMATS and quantize in list(Quantization)
    inside = _OUT.fullmatch(out) and ".." not in out.split("/") and not out.startswith(".")
    if not inside or not known:
        text = "Name a folder within this one, of letters, digits, blanks, dots and dashes."
        return await aside(lambda: _page(site, folder, name, error=text))
    command = ["export", name, out, "--format", form_]
    if Format(form_) in (Format.GGUF, Format.GGUF_LORA, Format.OLLAMA):
        command += ["--quantize", quantize]
    job = await aside(lambda: begin(site.workplace.folder, command))
    return site.to_job(job)


async def verify(request: Request) -> Response:
    """`POST /verify/{name}`: begin `instil verify` of something that was exported."""
    site, said = here(request), await form(request)
    _, name = run_folder(request)
    target = site.workplace.name(site.workplace.path(said.get("target", "")))
    command = ["verify", target, "--run", name]
    return site.to_job(await aside(lambda: begin(site.workplace.folder, command)))
