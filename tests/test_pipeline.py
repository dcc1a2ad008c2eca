"""The whole story on a tiny model: run, stop, resume, load without instil, predict, export."""

import csv
import html
import itertools
import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch

import instil
from instil.compare import forgetting
from instil.config.recipe import Recipe, load_recipe
from instil.data.registry import load_rows
from instil.encode import processes
from instil.encode.shard import Encoder
from instil.errors import DataError, RunError
from instil.pipeline import compare_runs, rebuild_report
from instil.ship.chat import chat
from instil.ship.export import export
from instil.ship.formats import Format
from instil.ship.predict import predict_file, predict_rows, predict_text
from instil.stages import ledger
from instil.stages.context import prepare_use
from instil.stages.runfiles import (
    load_manifest,
    load_probabilities,
    load_scores,
    load_steps,
    load_summary,
    require_whole,
)
from instil.tasks.task import load_task
from moods import lay_out, make_recipe, run, signalled_at, write_rows

BRIEF = ("train.num_train_epochs=2", "baselines.shots=[0]")
"""For runs that need not learn."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return lay_out(tmp_path)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """One finished run, looked at by several tests."""
    folder = lay_out(tmp_path_factory.mktemp("done"))
    write_rows(folder / "moods.csv", rows=200)  # what the guard reads is not trained on
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forgetting, "TEXT_FROM", str(folder / "echo.yaml"))
        return run(make_recipe(folder, tiny_folder, "dtype=float32"), folder / "run")


def test_a_run_from_rows_to_report(done: Path):
    summary, manifest = load_summary(done), load_manifest(done)
    (task,) = summary.tasks

    names = [arm.name for arm in task.arms]
    assert names == ["tuned", "prompting", "zero_shot", "tfidf", "probe"]
    assert {c.a for c in task.comparisons} == {"prompting", "zero_shot", "tfidf", "probe"}
    assert all(c.b == "tuned" and c.n == task.rows["test"] for c in task.comparisons)
    rungs = {(r.template, r.shots, r.scoring) for r in task.ladder}
    rules = ("raw", "normalised", "calibrated")
    assert rungs == {(t, s, r) for t in ("ask", "words") for s in (0, 2) for r in rules}
    assert sum(r.best for r in task.ladder) == 1
    assert max(r.summary.mean for r in task.ladder) == next(
        r.summary.mean for r in task.ladder if r.best
    )
    assert all((r.exemplar_tokens > 0) == (r.shots > 0) for r in task.ladder)

    tuned = task.arms[0]
    assert tuned.summaries["accuracy"].mean > 0.65, "the words of the mood are easily learned"
    assert tuned.costs.trainable_parameters > 0
    assert tuned.costs.bytes_on_disk > 0
    assert [g.task for g in summary.forgetting] == ["echo", "echo", "general text"]
    assert len(summary.verdict) == 4
    assert summary.verdict[1].startswith("Use ")
    words, probe = task.arms[3:]
    assert (words.costs.needs_model, probe.costs.needs_model) == (False, True)
    for arm in (words, probe):
        assert 500 < arm.costs.bytes_on_disk < 100_000, "arrays, and no language model"
        assert arm.costs.seconds > arm.costs.milliseconds / 1000 > 0
    assert {(c.a, c.b) for c in task.rivals} == {*itertools.combinations(names[1:], 2)}

    steps = load_steps(done)
    assert [s.step for s in steps] == list(range(1, len(steps) + 1))
    assert any(s.validation_score is not None for s in steps)
    looks = [step.looks[0] for step in steps if step.looks]
    assert [look.trend is None for look in looks] == [True] + [False] * (len(looks) - 1)
    assert looks[-1].above.low > 0
    assert summary.training.alarms == (), "it learns"
    assert task.learnt.comparison.low > 0
    assert summary.training.best_step in {s.step for s in steps if s.validation_loss is not None}
    assert len(manifest["test_opened"]) == 1
    assert manifest["test_opened"][0] == summary.test_opened
    for name in ("recipe.yaml", "split.json", "report.html", "model/README.md"):
        assert (done / name).stat().st_size > 100, name
    lines = load_scores(done, "test-moods")
    assert len(lines) == 5 * task.rows["test"]
    assert not list(done.rglob("*.tmp"))


def test_what_is_passed_on_says_nothing_of_the_machine_or_the_rows(done: Path, tiny_folder: Path):
    """No path of the user's, no name of theirs, and no row in full."""
    rows = csv.DictReader((done.parent / "moods.csv").read_text(encoding="utf-8").splitlines())
    texts = [row["text"] for row in rows]
    for name in ("manifest.json", "model/README.md", "model/adapter_config.json"):
        text = (done / name).read_text(encoding="utf-8")
        for told in (done.parent, tiny_folder, Path.home()):
            assert str(told) not in text, name
        assert not [row for row in texts if row in text], name
    for file in (done / "model").glob("*.json"):
        assert str(tiny_folder.parent) not in file.read_text(encoding="utf-8"), file.name


