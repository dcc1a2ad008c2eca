"""The whole way in a real browser, and a second browser that tries to get in.

`make test-ui` runs it. With INSTIL_SCREENSHOTS=FOLDER each page is kept as a picture.
"""

from __future__ import annotations

import http.server
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import build_tiny_model
from instil.stages.runfiles import is_finished, load_steps, require_whole
from instil.web.jobs import jobs

pytestmark = pytest.mark.browser

OPTIONS = (
    "--no-sandbox --disable-gpu --disable-quic --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
SCREENSHOTS = os.environ.get("INSTIL_SCREENSHOTS", "")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=OPTIONS)
        yield browser
        browser.close()


@dataclass
class Ui:
    """A running `instil ui`."""

    process: subprocess.Popen[str]
    address: str
    folder: Path

    @property
    def secret(self) -> str:
        return self.address.rstrip("/").rsplit("/", 1)[1]

    @property
    def origin(self) -> str:
        return self.address.rsplit("/", 2)[0]


def open_ui(folder: Path, port: int = 0) -> Ui:
    command = [sys.executable, "-m", "instil", "ui", str(folder), "--no-browser"]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--model", "./tiny"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    found = re.search(r"http\S+", process.stdout.readline())
    assert found
    return Ui(process, found[0], folder)


@contextmanager
def closing(ui: Ui) -> Iterator[Ui]:
    try:
        yield ui
    finally:
        ui.process.kill()
        ui.process.wait()
        ui.process.stdout.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "shop"
    place.mkdir()
    build_tiny_model(place / "tiny")
    yield place
    for job in jobs(place):
        if job.running:
            os.kill(job.pid, signal.SIGKILL)
            psutil.wait_procs([psutil.Process(job.pid)], timeout=10)


@dataclass
class Watched:
    """A page whose errors are noted, and which axe looks at."""

    page: Any
    errors: list[str]

    def look(self, name: str) -> None:
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        grave = [v for v in found if v["impact"] in ("serious", "critical")]
        told = [(v["id"], [node["html"] for node in v["nodes"][:3]]) for v in grave]
        assert not grave, f"{name}: {told}"
        assert not self.errors, self.errors
        wide = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, f"{name} is wider than its window"
        if SCREENSHOTS:
            Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(SCREENSHOTS, f"{name}.png"))

    def everywhere(self, name: str) -> None:
        """Look at a page wide, narrow, and in the dark."""
        self.look(name)
        self.page.set_viewport_size({"width": 360, "height": 740})
        self.page.emulate_media(color_scheme="dark")
        self.look(f"{name}-narrow-dark")
        self.page.emulate_media(color_scheme="light")
        self.page.set_viewport_size({"width": 1200, "height": 800})


@pytest.fixture
def watch(chromium) -> Iterator[Callable[..., Watched]]:
    contexts = []

    def new(**options: Any) -> Watched:
        context = chromium.new_context(viewport={"width": 1200, "height": 800}, **options)
        contexts.append(context)
        context.set_default_timeout(60_000)
        page, errors = context.new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))

        def note(message: Any) -> None:
            if message.type == "error":
                errors.append(f"{message.text} {message.location}")

        page.on("console", note)
        return Watched(page, errors)

    yield new
    for context in contexts:
        context.close()


def messy_rows() -> bytes:
    """Rows as people have them: BOM, entities, labels in two forms, repeats, a bad line."""
    draw, lines = random.Random(3), ["review;sarcastic;product;when"]
    for n in range(240):
        good = n % 2
        words = draw.sample(["good", "great", "lovely"] if good else ["bad", "poor", "awful"], 2)
        text = f"The {draw.choice(['phone', 'book'])} &amp; screen {n}: {words[0]} and {words[1]}"
        lines.append(f'"{text}";{" 1" if n % 9 == 1 else good};p{n % 48};2024-02-{n % 28 + 1:02}')
    lines += [lines[5], lines[8], '"one cell too many";1;p1;2024-02-01;x']
    return ("\ufeff" + "\r\n".join(lines) + "\r\n").encode()


def plain_rows(folder: Path) -> None:
    texts = (f"it was {'fine' if n % 2 else 'sad'} again {n}" for n in range(120))
    rows = (f"{text},{'yes' if 'fine' in text else 'no'}\n" for text in texts)
    (folder / "rows.csv").write_text("text,label\n" + "".join(rows))


def until(what: Callable[[], bool], *, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.1)


