"""The page of a run, of its answers, of trying and of shipping it."""

from __future__ import annotations

import html
import json
import re
import shutil
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import requests
from starlette.responses import Response
from starlette.testclient import TestClient

from instil.api import load
from instil.cli.main import app
from instil.data.correct import load_marks
from instil.stages.runfiles import load_scores
from instil.web.jobs import Job, jobs
from instil.web.pages import runs, trying
from instil.web.pages.answers import answers
from pages import HOME

pytestmark = pytest.mark.slow  # many whole runs


NAME = "runs/moods"


def said(answer) -> str:
    return html.unescape(re.sub("<[^>]*>", "", answer.text))


# --- result --------------------------------------------------------------------------------------


def test_the_result_is_the_report(shop_page, shop):
    text = said(shop_page.get(f"{HOME}run/{NAME}"))
    run = load(shop / NAME)
    for sentence in run.verdict:
        assert sentence in text
    file = shop_page.get(f"{HOME}report/{NAME}")
    assert file.content == run.report.read_bytes()


def test_a_run_is_compared_with_another(shop_page, shop):
    text = said(shop_page.get(f"{HOME}compare?a={NAME}&b={NAME}"))
    assert "paired by example" in text
    assert "instil compare runs/moods runs/moods" in text
    assert shop_page.get(f"{HOME}compare?a={NAME}&b=none").status_code == 404
    assert "not a run directory" in said(shop_page.get(f"{HOME}compare?a={NAME}&b=tiny"))


def test_a_run_that_was_stopped_offers_to_go_on(shop_page, shop):
    part = shop / "runs" / "part"
    shutil.copytree(shop / NAME, part)
    (part / "summary.json").unlink()
    ledger = json.loads((part / "ledger.json").read_text())
    try:
        page = shop_page.get(f"{HOME}run/runs/part")
        assert "Go on with the run" in page.text
        assert "instil run --resume runs/part" in page.text
        assert "Loss" in page.text
        assert page.text.count("<svg") >= 1
        assert set(ledger["stages"]) >= {"training"}
        events = shop_page.get(f"{HOME}events/run/runs/part").text
        assert events.startswith("event: swap\ndata: ")
        assert events.endswith("event: end\ndata: end\n\n")
    finally:
        shutil.rmtree(part)


@pytest.mark.parametrize("way", ["{out}", "/{out}", "%2e%2e/{name}"])
def test_events_of_runs_outside_the_folder_are_not_read(shop_page, shop, tmp_path, way):
    outside = shop.parent / f"{tmp_path.name}-outside"
    shutil.copytree(shop / NAME, outside)
    (outside / "summary.json").unlink()
    name = way.format(out=outside, name=outside.name)
    assert shop_page.get(f"{HOME}events/run/{name}").status_code == 404


def test_what_a_user_must_not_miss_is_lifted_out_of_the_output():
    lines = ["training 3/9", "moods: after 8 of 24 steps nothing is shown to be learnt yet.", "x"]
    assert runs.alarms("\n".join(lines)) == lines[1:2]


# --- answers -------------------------------------------------------------------------------------


def test_every_test_row_stands_with_all_answers(shop_page, shop):
    found = answers(shop / NAME, "moods")
    lines = load_scores(shop / NAME, "test-moods")
    assert len(found) == len({line["row"] for line in lines})
    for each in found[:5]:
        for line in (line for line in lines if line["row"] == each.row):
            assert each.said[line["arm"]].text == line["prediction"]
        assert 0.5 <= each.sure <= 1
    page = said(shop_page.get(f"{HOME}answers/{NAME}"))
    assert f"{len(found)} of {len(found)} rows" in page
    assert f"Row {found[0].row}" in page


def test_filters_show_what_they_say(shop_page, shop):
    found = answers(shop / NAME, "moods")
    wrong = [each for each in found if not each.right]
    for outcome, count in (
        ("wrong", len(wrong)),
        ("right", len(found) - len(wrong)),
        ("mended", sum(e.right and not e.right_by_prompting for e in found)),
        ("broken", sum(not e.right and e.right_by_prompting for e in found)),
    ):
        assert f"{count} of {len(found)}" in said(
            shop_page.get(f"{HOME}answers/{NAME}?outcome={outcome}")
        )
    target = [each for each in found if each.target == "positive"]
    page = shop_page.get(f"{HOME}answers/{NAME}?target=positive&order=unsure")
    assert f"{len(target)} of {len(found)}" in said(page)
    rows = re.findall(r"Row <bdi>(\w+)", page.text)
    sure = {each.row: each.sure for each in found}
    assert [sure[row] for row in rows] == sorted(each.sure for each in target)[: len(rows)]
    sure = sum(each.sure >= 0.9 for each in found)
    assert f"{sure} of {len(found)}" in said(shop_page.get(f"{HOME}answers/{NAME}?sure=above"))
    guard = said(shop_page.get(f"{HOME}answers/{NAME}?task=guard"))
    assert "echo" in guard


