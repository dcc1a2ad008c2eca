from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from instil.errors import TaskError
from instil.scoring.metrics import METRICS
from instil.tasks import task as task_module
from instil.tasks.task import (
    find_template,
    hub_library,
    library,
    load_task,
    parse_task,
)
from instil.types import Role

GOOD = """\
id: mugs
kind: sentiment
source: mugs.csv
text: review
target: label
choices: [good, bad]
templates:
  - id: plain
    prompt: |
      Good or bad?
      {{ review }}
  - id: worded
    prompt: "Happy? {{ review }}"
    choices: [yes, no]
  - id: back
    role: inverted
    prompt: Write a {{ label }} review.
    target: "{{ review }}"
"""


def problems(text: str) -> list[str]:
    with pytest.raises(TaskError) as caught:
        parse_task(text, where="mugs.yaml", folder=None)
    return [str(problem) for problem in caught.value.problems]


def changed(*pairs: tuple[str, str]) -> str:
    text = GOOD
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def test_docstring_examples() -> None:
    result = doctest.testmod(task_module)
    assert result.attempted == 2
    assert result.failed == 0


def test_a_file_becomes_a_task_with_defaults() -> None:
    task = parse_task(GOOD, where="mugs.yaml", folder=None)
    assert (task.id, task.cluster, task.metric) == ("mugs", "mugs", "accuracy")
    assert task.source.uri == "mugs.csv"
    plain, worded, back = task.templates
    assert plain.prompt == "Good or bad?\n{{ review }}"
    assert (plain.choices, plain.target) == (("good", "bad"), "{{ label }}")
    assert worded.choices == ("yes", "no")
    assert worded.target == '{{ choices[["good", "bad"].index(label | string)] }}'
    assert (back.role, back.choices) == (Role.INVERTED, ())


def test_a_target_with_spaces_in_its_name() -> None:
    task = parse_task(
        changed(
            ("target: label", "target: Final Label"), ("{{ label }}", '{{ row["Final Label"] }}')
        ),
        where="mugs.yaml",
        folder=None,
    )
    assert task.templates[0].target == '{{ row["Final Label"] }}'


def test_numbers_serve_as_choices() -> None:
    task = parse_task(changed(("[good, bad]", "[1, 2]")), where="mugs.yaml", folder=None)
    assert task.choices == ("1", "2")


