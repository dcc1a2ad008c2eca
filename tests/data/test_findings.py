from __future__ import annotations

from dataclasses import replace

import pytest

from instil.data.audit import EXACT, read_text, repeats_of, repeats_within
from instil.data.findings import Finding, audit_rows
from instil.data.prepare import TaskData
from instil.tasks.template import evaluate
from instil.types import Part, Removed, Row, SourceSpec, Split, Task, Template

TASK = Task(
    id="reviews",
    kind="sentiment",
    cluster="sentiment",
    description="",
    licence="MIT",
    source=SourceSpec("reviews.csv"),
    text="text",
    target="label",
    templates=(Template("plain", "Good? {{ text }}", "{{ label }}", choices=("bad", "good")),),
    choices=("bad", "good"),
)
WORDS = "the battery of this camera lasts for a whole day of walking through the old town with it"


def rows(part: str, *texts: str, **fields: object) -> tuple[Row, ...]:
    return tuple(
        Row(
            "reviews",
            f"{part}{n}",
            f"{part}{n}",
            {"text": text, "label": ("bad", "good")[n % 2], **fields},
            place=f"reviews.csv:{n}",
        )
        for n, text in enumerate(texts)
    )


def make(
    train: tuple[Row, ...] = (),
    validation: tuple[Row, ...] = (),
    test: tuple[Row, ...] = (),
    *,
    task: Task = TASK,
    **split: object,
) -> TaskData:
    parts = (train, validation, test)
    ids = [tuple(row.id for row in part) for part in parts]
    made = Split(task.id, 0, *ids, **split)
    return TaskData(task, made, *parts, task.templates)


def distinct(n: int, start: int = 0) -> list[str]:
    return [f"unit {k} is number {k} of its kind {k}" for k in range(start, start + n)]


def found(data: TaskData, words: str) -> Finding:
    matching = [finding for finding in audit_rows(data) if words in finding.what]
    assert len(matching) == 1, [finding.what for finding in audit_rows(data)]
    return matching[0]


def test_clean_rows_have_nothing_to_tell():
    data = make(
        rows("a", *distinct(20)), rows("b", *distinct(6, 100)), rows("c", *distinct(6, 200))
    )
    assert audit_rows(data) == ()


def test_repeats_within_a_part():
    texts = [*distinct(10), "Unit 3 is number 3, of its kind 3!", WORDS, f"{WORDS} all"]
    data = make(rows("a", *texts))
    exact = found(data, "(exact duplicates)")
    assert exact.what == "1 row of train repeats another one of it (exact duplicates)"
    assert exact.examples[0].startswith("row a10 and row a3: unit 3")
    near = found(data, "(near duplicates)")
    assert near.count == 1
    assert "row a12 and row a11" in near.examples[0]


def test_repeats_across_parts_are_told_with_what_they_repeat():
    removed = (
        Removed("x1", Part.TRAIN, "exact duplicate", "c0", 1.0),
        Removed("x2", Part.TRAIN, "near duplicate", "c1", 0.91),
    )
    data = make(rows("a", *distinct(5)), test=rows("c", *distinct(5, 50)), removed=removed)
    assert found(data, "exact duplicates of what").examples == (
        "row x1 and row c0: unit 50 is number 50 of its kind 50",
    )
    assert "(alike by 0.91)" in found(data, "near duplicates of what").examples[0]


def test_one_text_with_two_labels():
    data = make(rows("a", *distinct(4), "It works.", "it works"))
    conflict = found(data, "same text and different labels")
    assert conflict.what.startswith("1 pair of rows has")
    assert conflict.examples == ("row a4 is bad, row a5 is good: it works",)


def test_options_of_the_rows_own_do_not_contradict():
    template = Template("own", "{{ text }}", "{{ a }}", choices=("{{ a }}", "{{ b }}"))
    task = replace(TASK, templates=(*TASK.templates, template))
    data = make(rows("a", *distinct(4), "It works.", "it works"))
    told, own = audit_rows(data), audit_rows(replace(data, task=task))
    assert [finding.what for finding in told if finding not in own] == [
        "1 pair of rows has the same text and different labels"
    ]


def test_rare_and_lopsided_labels():
    train = tuple(
        replace(row, fields={**row.fields, "label": "good" if n else "bad"})
        for n, row in enumerate(rows("a", *distinct(30)))
    )
    data = make(train)
    assert found(data, "rare in train: bad").examples == ("bad: 1 row of 30",)
    assert found(data, "97 % of the training rows are 'good'").count == 29


