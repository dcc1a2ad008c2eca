"""From a report to one self-contained HTML page: pure, no files of the run, no network."""

from __future__ import annotations

import itertools
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

    environment = _environment()
    numbers = itertools.count(1)

    def plot(drawn: Plot) -> Markup:
        try:
            # `draw` builds its SVG of elements of ours and escapes every text itself.
            return Markup(draw(drawn, ident=f"chart-{next(numbers)}"))
        except Exception as error:  # no plot is worth the report, nor the run that made it
            text = '<p class="aside">This plot could not be drawn ({}). In words: {}</p>'
            reason = shortened(f"{type(error).__name__}: {error}".rstrip(": "))
            return Markup(text).format(visible(reason), visible(drawn.description))

    assert environment.loader is not None
    css, _, _ = environment.loader.get_source(environment, "report.css")
    template = environment.get_template("report.html.jinja")
    page = template.render(report=report, plot=plot, css=Markup(css))
    return page.lstrip()  # what the macros leave before the document


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    def seen(value: object) -> object:
        """Write out unseen characters of every text that is printed; markup of ours stays."""
        is_text = isinstance(value, str) and not hasattr(value, "__html__")
        return visible(str(value)) if is_text else value

    return Environment(
        loader=PackageLoader("instil.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=seen,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