def test_the_whole_way(folder, watch):
    """A messy file is dropped, mended, run, watched, stopped, resumed, judged, tried, exported."""
    (folder.parent / "messy.csv").write_bytes(messy_rows())
    with closing(open_ui(folder)) as ui:
        watched = watch()
        page = watched.page
        page.goto(ui.address)
        watched.everywhere("start")

        # Data: dropped, a bad row left out, a label named.
        page.set_input_files("#file", folder.parent / "messy.csv")
        page.wait_for_url("**/data/messy.csv")
        assert "1 row cannot be used" in page.inner_text("main")
        page.check("input[name=skip]")
        page.select_option("#label", "sarcastic")
        page.wait_for_selector("input[name='name:0']")
        page.fill("input[name='name:0']", "serious")
        page.wait_for_selector("text=0=serious")
        page.fill("input[name='name:1']", "sarcastic")
        page.wait_for_selector("text=1=sarcastic")
        page.select_option("#group", "product")
        watched.everywhere("data")
        page.click("text=Write the task and the recipe")
        page.wait_for_url("**/task/messy.task.yaml")

        # Task: a template broken, its mistake shown beside it, and mended.
        page.wait_for_selector("text=marked ones are trained on")
        page.wait_for_selector("#findings ul")
        box = page.locator("#prompt-0")
        text = box.input_value()
        box.fill(text + " {{ reviw }}")
        page.wait_for_selector("#shown-0 .problem")
        assert "reviw" in page.inner_text("#shown-0")
        box.fill("Serious or sarcastic?\n\n" + text)
        page.wait_for_selector("#shown-0 mark")
        page.wait_for_selector("text=Serious or")
        watched.everywhere("task")
        page.click("text=Write to the task file")
        page.wait_for_selector("text=Written to messy.task.yaml")
        assert "Serious or sarcastic?" in (folder / "messy.task.yaml").read_text()

        # Plan: form and text follow one another.
        page.click("text=Plan the training")
        page.wait_for_selector("#forecast[aria-busy=false]")
        whole = page.locator("#whole")
        changed = whole.input_value().replace("tasks: guard\n", "tasks: none\n  text: false\n")
        changed = changed.replace("num_train_epochs: auto", "num_train_epochs: 15")
        whole.fill(changed.replace("[0, 1, 5]", "[0, 1]"))
        until(lambda: page.input_value("#epochs") in ("15", "15.0"))
        page.click("text=Write the text")
        page.wait_for_selector("text=Written to messy.recipe.yaml")
        page.wait_for_selector("#forecast[aria-busy=false] dl")
        watched.everywhere("plan")

        # Run: watched, stopped, resumed; the server killed meanwhile.
        page.click("text=Begin the run")
        page.wait_for_url("**/run/runs/messy**")
        page.wait_for_selector(".plots svg")
        watched.everywhere("live")
        page.click("text=Stop")
        page.wait_for_selector("text=Go on with the run")
        stopped = load_steps(folder / "runs/messy")
        assert stopped
        page.click("text=Go on with the run")
        page.wait_for_selector("text=At work")
        until(lambda: len(load_steps(folder / "runs/messy")) > len(stopped))
        ui.process.kill()
        ui.process.wait()
        assert jobs(folder)[0].running
    with closing(open_ui(folder)) as ui:
        page.goto(f"{ui.address}run/runs/messy")
        page.wait_for_selector(".verdict", timeout=120_000)
        require_whole(folder / "runs/messy")
        steps = load_steps(folder / "runs/messy")
        assert [step.step for step in steps] == [*range(1, len(steps) + 1)]
        assert steps[: len(stopped)] == stopped[: len(steps)]
        watched.errors.clear()  # of the server that was killed
        watched.everywhere("result")

        # Result: answers filtered, a label marked.
        page.click("nav.tabs >> text=Answers")
        page.wait_for_selector("#outcome")
        page.wait_for_load_state()  # the script that sends a choice has been run
        page.select_option("#outcome", "right")
        page.wait_for_url("**outcome=right**")
        watched.everywhere("answers")
        page.locator(".mark button").first.click()
        page.wait_for_selector("text=A corrected file")

        # Try: both answer, blind too; a row is labelled.
        page.click("nav.tabs >> text=Try")
        page.click("text=Load the models")
        page.wait_for_selector("#prompt")
        page.click("text=Ask both")
        until(lambda: all(page.locator("[data-answer]").all_inner_texts()))
        page.check("input[name=blind]")
        page.wait_for_selector("button.main:not([disabled])")
        page.click("text=Ask both")
        page.wait_for_selector("[data-choose]:visible")
        assert page.inner_text("[data-head=a]") == "A"
        page.click("[data-better=a]")
        page.wait_for_selector("text=A was the")
        page.fill("[name='column:review']", "The phone: awful and poor")
        page.click("text=Label it")
        page.wait_for_selector("#classified meter")
        watched.everywhere("try")
        page.click("text=Free the memory")
        page.wait_for_selector("text=Load the models")

        # Ship: exported and verified.
        page.click("nav.tabs >> text=Ship")
        watched.everywhere("ship")
        page.click("text=Export and verify")
        page.wait_for_url("**/job/**")
        page.wait_for_selector("text=verified: equal")
        watched.everywhere("job")
        assert (folder / "models/messy/certificate.json").is_file()

        # Two runs chosen, and compared.
        page.goto(f"{ui.address}compare?a=runs/messy&b=runs/messy")
        watched.everywhere("compare")
        page.goto(ui.address)
        watched.look("start-with-runs")
        assert "finished" in page.inner_text("main")
        (folder / "odd.json").write_text("{")
        for name, path in (("message", "nowhere"), ("unreadable", "data/odd.json")):
            page.goto(ui.address + path)
            watched.errors.clear()  # that the page is not there
            watched.everywhere(name)


