"""The page of a recipe: what will be trained and how, what that takes, and what the test can show.

The form and the YAML are two views of one file; the forecast is that of `instil check`.

Tests: `tests/web/test_plan.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml.comments import CommentedMap
from starlette.requests import Request
from starlette.responses import Response

from instil import format as fmt
from instil.config.methods import Method
from instil.config.recipe import Recipe, load_recipe, run_name
from instil.config.sections import Searching
from instil.config.yamlfile import parse_yaml
from instil.config.yamlwriter import edited
from instil.errors import InstilError, RecipeError
from instil.files import write_whole
from instil.model.catalogue import CATALOGUE
from instil.web.jobs import begin, command_line
from instil.web.site import Site, aside, form, here, text_of, told

if TYPE_CHECKING:
    from instil.stages.check import Forecast

_TEXTS = ("model", "method", "baselines.search")
_FIGURES = (
    "train.num_train_epochs",
    "tasks.0.train",
    "validation",
    "test",
    "forgetting.budget",
    "forgetting.at_most",
)
FIELDS = (*_TEXTS, *_FIGURES)
"""Keys of the recipe that the form has a field for."""
_CHOICES: dict[str, Any] = {
    "models": [*CATALOGUE],
    "methods": [str(method) for method in Method],
    "searches": [str(extent) for extent in Searching],
}


@dataclass
class Forecasts:
    """The forecasts that are asked for: one at a time, and of several that wait the last."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while one is made."""
    newest: int = 0
    """Number of the last one that was asked for."""


def value_of(name: str, text: str) -> object:
    """Return what a field's text stands for in YAML."""
    text = text.strip()
    if text in ("null", ""):
        return None
    try:
        figure = float(text) if name in _FIGURES else None
    except ValueError:  # `auto`, or what the recipe's own check says is wrong
        figure = None
    if figure is None:
        return text
    return int(figure) if figure.is_integer() else figure


def changed(path: Path, said: Mapping[str, str]) -> str:
    """Return a recipe's text with what the form says in it; what is as it was is left alone."""
    text = text_of(path)
    known = _fields(path, text)

    def change(data: Any) -> None:
        for name in FIELDS:
            if said.get(name, known[name]) == known[name]:
                continue
            *way, key = name.split(".")
            place = data
            for step in way:
                if isinstance(place, dict) and place.get(step) is None:
                    place[step] = CommentedMap()  # a section that the recipe leaves out
                place = place[int(step) if step.isdigit() else step]
            place[key] = value_of(name, said[name])

    return edited(text, change, where=path.name, error=RecipeError)


def fields_of(recipe: Recipe, *, said: Mapping[str, object]) -> dict[str, str]:
    """Return the form's fields as the recipe has them, defaults filled in.

    Args:
        recipe: As it was read.
        said: The same as it is written, in which paths are not made absolute.
    """
    fields = {}
    for name in FIELDS:
        value: Any = recipe
        for step in name.split("."):
            value = value[int(step)] if step.isdigit() else getattr(value, step)
        fields[name] = "" if value is None else str(getattr(value, "value", value))
    return {**fields, "model": str(said.get("model", fields["model"]))}


def _recipe_path(request: Request) -> Path:
    return here(request).workplace.path(request.path_params["name"])


def _fields(path: Path, text: str) -> dict[str, str]:
    data = parse_yaml(text, where=path.name, error=RecipeError).data
    return fields_of(tried(path, text), said=data if isinstance(data, dict) else {})


async def plan(request: Request) -> Response:
    """`GET /plan/{name}`: the whole page."""
    site, path = here(request), _recipe_path(request)
    return await aside(lambda: _page(site, path))