def test_a_relative_source_starts_from_the_files_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "mugs.yaml").write_text(GOOD, encoding="utf-8")
    task = load_task("below/mugs.yaml")
    assert Path(task.source.uri) == tmp_path / "below" / "mugs.csv"
    assert load_task(str(tmp_path / "below" / "mugs.yaml")).source == task.source


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("~/mugs.csv", "home/mugs.csv"),
        ("~nobody-here/mugs.csv", "~nobody-here/mugs.csv"),
        ("sqlite:~/mugs.db", "home/mugs.db"),
    ],
)
def test_a_source_may_be_in_the_home_folder(
    uri: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    text = changed(("source: mugs.csv", f"source: {uri}"))
    task = parse_task(text, where="mugs.yaml", folder=tmp_path)
    assert Path(task.source.uri.removeprefix("sqlite:")) == tmp_path / path


def test_a_collection_in_nobodys_home_folder_is_told(tmp_path: Path) -> None:
    entry = "{from: ~nobody-here/x.json, format: flan}"
    text = GOOD[: GOOD.index("templates:")] + f"templates:\n  - {entry}\n"
    with pytest.raises(TaskError, match="no such file"):
        parse_task(text, where="mugs.yaml", folder=tmp_path)


@pytest.mark.parametrize(
    "uri",
    [
        "pypi:a==1/b.csv",
        "npm:@a/b@1/c.csv",
        "hub:a/b?split=train",
        "made:arithmetic",
        "/data/b.csv",
    ],
)
def test_other_sources_stay_as_they_are(uri: str, tmp_path: Path) -> None:
    source = f"source: {{uri: '{uri}', sha256: {'a' * 64}}}"
    task = parse_task(changed(("source: mugs.csv", source)), where="mugs.yaml", folder=tmp_path)
    assert task.source.uri == uri


def test_every_wrong_key_is_told_at_once_with_its_line_and_the_nearest() -> None:
    found = problems(
        changed(
            ("kind:", "knid:"),
            ("text: review", "text: [review]"),
            ("    role: inverted", "    roll: inverted"),
        )
    )
    assert len(found) == 3
    assert any(text.startswith("mugs.yaml:2:") and "did you mean: kind" in text for text in found)
    assert any(text.startswith("mugs.yaml:4:") for text in found)
    assert any(text.startswith("mugs.yaml:16:") and "did you mean: role" in text for text in found)


def test_a_wrong_role_gets_the_nearest() -> None:
    assert "did you mean: inverted" in problems(changed(("role: inverted", "role: invertd")))[0]


def test_what_is_wrong_in_templates_is_told_at_once_with_its_line() -> None:
    found = problems(
        changed(
            ("      {{ review }}\n  - id: worded", "      {{ review\n  - id: worded"),
            ("choices: [yes, no]", "choices: [yes, no, perhaps]"),
            ("id: back", "id: plain"),
        )
    )
    assert [text.split(" ")[0] for text in found] == [
        "mugs.yaml:15:",
        "mugs.yaml:9:",
        "mugs.yaml:14:",
    ]
    assert "two templates have the id 'plain'" in found[0]
    assert "template 'plain': template syntax, line 2" in found[1]
    assert "3 choices for a task with 2" in found[2]


@pytest.mark.parametrize(
    ("old", "new", "place", "part"),
    [
        ("id: mugs", "id: my mugs", ":1:", "id"),
        ("id: mugs", "id: mugs\nid: cups", ":2:", "'id' is given twice"),
        ("id: mugs", "id: [mugs", ":", "YAML"),
        ("text: review\n", "", ":", "'text' is missing"),
        ("source: mugs.csv", "source: ''", ":3:", "source.uri"),
        ("source: mugs.csv", "source: {uri: a, formt: csv}", ":3:", "did you mean: format"),
        ("source: mugs.csv", "source: {uri: a, format: cvs}", ":3:", "did you mean: csv"),
        ("source: mugs.csv", "source: {uri: a, encoding: utf-9}", ":3:", "unknown encoding"),
        ("source: mugs.csv", 'source: {uri: a, encoding: "u\\0"}', ":3:", "unknown encoding"),
        ("source: mugs.csv", "source: {uri: a, encoding: 'utf-8, utf-9'}", ":3:", "found: utf-9"),
        ("source: mugs.csv", "source: npm:a@1/b.csv", ":3:", "needs its hash"),
        ("kind: sentiment", "metric: constraint", ":2:", "`checks`"),
        ("source: mugs.csv", "source: 'https://a/b.csv'", ":3:", "unknown kind of source"),
        ("source: mugs.csv", "source: pypi:a==1/b.csv", ":3:", "needs its hash"),
        ("[good, bad]", "[good]", ":6:", "two or more"),
        ("[good, bad]", "[good, good]", ":6:", "two or more"),
        ("[good, bad]", "[true, false]", ":6:", "choices"),
        ("kind: sentiment", "metric: acuracy", ":2:", "did you mean: accuracy"),
        ("kind: sentiment", "where: 'label ='", ":2:", "syntax"),
        ("kind: sentiment", "fields: {a: 'x | nope'}", ":2:", "No filter named 'nope'"),
        ("kind: sentiment", "fields: {a b: review}", ":2:", "cannot be called 'a b'"),
        ("kind: sentiment", "fields: {choices: review}", ":2:", "cannot be called 'choices'"),
        ("kind: sentiment", "max_new_tokens: 0", ":2:", "at least 1"),
        ("kind: sentiment", "kind: x\nreferences: review", ":3:", "`references` is for free text"),
    ],
)
def test_mistakes(old: str, new: str, place: str, part: str) -> None:
    found = problems(changed((old, new)))
    assert any(f"mugs.yaml{place}" in text and part in text for text in found), found


def test_free_text_needs_a_metric_and_not_accuracy() -> None:
    text = changed(("choices: [good, bad]\n", ""), ("    choices: [yes, no]\n", ""))
    assert "needs a `metric`" in problems(text)[0]
    assert "accuracy needs choices" in problems(text + "metric: accuracy\n")[0]
    task = parse_task(text + "metric: rougeL\n", where="mugs.yaml", folder=None)
    assert task.templates[0].target == "{{ label }}"


def test_a_task_has_a_template_that_is_judged() -> None:
    text = changed(("  - id: worded", "    role: auxiliary\n    target: x\n  - id: worded"))
    worded = '  - id: worded\n    prompt: "Happy? {{ review }}"\n    choices: [yes, no]\n'
    assert "no template has the role `answer`" in problems(text.replace(worded, ""))[0]


def test_fields_are_known_in_order_where_the_columns_are_known() -> None:
    source = "source: {uri: a.csv, columns: [review, label]}\nfields: {b: a + 1, a: review}"
    found = problems(changed(("source: mugs.csv", source), ("text: review", "text: reveiw")))
    assert "mugs.yaml:4: unknown field 'a'" in found[0]
    assert "mugs.yaml:5: unknown field 'reveiw'" in found[1]
    assert "did you mean: review" in found[1]


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words\n"])
def test_other_files_are_no_tasks(text: str) -> None:
    assert problems(text) == [
        "mugs.yaml: this is not a task file\n  to fix: start with `id:`, `source:`, `text:`, "
        "`target:` and `templates:`"
    ]


def test_an_unknown_library_task_gets_the_nearest() -> None:
    with pytest.raises(TaskError, match="no library task 'amazon_review'") as caught:
        load_task("amazon_review")
    assert caught.value.problems[0].nearest == "amazon_reviews"


@pytest.mark.parametrize("ref", ["mugs.yaml", "tasks/mugs", "nowhere/mugs.yml"])
def test_a_missing_file_is_told(ref: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no such file") as caught:
        load_task(str(tmp_path / ref))
    assert str(tmp_path) in str(caught.value)


def test_a_file_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    (tmp_path / "mugs.yaml").write_bytes(b"id: mugs\ntext: caf\xe9\n")
    with pytest.raises(TaskError, match=r"mugs\.yaml:2"):
        load_task(str(tmp_path / "mugs.yaml"))


def test_find_template() -> None:
    task = parse_task(GOOD, where="mugs.yaml", folder=None)
    assert find_template(task, "worded") is task.templates[1]
    with pytest.raises(TaskError, match="did you mean: worded"):
        find_template(task, "wordde")


def test_several_encodings_may_be_tried() -> None:
    text = changed(("source: mugs.csv", "source: {uri: mugs.csv, encoding: 'utf-8, cp1252'}"))
    task = parse_task(text, where="mugs.yaml", folder=None)
    assert task.source.encoding == "utf-8, cp1252"


def test_tasks_of_the_hub_stand_apart_and_are_loaded_by_name() -> None:
    assert hub_library() == tuple(sorted(hub_library()))
    assert load_task("hub/imdb").source.uri == "hub:stanfordnlp/imdb?split=train"
    assert not set(library()) & set(hub_library())
    with pytest.raises(TaskError) as caught:
        load_task("hub/imbd")
    assert caught.value.problems[0].nearest == "hub/imdb"


def test_the_library_is_sorted() -> None:
    assert library() == tuple(sorted(library()))
    assert "amazon_reviews" in library()


def test_the_page_on_writing_tasks_shows_files_that_load(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
    whole, fields = (part.split("```")[0] for part in page.split("```yaml\n")[1:3])
    assert len(whole.strip().splitlines()) <= 10
    task = parse_task(whole, where="mugs.yaml", folder=None)
    assert [template.role for template in task.templates] == [
        Role.ANSWER,
        Role.ANSWER,
        Role.INVERTED,
    ]
    longer = parse_task(whole + fields, where="mugs.yaml", folder=None)
    assert set(longer.fields) == {"clean", "label"}
    for metric in METRICS:
        assert metric in ("accuracy", "within_one") or f"`{metric}`" in page


NAMED = GOOD.replace("choices: [good, bad]", "labels: {0: bad, 1: good}")


def test_words_for_values_are_the_choices_in_their_order() -> None:
    task = parse_task(NAMED, where="mugs.yaml", folder=None)
    assert task.labels == {"0": "bad", "1": "good"}
    assert task.choices == ("bad", "good")
    assert task.metric == "accuracy"
    assert task.templates[1].target == '{{ choices[["bad", "good"].index(label | string)] }}'
    both = NAMED.replace("templates:", "choices: [good, bad]\ntemplates:")
    assert parse_task(both, where="mugs.yaml", folder=None).choices == ("good", "bad")


def test_words_may_be_numbers_and_truth_values() -> None:
    text = GOOD.replace("choices: [good, bad]", "labels: {true: 1, false: false}")
    assert parse_task(text, where="", folder=None).labels == {"True": "1", "False": "false"}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("{0: bad, 1: bad}", "the values '0' and '1' have the same word, 'bad'"),
        ("{0: bad}", "two or more"),
        ("{0: bad, 1: ''}", "mugs.yaml:6"),
        ("{0: bad, 1: ok}\nchoices: [bad, good]", "`choices` are not the words of `labels`"),
    ],
)
def test_words_that_do_not_fit_are_told(labels: str, said: str) -> None:
    text = GOOD.replace("choices: [good, bad]", f"labels: {labels}")
    with pytest.raises(TaskError) as caught:
        parse_task(text, where="mugs.yaml", folder=None)
    assert said in str(caught.value)
