"""From a report to one self-contained HTML page: pure, no files of the run, no network."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from instil.report.charts import draw
from instil.report.page import Plot, Report
from instil.sanitize import shortened, visible

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def to_html(report: Report) -> str:
    """Return the report as one HTML document with its style sheet and plots inside.

    Every text of the report is escaped; characters that cannot be seen are written out.
    """
    from markupsafe import Markup

    environment = make_environment()
    assert environment.loader is not None
    css, _, _ = environment.loader.get_source(environment, "report.css")
    template = environment.get_template("report.html.jinja")
    page = template.render(report=report, plot=plotter(), css=Markup(css))
    return page.lstrip()  # what the macros leave before the document


def plotter() -> Callable[[Plot], Markup]:
    """Return what draws the plots of one page, each under a name of its own."""
    from markupsafe import Markup

    numbers = itertools.count(1)

    def plot(drawn: Plot) -> Markup:
        try:
            # `draw` builds its SVG of elements of ours and escapes every text itself.
            return Markup(draw(drawn, ident=f"chart-{next(numbers)}"))
        except Exception as error:  # no plot is worth the report, nor the run that made it
            text = '<p class="aside">This plot could not be drawn ({}). In words: {}</p>'
            reason = shortened(f"{type(error).__name__}: {error}".rstrip(": "))
            return Markup(text).format(visible(reason), visible(drawn.description))

    return plot


@cache
def make_environment(*packages: str) -> Environment:
    """Return what renders pages: texts are escaped, and characters that cannot be seen written out.

    Args:
        packages: Others whose `assets` hold templates, beside the report's.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    def seen(value: object) -> object:
        """Write out unseen characters of every text that is printed; markup of ours stays."""
        is_text = isinstance(value, str) and not hasattr(value, "__html__")
        return visible(str(value)) if is_text else value

    folders = [PackageLoader(package, "assets") for package in (*packages, "instil.report")]
    return Environment(
        loader=ChoiceLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=seen,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