def _page(
    site: Site,
    path: Path,
    *,
    error: str = "",
    text: str = "",
    saved: bool = False,
    said: Mapping[str, str] | None = None,
) -> Response:
    name, fields = site.workplace.name(path), dict[str, str]()
    try:
        fields = _fields(path, text_of(path))
    except InstilError as bad:
        error = error or told(bad)[0]
    # What was typed stays, where it could not be written.
    fields |= {field: value for field, value in (said or {}).items() if field in fields}
    folder = site.workplace.name(site.workplace.free(f"runs/{run_name(path)}"))
    task = path.with_name(path.name.removesuffix(".recipe.yaml") + ".task.yaml")
    return site.page(
        "plan.html.jinja",
        status=400 if error else 200,
        name=name,
        text=text or text_of(path),
        fields=fields,
        **_CHOICES,
        task=site.workplace.name(task) if task.is_file() else "",
        line=command_line(["run", name, "--folder", folder]),
        check=command_line(["check", name]),
        error=error,
        saved=saved,
    )


def tried(path: Path, text: str) -> Recipe:
    """Return the recipe that a text would be in place of the one in a file.

    Raises:
        RecipeError: All mistakes, with the file and the lines of the text.
    """
    scratch = path.with_name(f".{path.name}.{threading.get_ident()}.tmp")
    try:
        write_whole(scratch, text.encode())
        return load_recipe(scratch)
    except RecipeError as error:
        told = (replace(p, where=p.where.replace(scratch.name, path.name)) for p in error.problems)
        raise RecipeError(*told) from None
    finally:
        scratch.unlink(missing_ok=True)


async def save(request: Request) -> Response:
    """`POST /plan/{name}`: write the form, or the whole text, into the recipe."""
    site, path, said = here(request), _recipe_path(request), await form(request)

    def write() -> Response:
        text = said.get("text", "")
        try:
            text = text or changed(path, said)
            tried(path, text)
        except InstilError as error:
            return _page(site, path, error=told(error)[0], text=text, said=said)
        write_whole(path, text.encode())
        return _page(site, path, saved=True)

    return await aside(write)


async def forecast(request: Request) -> Response:
    """`POST /plan/{name}/forecast`: what a run would take and could show, as the form stands."""
    site, path, said = here(request), _recipe_path(request), await form(request)
    queue: Forecasts = site.memory.setdefault("forecasts", Forecasts())
    queue.newest += 1
    mine = queue.newest

    def look() -> Response:
        with queue.lock:
            if mine != queue.newest:
                return Response(status_code=204)  # a later one was asked for meanwhile
            values: dict[str, Any] = {"text": "", "fields": {}, "error": "", "found": None}
            try:
                from instil.stages.check import check_recipe

                # Each view follows the other; the one that is typed into is left as it is.
                if "text" in said:
                    text, values["fields"] = said["text"], _fields(path, said["text"])
                else:
                    text = values["text"] = changed(path, said)
                forecast = check_recipe(tried(path, text))
                values |= {"found": forecast, "lines": lines_of(forecast)}
            except InstilError as error:
                values["error"] = told(error)[0]
        return site.page("forecast.part.html.jinja", **_CHOICES, **values)

    return await aside(look)


def lines_of(forecast: Forecast) -> list[tuple[str, str]]:
    """Return a forecast as names and values."""
    lines = [
        ("Time", fmt.seconds(forecast.seconds)),
        ("Memory", forecast.memory.removeprefix("memory: ")),
    ]
    for task in forecast.tasks:
        shows = "no difference: too few rows or groups"
        if task.smallest_difference < 1:
            smallest = fmt.size_of_change(task.smallest_difference, task.metric)
            shows = f"differences from {smallest} on (80 % power; guessed)"
        rows = ", ".join(f"{part} {count:,}" for part, count in task.rows.items())
        lines += [
            (f"Rows of {task.task}", rows),
            (f"The test of {task.task} shows", shows),
        ]
    return lines


async def start(request: Request) -> Response:
    """`POST /start/{name}`: begin the run, as a process that outlives the page."""
    site, path = here(request), _recipe_path(request)
    await form(request)

    def run() -> Response:
        try:
            load_recipe(path)
        except InstilError as error:
            return _page(site, path, error=told(error)[0])
        folder = site.workplace.free(f"runs/{run_name(path)}")
        names = [site.workplace.name(each) for each in (path, folder)]
        job = begin(site.workplace.folder, ["run", names[0], "--folder", names[1]])
        return site.go("run", names[1], job=job.id)

    return await aside(run)