def test_a_wrong_label_is_marked_and_corrected_by_the_command(shop_page, shop, monkeypatch):
    row = answers(shop / NAME, "moods")[0]
    other = "negative" if row.target == "positive" else "positive"
    form = {"task": "moods", "row": row.row, "now": other, "back:outcome": "right"}
    answer = shop_page.post(f"{HOME}mark/{NAME}", data=form, follow_redirects=False)
    assert answer.headers["location"] == f"{HOME}answers/{NAME}?task=moods&outcome=right"
    (mark,) = load_marks(shop / "moods.labels.jsonl").values()
    assert (mark.row, mark.was, mark.now) == (row.row, row.target, other)
    page = said(shop_page.get(f"{HOME}answers/{NAME}"))
    command = "correct moods.task.yaml moods.labels.jsonl moods.corrected.csv"
    assert f"instil {command}" in page
    assert f"{other} is right" in page
    monkeypatch.chdir(shop)
    with pytest.raises(SystemExit) as ended:
        app(command.split())
    assert ended.value.code == 0
    before, after = (
        (shop / name).read_text().splitlines() for name in ("moods.csv", "moods.corrected.csv")
    )
    changed = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert len(changed) == 1
    assert changed[0][0].replace(row.target, other) == changed[0][1]
    shop_page.post(f"{HOME}mark/{NAME}", data={**form, "now": ""})
    assert not load_marks(shop / "moods.labels.jsonl")


@pytest.mark.parametrize(("now", "why"), [("", "its label already"), ("bad", "no label of")])
def test_what_changes_nothing_or_is_no_label_is_not_marked(shop_page, shop, now, why):
    row = answers(shop / NAME, "moods")[0]
    form = {"task": "moods", "row": row.row, "now": now or row.target}
    answer = shop_page.post(f"{HOME}mark/{NAME}", data=form)
    assert answer.status_code == 400
    assert why in said(answer)
    assert not (shop / "moods.labels.jsonl").exists()


def test_the_guards_greatest_losses_come_first(shop_page, shop):
    text = shop_page.get(f"{HOME}answers/{NAME}?task=guard").text
    cells = re.findall(
        r'<td>(\w+)</td><td class="number">(.*?)</td><td class="number">(.*?)</td>', text
    )
    losses: dict[str, list[float]] = {}
    for metric, before, after in cells:
        change = float(after) - float(before)
        losses.setdefault(metric, []).append(change if metric == "nats_per_token" else -change)
    assert losses
    for found in losses.values():
        assert all(a >= b - 0.0011 for a, b in pairwise(found))


@pytest.mark.parametrize("first", ["%C2%B3", "--5", "99999999999"])
def test_odd_places_of_a_list_are_its_beginning(shop_page, first):
    assert shop_page.get(f"{HOME}answers/{NAME}?from={first}").status_code == 200


def test_a_row_that_is_gone_cannot_be_marked(shop_page, shop):
    form = {"task": "moods", "row": "nothing", "now": "positive"}
    assert shop_page.post(f"{HOME}mark/{NAME}", data=form).status_code == 400
    assert not (shop / "moods.labels.jsonl").exists()


def test_rows_that_were_changed_since_the_run_are_not_shown(shop_page, shop):
    row = answers(shop / NAME, "moods")[0]
    page = shop_page.get(f"{HOME}answers/{NAME}")
    assert "it is" in page.text
    lines = (shop / "moods.csv").read_text().splitlines(keepends=True)
    (shop / "moods.csv").write_text("".join([lines[0], lines[2], lines[1], *lines[3:]]))
    page = shop_page.get(f"{HOME}answers/{NAME}")
    assert "not what the run was judged on" in page.text
    assert "it is" not in page.text
    form = {"task": "moods", "row": row.row, "now": "leave-out"}
    assert shop_page.post(f"{HOME}mark/{NAME}", data=form).status_code == 400


# --- try -----------------------------------------------------------------------------------------


class Served:
    """What `instil serve` would answer."""

    status_code = 200

    def __init__(self, body: dict, lines: list[bytes] = ()) -> None:
        self.body, self.lines = body, lines

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None: ...

    def json(self) -> dict:
        return self.body

    def iter_lines(self) -> Iterator[bytes]:
        yield from self.lines