def test_by_the_keyboard_alone(folder, watch):
    plain_rows(folder)
    with closing(open_ui(folder)) as ui:
        watched = watch()
        page = watched.page
        page.goto(f"{ui.address}data/rows.csv")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the page"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        seen = []
        for _ in range(60):
            page.keyboard.press("Tab")
            seen.append(page.evaluate("document.activeElement.textContent.trim()"))
            shown = "getComputedStyle(document.activeElement).outlineStyle"
            assert page.evaluate(shown) != "none", seen[-1]
            if seen[-1] == "Write the task and the recipe":
                break
        page.keyboard.press("Enter")
        page.wait_for_url("**/task/rows.task.yaml")


def test_without_scripts_the_forms_do_the_same(folder, watch):
    plain_rows(folder)
    with closing(open_ui(folder)) as ui:
        page = watch(java_script_enabled=False).page
        page.goto(f"{ui.address}data/rows.csv")
        page.click("text=Write the task and the recipe")
        page.wait_for_url("**/task/rows.task.yaml")
        page.locator("textarea").first.fill("Yes or no? {{ text }}")
        page.click("text=Write to the task file")
        assert "Yes or no?" in (folder / "rows.task.yaml").read_text()


class Evil(http.server.BaseHTTPRequestHandler):
    """Another page of this machine, that tries all it can against the page of `instil ui`."""

    target = ""

    def do_GET(self) -> None:
        page = Path(__file__).with_name("evil.html").read_text(encoding="utf-8")
        body = page.replace("TARGET", self.target).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def test_a_second_browser_gets_nowhere(folder, watch):
    """Another origin, even with the secret; no secret; another name; tricks with paths."""
    plain_rows(folder)
    with closing(open_ui(folder)) as ui:
        Evil.target = ui.address
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil) as evil:
            threading.Thread(target=evil.serve_forever, daemon=True).start()
            page = watch().page
            page.goto(f"http://127.0.0.1:{evil.server_port}/")
            page.wait_for_function("window.done")
            found = page.evaluate("window.found")
            assert set(found) <= {"no", ""}, found  # an opaque answer of `no-cors` is empty
            page.evaluate("document.getElementById('form').submit()")
            page.wait_for_load_state()
            assert "nothing was done" in page.inner_text("body")
            evil.shutdown()
        assert sorted(p.name for p in folder.iterdir()) == ["rows.csv", "tiny"]
        assert not jobs(folder)
        stranger = watch().page
        for path in ("/", "/wrong/", f"/{ui.secret[:-1]}/", "/assets/page.js", "//"):
            assert stranger.goto(ui.origin + path).status == 403
        for path in ("data/../../etc/passwd", "data/%2e%2e%2fx", "run/%2Fetc"):
            assert stranger.goto(ui.address + path).status in (403, 404)
        assert ui.process.poll() is None


def test_scripts_in_data_names_and_answers_do_nothing(folder, watch):
    evil = "<img src=x onerror=window.hit=1><script>window.hit=1</script>"
    rows = [{"text": f"{evil} it was {n}", evil: "yes" if n % 2 else "no"} for n in range(80)]
    (folder / "a<b>&'.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with closing(open_ui(folder)) as ui:
        watched = watch()
        page = watched.page
        page.goto(ui.address)
        page.click("text=a<b>&'.jsonl")
        page.wait_for_selector("table.rows")
        page.click("text=Write the task and the recipe")
        page.wait_for_url("**/task/**")
        page.wait_for_selector("#findings:not([data-load])")
        assert page.evaluate("window.hit") is None
        assert not [error for error in watched.errors if "Content Security Policy" in error]
        assert "onerror" in page.inner_text("main")


def test_a_run_that_is_watched_ends_when_its_page_is_closed(folder, watch):
    """Closing the page stops nothing."""
    plain_rows(folder)
    with closing(open_ui(folder)) as ui:
        page = watch().page
        page.goto(f"{ui.address}data/rows.csv")
        page.click("text=Write the task and the recipe")
        page.wait_for_url("**/task/**")
        recipe = folder / "rows.recipe.yaml"
        text = recipe.read_text().replace("tasks: guard\n", "tasks: none\n  text: false\n")
        recipe.write_text(text.replace("[0, 1, 5]", "[0]"))
        page.goto(f"{ui.address}plan/rows.recipe.yaml")
        page.click("text=Begin the run")
        page.wait_for_url("**/run/**")
        page.close()
        until(lambda: bool(jobs(folder)) and not jobs(folder)[0].running)
        assert is_finished(folder / "runs/rows"), jobs(folder)[0].output