def test_every_stage_was_foretold_under_its_own_name(done: Path):
    summary, manifest = load_summary(done), load_manifest(done)
    before = {"rows", "model"}
    assert set(summary.forecast_seconds) | before == set(summary.stage_seconds)
    assert set(summary.processor_seconds) == set(summary.stage_seconds)
    assert summary.forecast_seconds == manifest["forecast_seconds"]
    assert all(each >= 0 for each in summary.forecast_seconds.values())
    report = (done / "report.html").read_text(encoding="utf-8")
    assert "Foretold" in report
    assert report.count("guard before") == 1


def test_no_row_of_a_group_straddles(done):
    (split,) = json.loads((done / "split.json").read_text())["splits"]
    group = {f"{n + 1}": n // 4 for n in range(200)}
    parts = [{group[row] for row in split[part]} for part in ("train", "validation", "test")]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_end(folder, tiny_folder, monkeypatch):
    hardly = "train.learning_rate=0.000001"
    recipe = make_recipe(folder, tiny_folder, "forgetting.tasks=none", hardly, *BRIEF)
    straight = run(recipe, folder / "straight")
    monkeypatch.setattr(processes, "SHARD", 8)  # as a large run: by processes, and kept
    monkeypatch.setattr(processes, "FEWEST", 8)
    with signalled_at(3), pytest.raises(KeyboardInterrupt):
        run(recipe, folder / "broken")
    assert not (folder / "broken" / "summary.json").exists()
    assert list((folder / "broken" / "encoded").glob("*.safetensors"))
    monkeypatch.delattr(Encoder, "shard")  # nothing is encoded a second time
    resumed = run(recipe, folder / "broken", resume=True)
    assert not (resumed / "encoded").exists()

    a, b = load_steps(straight), load_steps(resumed)
    assert [(s.step, s.loss) for s in a] == [(s.step, s.loss) for s in b]
    assert load_scores(straight, "test-moods") == load_scores(resumed, "test-moods")
    assert len(load_manifest(resumed)["test_opened"]) == 1
    ends, again = load_summary(straight), load_summary(resumed)
    assert ends.verdict[0].startswith("On moods, the tuned model"), "it learns nothing"
    (alarm,) = ends.training.alarms
    assert alarm.look.task == "moods"
    assert again.training.alarms == ends.training.alarms
    (same,) = compare_runs(straight, resumed)
    assert (same.difference, same.low, same.high) == (0, 0, 0) or same.low <= 0 <= same.high


def test_an_existing_directory_is_left_alone(folder, tiny_folder):
    (folder / "run").mkdir()
    (folder / "run" / "mine.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(RunError, match="exists"):
        run(make_recipe(folder, tiny_folder), folder / "run")
    assert [p.name for p in (folder / "run").iterdir()] == ["mine.txt"]


def test_a_mistake_leaves_nothing_half_written(folder, tiny_folder):
    (folder / "moods.csv").write_text("id,review,text,mood,thing\n1,1,x,happy,y\n")
    with pytest.raises(DataError, match="happy"):
        run(make_recipe(folder, tiny_folder), folder / "run")
    assert not (folder / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_plain_transformers_and_peft_get_the_scored_predictions(folder, tiny_folder, method):
    """The model folder serves without instil: same template, same stop, same answers."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    changes = ["forgetting.tasks=none", f"method={method}", "dtype=float32", *BRIEF]
    recipe = make_recipe(folder, tiny_folder, *changes, task="echo.yaml")
    done = run(recipe, folder / "run")
    where = done / "model"
    tokenizer = AutoTokenizer.from_pretrained(where)
    if method == "lora":
        assert (where / "adapter_model.safetensors").exists()
        model = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
        with warnings.catch_warnings():  # PEFT asks transformers for a name that will be renamed
            warnings.simplefilter("ignore", FutureWarning)
            model = PeftModel.from_pretrained(model, where)
    else:
        model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32)
    table = (folder / "moods.csv").read_text(encoding="utf-8").splitlines()
    rows = {r["id"]: r for r in csv.DictReader(table)}
    lines = [s for s in load_scores(done, "test-echo") if s["arm"] == "tuned"]
    assert len(lines) > 20
    for line in lines:
        row = rows[f"r{int(line['row']) - 1}"]
        prompt = {
            "which": f"Which thing?\n{row['text']}",
            "thing": f"{row['text']}\nThe thing is:",
        }[line["template"]]
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        out = model.generate(**inputs, max_new_tokens=6, do_sample=False)
        new = out[0, inputs["input_ids"].shape[1] :]
        assert tokenizer.decode(new, skip_special_tokens=True).strip() == line["prediction"]


@pytest.mark.slow
def test_a_free_text_task_is_generated_and_scored(folder, tiny_folder):
    recipe = make_recipe(folder, tiny_folder, "forgetting.tasks=none", task="echo.yaml")
    summary = load_summary(run(recipe, folder / "run"))
    (task,) = summary.tasks
    assert [arm.name for arm in task.arms] == ["tuned", "prompting", "zero_shot"]
    assert {"exact_match", "token_f1", "rougeL", "chrf"} <= set(task.arms[0].summaries)
    assert task.arms[0].stopped_share is not None
    assert {r.scoring for r in task.ladder} == {"generated"}


@pytest.mark.slow
def test_two_tasks_in_one_run(folder, tiny_folder):
    path = folder / "two.yaml"
    make_recipe(folder, tiny_folder)
    text = (
        (folder / "recipe.yaml")
        .read_text()
        .replace("[{use: ./moods.yaml}]", "[{use: ./moods.yaml}, {use: ./echo.yaml, train: 40}]")
    )
    path.write_text(text, encoding="utf-8")
    recipe = load_recipe(path, overrides=["forgetting.tasks=none", *BRIEF])
    summary = load_summary(run(recipe, folder / "run"))
    assert [t.task for t in summary.tasks] == ["moods", "echo"]
    assert all(t.arms[0].name == "tuned" for t in summary.tasks)


def test_predict_chat_and_export(done, tmp_path):
    rows = tmp_path / "new.csv"
    rows.write_text("text\nphone 1: it is good and great\nbook 2: it is bad and sad\n")
    out = predict_file(done, rows=rows, out=tmp_path / "out.jsonl")
    assert (out.rows, out.empty) == (2, ())
    lines = [json.loads(line) for line in out.path.read_text().splitlines()]
    assert [line["text"] for line in lines] == [r for r in rows.read_text().splitlines()[1:]]
    assert all(sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-3) for line in lines)
    assert all(line["prediction"] in line["probabilities"] for line in lines)
    rows.write_text('text,note\n,"a, b"\nbook 2: it is bad,=1+1\n-2.5,+3 %\n')
    table = predict_file(done, rows=rows, out=tmp_path / "out.csv")
    assert (table.empty, table.formulas) == ((f"{rows}:2",), 1)
    with table.path.open(newline="") as file:
        first, second, _ = csv.DictReader(file)
    assert (first["note"], second["note"]) == ("a, b", "=1+1")
    assert first["prediction"] in json.loads(first["probabilities"])
    rows.write_text("wrong\nx\n")
    with pytest.raises(DataError, match="no column 'text'"):
        predict_file(done, rows=rows, out=tmp_path / "no.jsonl")
    assert not (tmp_path / "no.jsonl").exists()

    label = predict_text(done, "phone 1: it is good and great", template="ask")
    assert label.text in ("positive", "negative")
    assert len(label.choice_scores) == 2
    answer = predict_text(done, "Is it positive or negative?\nphone: it is good", raw=True)
    talk = chat(done)
    assert "".join(talk.reply("Is it positive or negative?\nphone: it is good")).strip() == (
        answer.text
    )
    assert [m.role for m in talk.messages] == ["user", "assistant"]

    merged = export(done, out=tmp_path / "merged", form=Format.MERGED).path
    from transformers import AutoModelForCausalLM, AutoTokenizer

    plain = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    ids = torch.tensor([talk.loaded.chat.prompt(talk.messages[:1])])
    torch.testing.assert_close(
        plain(input_ids=ids).logits, talk.loaded.model(input_ids=ids).logits, atol=1e-4, rtol=1e-4
    )
    assert AutoTokenizer.from_pretrained(merged).chat_template
    copied = export(done, out=tmp_path / "adapter").path
    assert (copied / "adapter_config.json").exists()


def test_probabilities_are_fitted_on_validation_and_used_by_predict(done: Path, tmp_path: Path):
    (task,), (fitted,) = load_summary(done).tasks, load_probabilities(done).values()
    assert len(fitted.sure) == len(fitted.right) == task.rows["validation"]
    assert list(fitted.sure) == sorted(fitted.sure, reverse=True)
    found = task.probabilities
    assert found.temperature == fitted.temperature
    as_it_is, warmed, *others = found.calibrations
    assert (as_it_is.arm, warmed.arm) == ("tuned", "tuned")
    assert (as_it_is.temperature, warmed.temperature) == (1.0, fitted.temperature)
    assert as_it_is.right == warmed.right  # a temperature changes no answer
    assert {each.arm for each in others} == {arm.name for arm in task.arms} - {"tuned"}
    assert fitted.template == task.arm("tuned").template
    assert found.brier_change.mean == pytest.approx(warmed.brier.mean - as_it_is.brier.mean)

    # predict tells the test rows' probabilities as softmax of the scores over the temperature.
    lines = [s for s in load_scores(done, "test-moods") if s["arm"] == "tuned"]
    rows = load_rows(load_task(str(done.parent / "moods.yaml"))).rows
    known = {row.id: str(row.fields["text"]) for row in rows}
    texts = [known[line["row"]] for line in lines]
    for line, answer in zip(lines, instil.load(done).predict(texts), strict=True):
        scores = torch.tensor(line["choice_scores"], dtype=torch.float64)
        shares = (scores / fitted.temperature).softmax(0).tolist()
        assert list(answer["probabilities"].values()) == pytest.approx(shares, abs=2e-3)
        assert answer["prediction"] == line["prediction"]


def test_a_run_without_probabilities_is_read_and_resumed(done: Path, tmp_path: Path):
    """As one that an earlier version wrote, or that was stopped while they were written."""
    old = tmp_path / "old"
    shutil.copytree(done, old)
    ledger.forget(old, ["probabilities"])
    assert load_probabilities(old) == {}  # what lies there was entered by no stage
    require_whole(old)
    text = "phone 1: it is good and great"
    plain, now = predict_rows(old, [text]), predict_rows(done, [text])
    assert plain[0]["prediction"] == now[0]["prediction"]
    with pytest.raises(RunError, match="earlier version"):
        predict_rows(old, [text], max_error=0.05)
    kept = json.loads((old / "summary.json").read_text())
    for task in kept["tasks"]:
        del task["probabilities"]
    (old / "summary.json").write_text(json.dumps(kept))
    assert load_summary(old).tasks[0].probabilities is None


def test_a_run_from_python(done: Path) -> None:
    made = instil.load(done)
    assert isinstance(made, instil.Run)
    assert made.verdict == load_summary(done).verdict
    assert made.report.is_file()
    texts = ["phone 1: it is good and great", "book 2: it is bad and sad"]
    answers = made.predict(texts)
    assert answers == made.predict([{"text": text} for text in texts])
    assert all(answer["prediction"] in answer["probabilities"] for answer in answers)
    assert made.predict(texts[0]) == answers[:1]
    (same,) = made.compare(made)
    assert (same.difference, same.n) == (0, load_summary(done).tasks[0].rows["test"])
    shown = made._repr_html_()
    assert all(html.escape(arm.label) in shown for arm in made.results.tasks[0].arms)
    with pytest.raises(DataError, match="no column 'text'"):
        made.predict([{"wrong": "x"}])
    with pytest.raises(RunError):
        instil.load(done / "state")


def test_a_recipe_that_was_run_is_not_run_again(done: Path, monkeypatch) -> None:
    # General text would have to be fetched; `tests/test_whole.py` has rows that have changed.
    monkeypatch.setattr("instil.stages.context.changed_inputs", lambda recipe, folder: [])
    recipe = done.parent / "recipe.yaml"
    before = (done / "summary.json").stat().st_mtime_ns
    made = instil.run(recipe, changes=["dtype=float32"], folder=done, again=True)
    assert made == instil.load(done)
    assert (done / "summary.json").stat().st_mtime_ns == before
    assert instil.check(recipe, changes=["forgetting.tasks=none"]).tasks[0].task == "moods"


def test_the_report_is_rebuilt_from_the_figures(done):
    before = (done / "report.html").read_text()
    (done / "report.html").unlink()
    assert rebuild_report(done).read_text() == before
    assert "http://" not in before.replace("http://www.w3.org", "")


@pytest.mark.slow
def test_several_tasks_few_shot_prompts_and_held_out_phrasings(
    folder: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "TEXT_FROM", str(folder / "echo.yaml"))
    recipe = make_recipe(folder, tiny_folder, "dtype=float32")
    path = folder / "recipe.yaml"
    text = path.read_text(encoding="utf-8").replace(
        "tasks: [{use: ./moods.yaml}]",
        "tasks:\n  - {use: ./moods.yaml, held_out_templates: [words]}\n"
        "  - {use: ./echo.yaml, train: 40}\n"
        "mix: {examples: 60, temperature: 2, few_shot_share: 0.25, few_shot: 1}",
    )
    path.write_text(
        text.replace("num_train_epochs: 6", "num_train_epochs: 1").replace(
            "tasks: [./echo.yaml], rows: 12", "tasks: none"
        ),
        encoding="utf-8",
    )
    recipe = load_recipe(path, overrides=["dtype=float32", "baselines.shots=[0]"])
    done = run(recipe, folder / "run")

    summary = load_summary(done)
    moods, echo = summary.tasks
    assert [(line.task, line.few_shot > 0) for line in summary.mix] == [
        ("moods", True),
        ("echo", True),
    ]
    assert sum(line.examples for line in summary.mix) == 60
    assert moods.removed["judged in another task"] > 0

    assert {(s.template, s.held_out) for s in moods.templates} == {("ask", False), ("words", True)}
    assert [p.arm for p in moods.phrasings] == ["tuned", "zero_shot"]
    assert all(p.unseen.scored == moods.rows["test"] for p in moods.phrasings)
    by_template = {s.template: s.summary for s in moods.templates if s.arm == "tuned"}
    assert moods.phrasings[0].unseen.mean == by_template["words"].mean
    assert moods.phrasings[0].seen.mean == by_template["ask"].mean
    assert echo.phrasings == ()
    assert "words" not in {template for template, _ in trained_through(recipe)}

    assert [(a.metric, a.tasks) for a in summary.averages] == [("", ("moods", "echo"))]
    page = (done / "report.html").read_text(encoding="utf-8")
    for text in ("Phrasings that training never saw", "All tasks, and on average", "The mix"):
        assert text in page


def trained_through(recipe: Recipe) -> set[tuple[str, str]]:
    data = [prepare_use(recipe, use) for use in recipe.tasks]
    return {(t.id, d.task.id) for d in data for t in d.templates}