@pytest.fixture
def served(shop, monkeypatch) -> list[dict]:
    """A server that says whose answer it is; what it was asked is noted."""
    asked: list[dict] = []
    place = shop / ".instil" / "jobs" / "x"
    place.mkdir(parents=True)
    job = Job(place, ("serve", NAME), 1, 1.0, "")
    monkeypatch.setattr(trying, "server_of", lambda *_: (job, trying.Server("http://x", "t")))
    monkeypatch.setattr(trying.Server, "models", lambda _: ["moods", "tiny"])

    def post(self, path: str, body: dict, *, stream: bool = False) -> Served:
        asked.append({"path": path, **body})
        if path.endswith("classify"):
            shares = {"positive": 0.25, "negative": 0.75}
            return Served({"label": "negative", "probabilities": shares})
        words = ["I am ", body["model"], " <b>"]
        events = [{"choices": [{"delta": {"content": word}}]} for word in words]
        return Served({}, [f"data: {json.dumps(e)}".encode() for e in events] + [b"data: [DONE]"])

    monkeypatch.setattr(trying.Server, "post", post)
    return asked


def ask(page: TestClient, side: str, round: str = "") -> Response:
    data = {"prompt": "Hello", "side": side, "round": round}
    return page.post(f"{HOME}ask/{NAME}", data=data)


def test_both_models_answer_the_same_prompt(shop_page, served):
    assert ask(shop_page, "tuned").text == "I am moods <b>"
    assert ask(shop_page, "base").text == "I am tiny <b>"
    assert ask(shop_page, "base").headers["content-type"].startswith("text/plain")
    assert {each["messages"][0]["content"] for each in served} == {"Hello"}
    page = shop_page.get(f"{HOME}try/{NAME}").text
    assert 'name="column:text"' in page


def test_an_answer_that_failed_ends_its_round(shop_page, served, shop, monkeypatch):
    def fails(*_: object, **__: object) -> Served:
        return Served({}, [b'data: {"error": {"message": "there is not enough memory"}}'])

    round = shop_page.post(f"{HOME}blind/{NAME}").json()["round"]
    ask(shop_page, "a", round)
    monkeypatch.setattr(trying.Server, "post", fails)
    assert ask(shop_page, "b", round).text == "there is not enough memory"
    vote = {"round": round, "better": "a", "prompt": "Hello"}
    refused = shop_page.post(f"{HOME}vote/{NAME}", data=vote)
    assert (refused.status_code, refused.text) == (409, trying._OVER)
    assert not (shop / ".instil/votes/runs%2Fmoods.jsonl").exists()


def test_a_blind_round_hides_whose_answer_it_is_until_the_choice(shop_page, served, shop):
    firsts = set()
    for n in range(12):
        round = shop_page.post(f"{HOME}blind/{NAME}").json()["round"]
        texts = [ask(shop_page, side, round).text for side in ("a", "b")]
        assert sorted(texts) == ["I am moods <b>", "I am tiny <b>"]
        firsts.add(texts[0])
        better = "a" if "moods" in texts[0] else "b"
        better = "same" if n == 0 else better
        data = {"round": round, "better": better, "prompt": "Hello"}
        shown = said(shop_page.post(f"{HOME}vote/{NAME}", data=data))
        again = shop_page.post(f"{HOME}vote/{NAME}", data=data)
        assert again.status_code == 409
    assert len(firsts) == 2  # the order is drawn
    assert "Of 11 blind choices the tuned model was preferred in 11" in shown
    assert "It is shown to be preferred" in shown
    assert ask(shop_page, "a", "unknown").status_code == 409
    votes = shop / ".instil/votes/runs%2Fmoods.jsonl"
    assert len(votes.read_text().splitlines()) == 12
    # A few choices show nothing, however often one looks; a damaged line is no vote.
    votes.write_text("".join(votes.read_text().splitlines(True)[1:6]) + '{"better": \n[]\n')
    text = said(shop_page.get(f"{HOME}try/{NAME}"))
    assert "Of 5 blind choices the tuned model was preferred in 5" in text
    assert "No preference is shown" in text


def test_a_row_is_labelled_by_the_runs_own_template(shop_page, served):
    answer = said(shop_page.post(f"{HOME}classify/{NAME}", data={"column:text": "It is bad"}))
    assert served[-1]["row"] == {"text": "It is bad"}
    assert re.search(r"negative\s+75.0.%\s*positive\s+25.0.%", answer)