@pytest.mark.parametrize(
    ("other", "steps", "difference"),
    [
        ("Good", "lower", "upper and lower case alone"),
        ("go\u200bod", "tidy", "invisible characters alone"),
        ("\uff27ood", "tidy | lower", "invisible characters, or in upper and lower case alone"),
    ],
)
def test_labels_that_are_told_apart_by_what_a_reader_hardly_sees(other, steps, difference):
    plain = rows("train", *distinct(20))
    odd = tuple(replace(row, fields={**row.fields, "label": other}) for row in plain[1:4:2])
    task = replace(TASK, choices=("bad", "good", other))
    finding = found(make((plain[0], *odd, *plain[4:]), task=task), "classes of their own")
    assert difference in finding.what
    assert finding.examples == (f"'good': 8 rows, {other!a}: 2 rows",)
    assert f"`label: label | {steps}`" in finding.fix
    assert evaluate(f"label | {steps}", {"label": other}, where="") == "good"


def test_a_field_that_where_wants_empty_is_no_finding():
    data = make(rows("a", *distinct(2), plural="", note=""))
    assert found(data, "always empty").what == "always empty: plural, note"
    data = replace(data, task=replace(TASK, where="not plural"))
    assert found(data, "always empty").what == "always empty: note"


def test_empty_and_constant_fields():
    train = rows("a", *distinct(8), note="", lang="en", extra=None)
    train = (replace(train[0], fields={**train[0].fields, "extra": "x"}), *train[1:])
    data = make(train)
    assert found(data, "always empty").what == "always empty: note"
    assert found(data, "always the same").examples == ("lang: en",)
    assert found(data, "empty in most rows").examples == ("extra: filled in 1 row of 8",)


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("a cafÃ© of note", "damaged encoding", "mend_encoding"),
        ("a caf\ufffd of note", "characters that were lost", "bring the text anew"),
        ("R&amp;D of note", "HTML entities", "clean_text: text | unescape"),
        ("a note<br />of it", "HTML tags", "clean_text: text | strip_tags"),
        ("write to ada@example.org", "an e-mail address", "take it out"),
        ("call (555) 123-4567", "a telephone number", "take it out"),
        ("pay 4111 1111 1111 1111", "a payment card", "take it out"),
    ],
)
def test_what_is_wrong_with_texts(text, what, fix):
    data = make(rows("a", *distinct(4), text))
    finding = found(data, what)
    assert finding.count == 1
    assert finding.what.startswith("1 row with ")
    assert finding.examples[0].startswith("reviews.csv:4: ")
    assert fix in finding.fix


def test_only_what_the_model_reads_is_looked_at():
    assert audit_rows(make(rows("a", *distinct(2), mail="ada@example.org")))[1:] == ()
    template = Template("with", "{{ text }} {{ mail }}", "{{ label }}", choices=("bad", "good"))
    task = replace(TASK, templates=(template,))
    data = make(rows("a", *distinct(2), mail="ada@example.org"), task=task)
    assert found(data, "an e-mail address in 'mail'").count == 2


def test_skipped_rows_are_told():
    data = make(rows("a", *distinct(2)), bad_rows=tuple(f"r.csv:{n}: bad" for n in range(9)))
    finding = found(data, "could not be used")
    assert finding.count == 9
    assert finding.examples[0] == "r.csv:0: bad"


def test_conversations_repeat_only_with_all_their_turns():
    task = replace(TASK, history="history", choices=())
    turns = [[{"role": "user", "content": text}] for text in distinct(3)]
    talks = [
        replace(row, fields={**row.fields, "history": turn})
        for row, turn in zip(rows("a", "yes", "yes", "yes"), [*turns[:2], turns[0]], strict=True)
    ]
    assert read_text(task, talks[0].fields) == f"{distinct(1)[0]}\nyes"
    (repeat,) = repeats_within(talks, task=task)
    assert (repeat.row, repeat.of) == ("a2", "a0")


def test_repeats_of_other_texts():
    (repeat,) = repeats_of(rows("a", *distinct(3), WORDS), {"guard/7": f"{WORDS} all"}, task=TASK)
    assert (repeat.row, repeat.of, repeat.why) == ("a3", "guard/7", "near duplicate")


def test_training_rows_of_the_guard_are_taken_out(monkeypatch):
    from instil.compare import forgetting
    from instil.config.recipe import Recipe
    from instil.errors import DataError
    from instil.stages import context as stages

    recipe = Recipe.model_validate(
        {"model": "m", "tasks": [{"use": "x"}], "forgetting": {"tasks": ["quartz"]}}
    )
    quartz = replace(TASK, id="quartz")
    asked = [
        (quartz, Row("quartz", "7", "7", {"text": f"{WORDS} all"}, place="q:7")),
        (quartz, Row("quartz", "8", "8", {"text": "another field"}, place="reviews.csv:1")),
    ]
    monkeypatch.setattr(forgetting, "guard_rows", lambda names, **_: asked)
    data = make(rows("a", *distinct(3), WORDS), test=rows("c", WORDS))
    (apart,) = stages.apart_from_guard(recipe, [data])
    assert apart.split.train == ("a0", "a2"), "a1 is a record that the guard asks about"
    assert [row.id for row in apart.train] == ["a0", "a2"]
    assert [row.id for row in apart.test] == ["c0"], "nothing is ever taken from test"
    finding = found(apart, "near duplicates of a row of the guard")
    assert finding.what.startswith("1 row taken out of train")
    assert finding.examples[0].startswith("row a3 and row quartz/7 (alike by 0.")
    with pytest.raises(DataError, match="guard task"):
        stages.apart_from_guard(recipe, [make(rows("a", WORDS))])


