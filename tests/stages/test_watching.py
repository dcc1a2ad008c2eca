"""The alarm: a tiny model is really trained, on shuffled labels and on sound ones."""

import csv
import random
from dataclasses import replace
from pathlib import Path

import pytest

from instil.report.sections.learning import alarm_text
from instil.stages import training
from instil.stages.runfiles import load_steps
from instil.stages.watching import Watch, answer_share, answer_words
from instil.types import Estimate, LossOver, Step, TaskLook
from moods import lay_out, make_recipe, ready, write_rows


def shuffle_labels(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    moods = [row["mood"] for row in rows]
    random.Random(0).shuffle(moods)
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, list(rows[0]))
        out.writeheader()
        out.writerows({**row, "mood": mood} for row, mood in zip(rows, moods, strict=True))


def train(folder: Path, model: Path, *changes: str):
    said: list[str] = []
    recipe = make_recipe(folder, model, "dtype=float32", "forgetting.text=false", *changes)
    context, encoded = ready(recipe, folder / "run")
    context.say = said.append
    trained = training.train(context, encoded)
    return trained.summary, load_steps(folder / "run"), said


@pytest.mark.slow
def test_shuffled_labels_sound_the_alarm_half_way(tmp_path, tiny_folder):
    folder = lay_out(tmp_path)
    shuffle_labels(folder / "moods.csv")
    summary, steps, said = train(
        folder, tiny_folder, "train.num_train_epochs=6", "train.eval_steps=auto",
        "train.learning_rate=0.01", "train.tokens_per_batch=256", "validation=40",
    )  # fmt: skip
    (alarm,) = summary.alarms
    assert alarm.of_steps <= 2 * alarm.step < 2 * alarm.of_steps, "half way, or the next look"
    assert alarm.look.task == "moods"
    assert not alarm.look.nats, "the figures of each row are in steps.jsonl"
    looked = next(step for step in steps if step.step == alarm.step)
    assert len(looked.looks[0].nats) == looked.looks[0].rows == 40
    (text,) = [
        text for text in said if "nothing is shown to be learnt" in text or "same answer" in text
    ]
    assert text.startswith(f"moods: after {alarm.step} of {alarm.of_steps} steps")
    assert "TF-IDF" in text, "whether the labels can be learnt at all is looked into"
    assert "instil preview" in text
    assert "train.learning_rate" in text
    note = alarm_text(*summary.alarms)
    assert note == text


NOTHING = TaskLook(
    "moods", 24, answers=2, wanted=2, answer="positive", nats=(0.0,) * 24, right=0.5,
    always="positive", constant=0.5, above=Estimate(0, -0.1, 0.1), apart=Estimate(0.5, 0.4, 0.6),
    level=Estimate(0, -0.05, 0.05),
)  # fmt: skip
LEARNS = replace(NOTHING, above=Estimate(0.3, 0.2, 0.4), apart=Estimate(0.8, 0.7, 0.9))


def followed(watch: Watch, looks: dict[int, TaskLook], said: list[str]) -> list[list[str]]:
    told = []
    for number in range(1, len(watch.encoded.batches) + 1):
        seen = (looks[number],) if number in looks else ()
        step = Step(number, 1.0, 2.0, 0.02, 1.0, 9, 90, 1.0, 1, looks=seen)
        before = len(said)
        watch.follow(step)
        if number in looks:
            told.append(said[before:])
    return told


def watch_of(folder: Path, model: Path, *changes: str, said: list[str] | None = None) -> Watch:
    recipe = make_recipe(
        folder, model, "train.num_train_epochs=1", "forgetting.text=false", *changes
    )
    context, encoded = ready(recipe, folder / "run")
    context.say = ([] if said is None else said).append
    asked = [training.validation_examples(d) for d in context.data]
    return Watch(context, asked, encoded, rate=0.02, rule=0.02)


def test_the_alarm_sounds_once_and_what_comes_after_is_said(tmp_path, tiny_folder):
    said: list[str] = []
    changes = ("train.tokens_per_batch=128", "validation=48")
    watch = watch_of(lay_out(tmp_path), tiny_folder, *changes, said=said)
    half = len(watch.encoded.batches) // 2 + 1
    looks = {
        1: NOTHING, half: NOTHING, half + 1: NOTHING,
        half + 2: LEARNS, half + 3: LEARNS, half + 4: LEARNS,
    }  # fmt: skip
    first, alarm, after, one, over, last = followed(watch, looks, said)
    assert [len(each) for each in (first, alarm, after, one, over, last)] == [0, 1, 0, 0, 1, 0]
    assert "The labels can be learnt: TF-IDF" in alarm[0], "the words of these rows are plain"
    assert over == [f"moods: something is shown to be learnt after {half + 3} steps"]
    assert watch.alarms["moods"].over == half + 3


def test_an_early_look_says_what_is_wrong_with_the_rows_alone(tmp_path, tiny_folder):
    said: list[str] = []
    folder = lay_out(tmp_path)
    lines = (folder / "moods.csv").read_text(encoding="utf-8").splitlines()
    again = [line.replace("positive", "NEGATIVE") for line in lines[1::2]]  # every second row
    contradicting = [line.replace("NEGATIVE", "negative") for line in again]
    (folder / "moods.csv").write_text("\n".join([*lines, *contradicting]) + "\n", encoding="utf-8")
    watch = watch_of(folder, tiny_folder, said=said)
    notice, silent = followed(watch, {1: NOTHING, 2: NOTHING}, said)
    assert len(notice) == 1
    assert "nothing is shown to be learnt yet; training goes on" in notice[0]
    assert "another label" in notice[0]
    assert not silent, "once is enough"


def test_answers_are_a_small_part_of_what_is_trained_on(tmp_path, tiny_folder):
    watch = watch_of(
        lay_out(tmp_path), tiny_folder, "tasks.0.templates=all", "train.loss_over=tokens"
    )
    (data,) = watch.context.data
    assert answer_words(data) == ("positive", "negative", "good", "bad")
    share = answer_share(LossOver.TOKENS, watch.encoded, data)
    assert 0 < share < 0.5, "write a review: its tokens are many more"
    assert answer_share(LossOver.EXAMPLES, watch.encoded, data) is None


@pytest.mark.slow
def test_a_slow_learner_does_not(tmp_path, tiny_folder):
    folder = lay_out(tmp_path)
    write_rows(folder / "moods.csv", rows=320)
    changes = ("validation=60", "train.eval_steps=auto", "train.learning_rate=0.001")
    summary, steps, _ = train(folder, tiny_folder, *changes)
    assert summary.alarms == ()
    looks = [step.looks[0] for step in steps if step.looks]
    assert looks[0].above.low <= 0 < looks[-1].above.low