def test_a_row_is_asked_for_the_columns_that_its_fields_are_computed_from(
    shop_page, served, shop, monkeypatch
):
    path = shop / "moods.task.yaml"
    path.write_text(path.read_text() + "fields: {thing: text, text: thing ~ review}\n")

    def asked() -> list[str]:
        return re.findall('name="column:([^"]*)"', shop_page.get(f"{HOME}try/{NAME}").text)

    assert asked() == ["text"], "the task as the run asked it, whatever became of its file"
    # A run from before `tasks.json` has its file alone.
    monkeypatch.setattr(trying, "load_tasks", lambda folder: {})
    assert asked() == ["review", "text"]


def test_a_server_that_is_gone_is_told(shop_page, served, monkeypatch):
    def gone(*_: object, **__: object) -> None:
        raise requests.ConnectionError

    monkeypatch.setattr(trying.Server, "post", gone)
    assert "does not answer" in ask(shop_page, "tuned").text
    assert "network" in said(shop_page.post(f"{HOME}classify/{NAME}", data={"column:text": "x"}))


def test_nothing_is_asked_before_the_models_are_loaded(shop_page, shop):
    assert "Load the models" in shop_page.get(f"{HOME}try/{NAME}").text
    assert ask(shop_page, "tuned").status_code == 409
    state = shop_page.get(f"{HOME}try-state/{NAME}").json()
    assert state == {"ready": False, "running": False}


# --- ship ----------------------------------------------------------------------------------------


def test_an_export_is_begun_and_verified_as_a_command(shop_page, shop):
    page = said(shop_page.get(f"{HOME}ship/{NAME}"))
    assert "instil export runs/moods models/moods" in page
    form = {"format": "hf", "quantize": "f16", "out": "models/mine"}
    answer = shop_page.post(f"{HOME}export/{NAME}", data=form, follow_redirects=False)
    (job,) = jobs(shop)
    assert answer.headers["location"] == f"{HOME}job/{job.id}"
    assert job.line == "instil export runs/moods models/mine --format hf"
    until = time.monotonic() + 100
    while job.running:
        assert time.monotonic() < until, job.output
        time.sleep(0.1)
    try:
        assert job.code == 0, job.output
        assert "verified: equal" in job.output
        page = said(shop_page.get(f"{HOME}ship/{NAME}"))
        assert "verified: equal" in page or "answers the same" in page
        assert "answers the same" in said(shop_page.get(f"{HOME}job/{job.id}"))
        assert (shop / "models/mine/certificate.json").is_file()
    finally:
        shutil.rmtree(shop / "models", ignore_errors=True)


@pytest.mark.parametrize(
    "out", ["", "../x", "/tmp/x", "a/../../x", ".instil/x", "-x", "a;rm", "a\nb", "--help"]
)
def test_an_export_goes_into_the_folder_alone(shop_page, shop, out):
    form = {"format": "hf", "quantize": "f16", "out": out}
    assert shop_page.post(f"{HOME}export/{NAME}", data=form).status_code == 400
    assert not jobs(shop)


def test_an_unknown_format_is_refused(shop_page, shop):
    form = {"format": "hf --merge", "quantize": "f16", "out": "models/x"}
    assert shop_page.post(f"{HOME}export/{NAME}", data=form).status_code == 400
    assert shop_page.post(f"{HOME}verify/{NAME}", data={"target": "../x"}).status_code == 404
    assert not jobs(shop)


def test_ten_thousand_rows_take_no_longer_than_a_look(shop_page, shop):
    """A page is paged on the server: the second look at it takes well under its 200 ms."""
    folder = shop / "runs" / "large"
    shutil.copytree(shop / NAME, folder)
    scores = folder / "scores" / "test-moods.jsonl"
    lines = scores.read_text().splitlines()
    with scores.open("w") as file:
        for n in range(10_000 // 40):
            for line in lines:
                told = json.loads(line)
                file.write(json.dumps({**told, "row": f"{told['row']}-{n}"}) + "\n")
    rows = Path(shop / "large.csv")
    rows.write_text(
        "text,label\n" + "".join(f"A text of some words {n},{n % 3}\n" for n in range(10_000))
    )
    try:
        for path in ("answers/runs/large?outcome=wrong", "data/large.csv?from=9000"):
            assert shop_page.get(HOME + path).status_code == 200
            began = time.perf_counter()
            shop_page.get(HOME + path)
            assert time.perf_counter() - began < 1, path  # loosely: machines are busy
    finally:
        shutil.rmtree(folder)
