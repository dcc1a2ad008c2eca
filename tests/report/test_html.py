from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from instil.report.build import build_report
from instil.report.charts import draw
from instil.report.html import to_html
from instil.types import Estimate

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(2)></style></svg></title>--> "
    "&lt;b&gt; {{ 7 * 7 }} {% raw %} \x00\x07\x1b[31m\x7f\u202egnp.exe\u2066 שלום العالم \ud800 "
    "javascript:alert(3) url(http://evil.example/x) `${1}` \\u003cb\\u003e #"
)
MEANINGFUL = frozenset({"metric", "a", "b", "name", "arm", "method", "role"})
VOID = {"meta", "br"}


@dataclass
class Page(HTMLParser):
    """A page's tags, attributes and text, as a browser would find them."""

    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    stack: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.stack:
            self.text.append(data)


def parsed(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    assert page.stack == []
    return page


def html_of(sample: ModuleType, summary: Any, manifest: dict[str, Any] | None = None) -> str:
    manifest = sample.manifest() if manifest is None else manifest
    return to_html(build_report(summary, steps=sample.steps(), manifest=manifest))


@pytest.fixture(scope="module")
def both(sample: ModuleType) -> str:
    return html_of(sample, sample.run(sample.class_task(), sample.text_task()))


def without_charts(html: str) -> str:
    """Drop the inside of the plots: their geometry depends on matplotlib's version."""
    return re.sub(r"(<svg)[^>]*>.*?(</svg>)", r"\1>\2", html, flags=re.DOTALL)


@pytest.mark.parametrize("name", ["classes", "free_text", "two_tasks"])
def test_golden(name: str, sample: ModuleType, golden: Callable[[Path, str], None]) -> None:
    tasks = {
        "classes": (sample.class_task(),),
        "free_text": (sample.text_task(),),
        "two_tasks": (sample.class_task(), sample.text_task()),
    }[name]
    html = without_charts(html_of(sample, sample.run(*tasks)))
    golden(GOLDEN / f"{name}.html", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL))


def test_the_same_report_gives_the_same_page(both: str, sample: ModuleType) -> None:
    assert both == html_of(sample, sample.run(sample.class_task(), sample.text_task()))


@pytest.mark.parametrize("keep", [frozenset(), MEANINGFUL], ids=["every text", "but names"])
def test_no_text_of_a_user_becomes_markup(
    keep: frozenset[str], sample: ModuleType, retext: type
) -> None:
    run = sample.run(sample.class_task(), sample.text_task())
    pages = []
    for text in ("harmless", HOSTILE):
        put = retext(text, keep=keep)
        html = html_of(sample, put(run), retext(text)(sample.manifest()))
        assert put.count > 300
        pages.append(parsed(html))
    harmless, hostile = pages
    # The same elements with the same attributes, whatever the texts hold.
    assert hostile.tags == harmless.tags
    assert [each[:2] for each in hostile.attributes] == [each[:2] for each in harmless.attributes]
    assert not any("alert" in value or "\u05e9" in value for _, _, value in hostile.attributes)
    assert not {"script", "img", "a b", "iframe", "foreignobject"} & set(hostile.tags)
    assert "<script>alert(1)</script>" in "".join(hostile.text)


def test_unseen_characters_are_written_out(sample: ModuleType, retext: type) -> None:
    html = html_of(sample, retext(HOSTILE, keep=MEANINGFUL)(sample.run()))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800]", html)
    assert "\u2400\u2407\u241b" in html
    assert "\u27e8U+202E\u27e9" in html
    html.encode("utf-8")


def test_every_field_of_text_is_isolated_in_direction(sample: ModuleType) -> None:
    html = html_of(sample, replace(sample.run(), name="שלום", verdict=("مرحبا بالعالم",)))
    assert "<h1><bdi>שלום</bdi></h1>" in html
    assert '<p dir="auto">مرحبا بالعالم</p>' in html