def test_training_rows_of_an_article_read_as_general_text_are_taken_out(tmp_path, monkeypatch):
    """Whatever the task asks of it: here its words, where the guard reads the text."""
    from instil.compare import forgetting
    from instil.config.recipe import Recipe
    from instil.stages.context import apart_from_guard, prepare_use
    from moods import lay_out

    lay_out(tmp_path)
    monkeypatch.setattr(forgetting, "TEXT_FROM", str(tmp_path / "moods.yaml"))
    use = {"use": str(tmp_path / "echo.yaml")}
    sizes = {"validation": 20, "test": 20}
    taken = {}
    for text in (True, False):
        wanted = {"tasks": [str(tmp_path / "echo.yaml")], "rows": 10, "text": text}
        recipe = Recipe.model_validate(
            {"model": "m", "tasks": [use], **sizes, "forgetting": wanted}
        )
        (data,) = apart_from_guard(recipe, [prepare_use(recipe, recipe.tasks[0])])
        taken[text] = {row.place for row in data.train}
    read = forgetting.guard_rows([], rows=10, text=True, seed=0)
    assert taken[False] & {row.place for _, row in read}
    assert not taken[True] & {row.place for _, row in read}


def test_rows_alike_by_their_text_alone_point_to_what_else_prompts_read():
    removed = (Removed("a0", Part.TRAIN, EXACT, "c0", similarity=1.0),)
    data = make(rows("a", WORDS), test=rows("c", WORDS, material="wood"), removed=removed)
    assert found(data, "must stay unseen").fix == ""
    ask = Template("ask", "{{ text }} ({{ material }})", "{{ label }}")
    more = found(replace(data, task=replace(TASK, templates=(ask,))), "must stay unseen")
    assert "compared by 'text' alone" in more.fix
    assert "prompts read of material" in more.fix


def test_a_free_answer_that_train_has_too():
    task = replace(TASK, choices=(), metric="rougeL")
    clean = "the cat sat on the mat and looked at me"
    noisy = ("the cta sat on teh mat", "a cat satt onn the matt")
    train = tuple(replace(r, fields={**r.fields, "label": clean}) for r in rows("a", noisy[0]))
    test = tuple(replace(r, fields={**r.fields, "label": clean}) for r in rows("b", noisy[1]))
    finding = found(make(train, (), test, task=task), "the right answer is in train")
    assert finding.count == 1
    assert "`group: label | lower`" in finding.fix
    copied = rows("a", clean)  # as a text, not as an answer
    assert found(make(copied, (), test, task=task), "the right answer is in train").count == 1
    short = make(rows("a", *distinct(4)), (), rows("b", *distinct(4, start=9)), task=task)
    assert not [f for f in audit_rows(short) if "in train" in f.what], "`good` is no long answer"


@pytest.mark.parametrize(("often", "others"), [(20, 40), (8, 0)])
def test_usual_answers_are_no_finding(often: int, others: int):
    """A phrase of many texts among others; a phrase or two that all rows have."""
    task = replace(TASK, choices=(), metric="rougeL")
    phrase = "I am sorry but I cannot help with that request"
    own = [f"the answer to question number {n} is another one" for n in range(others)]
    said = [*[phrase] * often, *own]
    train = tuple(
        replace(row, fields={**row.fields, "label": answer})
        for row, answer in zip(rows("a", *distinct(len(said))), said, strict=True)
    )
    test = tuple(
        replace(row, fields={**row.fields, "label": phrase})
        for row in rows("b", *distinct(10, start=len(said)))
    )
    assert not [f for f in audit_rows(make(train, (), test, task=task)) if "in train" in f.what]


def test_questions_on_one_passage_are_no_finding():
    asked = Template("ask", "{{ text }} {{ question }}", "{{ label }}")
    task = replace(TASK, choices=(), metric="token_f1", templates=(asked,))
    test = tuple(
        replace(r, fields={**r.fields, "question": f"what of {n}?"})
        for n, r in enumerate(rows("b", WORDS, WORDS))
    )
    assert not [f for f in audit_rows(make((), (), test, task=task)) if "several" in f.what]
    plain = replace(task, templates=TASK.templates)
    together = tuple(replace(row, group="one") for row in test)
    assert not [f for f in audit_rows(make((), (), together, task=plain)) if "several" in f.what]


def test_texts_with_several_free_answers():
    task = replace(TASK, choices=(), metric="rougeL")
    test = rows("b", WORDS, WORDS.upper(), "another text")
    finding = found(make((), (), test, task=task), "several answers")
    assert finding.count == 1
    assert "`references`" in finding.fix
    assert not [f for f in audit_rows(make((), (), test)) if "several answers" in f.what]