@pytest.mark.parametrize("error", [MemoryError(), ImportError("no <b>such</b> library")])
def test_a_plot_that_cannot_be_drawn_leaves_its_words_and_the_tables(
    error: Exception, both: str, sample: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(plot: Any, *, ident: str) -> str:
        raise error

    monkeypatch.setattr("instil.report.html.draw", fails)
    html = html_of(sample, sample.run(sample.class_task(), sample.text_task()))
    reason = "MemoryError" if isinstance(error, MemoryError) else "&lt;b&gt;such&lt;/b&gt;"
    assert html.count("This plot could not be drawn") == both.count("<svg") > 10
    assert reason in html
    assert "In words: tuned, zero-shot: 81.5 % (77.1\u201385.9)." in html.replace("\u00a0", " ")
    assert html.count("<table>") == both.count("<table>") > 10
    parsed(html)


def test_plots_are_of_few_elements_and_their_words_are_text(both: str) -> None:
    plots = re.findall(r"<svg.*?</svg>", both, flags=re.DOTALL)
    page = parsed("".join(plots))
    assert set(page.tags) == {"svg", "g", "path", "text", "title", "desc"}
    assert not {"style", "href", "xlink:href", "xmlns"} & {name for _, name, _ in page.attributes}
    assert {"is_it_positive", "accuracy, %", "kept: step 60", "training, smoothed"} <= set(
        page.text
    )


def test_plots_are_drawn_where_address_space_is_limited(sample: ModuleType) -> None:
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        f"sys.path.insert(0, {str(Path(sample.__file__).parent)!r})\n"
        "import sample\n"
        "from instil.report.build import build_report\n"
        "from instil.report.html import to_html\n"
        "report = build_report(sample.run(), steps=sample.steps(), manifest=sample.manifest())\n"
        "html = to_html(report)\n"
        "print(html.count('<svg'), html.count('could not be drawn'))\n"
    )
    # Without a home there is no place for caches, which is not worth a word.
    environment = os.environ | {"HOME": "/proc/none", "OMP_NUM_THREADS": "1"}
    environment = {n: v for n, v in environment.items() if not n.startswith(("MPL", "XDG"))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "12 0\n"


def test_a_users_settings_of_matplotlib_change_nothing(both: str, sample: ModuleType) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "text.usetex": True, "axes.grid": False}):
        again = html_of(sample, sample.run(sample.class_task(), sample.text_task()))
        assert matplotlib.rcParams["font.size"] == 30
    assert again == both


def test_nothing_is_fetched(both: str) -> None:
    page = parsed(both)
    assert not {"script", "link", "img", "iframe", "object", "image", "use"} & set(page.tags)
    addresses = [a for a in page.attributes if a[1] in ("href", "src", "xlink:href", "style")]
    assert all(value.startswith("#") for _, _, value in addresses)
    assert "default-src 'none'" in both
    assert "url(" not in both
    assert "@import" not in both
    assert "//" not in re.sub("</?[a-z]+>|pypi://", "", both.partition("<body>")[0])
    assert not re.search("https?:", both)


def test_ids_are_unique_and_anchors_lead_somewhere(both: str) -> None:
    page = parsed(both)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids)) > 20
    targets = [value[1:] for _, name, value in page.attributes if name == "href"]
    assert targets
    assert set(targets) <= set(ids)


def test_every_plot_is_named_and_described(both: str) -> None:
    page = parsed(both)
    plots = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "role")]
    assert plots == ["img"] * len(plots)
    assert len(plots) > 10
    named = [value.split() for _, name, value in page.attributes if name == "aria-labelledby"]
    ids = {value for _, name, value in page.attributes if name == "id"}
    assert len(named) == len(plots)
    assert all(set(pair) <= ids for pair in named)


def test_every_colour_of_a_plot_has_a_dark_one(both: str) -> None:
    css = files("instil.report").joinpath("assets/report.css").read_text(encoding="utf-8")
    plots = "".join(re.findall(r"<svg.*?</svg>", both, flags=re.DOTALL))
    used = set(re.findall(r'(?:fill|stroke)="#[0-9a-f]{3,6}"', plots))
    assert len(used) > 8
    assert not {colour for colour in used if f"[{colour}]" not in css}


def test_trained_tokens_are_marked_by_more_than_colour(both: str) -> None:
    marked = re.findall(r"<mark>.*?</mark>", both, flags=re.DOTALL)
    assert "positive" in marked[-1]
    assert "&lt;|im_end|&gt;" in marked[-1]
    assert "kettle" not in "".join(marked)
    assert "trained on: " in marked[-1]  # for screen readers
    css = files("instil.report").joinpath("assets/report.css").read_text(encoding="utf-8")
    assert re.search(r"^mark \{[^}]*bold|^mark \{[^}]*700[^}]*underline", css, flags=re.MULTILINE)


def test_better_and_worse_need_an_interval_apart_from_zero(sample: ModuleType) -> None:
    def unclear(found: Any) -> Any:
        return replace(found, low=-0.01, high=0.02)

    task = sample.class_task()
    found = replace(task.probabilities, brier_change=Estimate(-0.01, -0.03, 0.01))
    task = replace(task, comparisons=tuple(map(unclear, task.comparisons)), probabilities=found)
    guards = tuple(replace(g, comparison=unclear(g.comparison)) for g in sample.guards())
    run = replace(sample.run(task), forgetting=guards, verdict=("Nothing was shown.",))
    assert not re.search("better|worse", html_of(sample, run), flags=re.IGNORECASE)
    assert re.search("tuned is better", html_of(sample, sample.run()))
    assert re.search("after is worse", html_of(sample, sample.run()))


def test_long_and_like_names_stay_apart_in_a_plot(sample: ModuleType) -> None:
    task = sample.class_task()
    names = {name: f"{'long ' * 60}{name}" for name in sample.TEMPLATES}
    task = replace(
        task, templates=tuple(replace(t, template=names[t.template]) for t in task.templates)
    )
    report = build_report(sample.run(task), steps=(), manifest={})
    (plot,) = next(s for s in report.sections if s.id == "wording").blocks[0].plots
    svg = draw(plot, ident="p")
    assert len(svg) < 20_000
    assert all(f"({n})</text>" in svg for n in range(2, 6))
    assert svg.count("<title>") == len(plot.marks)
