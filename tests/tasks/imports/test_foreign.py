from __future__ import annotations

import json
from pathlib import Path

import pytest

from instil.data.build import render_example
from instil.data.registry import load_rows
from instil.data.templatecheck import check_templates
from instil.errors import TaskError
from instil.tasks.form import Collection
from instil.tasks.imports.flan import read_flan
from instil.tasks.imports.foreign import Question, read_collection
from instil.tasks.imports.promptsource import read_promptsource, split
from instil.tasks.imports.wording import literal
from instil.tasks.task import load_task, parse_task
from instil.tasks.template import render
from instil.types import Role, Row

PROMPTSOURCE = """
dataset: films
templates:
  a1: !Template
    answer_choices: bad ||| good
    jinja: '{{text}} Did they find it {{"good or bad"}}? ||| {{ answer_choices [label] }}'
    metadata: !TemplateMetadata {original_task: true}
    name: 'Good or bad? '
  a2: !Template
    answer_choices: null
    jinja: "{{text}} ||| {% if label == 1 %}It pleased{% else %}It did not{% endif %}"
    metadata: !TemplateMetadata {original_task: true}
    name: pleased
  a3: !Template
    answer_choices: negative ||| positive
    jinja: 'Write a {{ answer_choices[label] }} review. ||| {{ text }}'
    metadata: !TemplateMetadata {original_task: false}
    name: write
  a4: !Template
    answer_choices: negative ||| positive
    jinja: '{{text}} This is not ||| {{ ["a"] | most_frequent | first }}
      {{answer_choices[1-label]}}'
    metadata: !TemplateMetadata {original_task: false}
    name: negated
"""
QUESTION = Question("review", "mood", ("positive", "negative"))
FIELDS = {"text": "review", "label": "mood"}
TASK = """
id: films
source: films.csv
text: review
target: mood
choices: [positive, negative]
templates:
  - {id: own, prompt: "Happy? {{ review }}", choices: ["yes", "no"]}
  - from: ps
    format: promptsource
    fields: {text: review, label: mood}
    labels: [negative, positive]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ps").mkdir()
    (tmp_path / "ps" / "templates.yaml").write_text(PROMPTSOURCE, encoding="utf-8")
    lines = ["review,mood", "I like it,positive", "It broke,negative", "A joy to hold,positive"]
    (tmp_path / "films.csv").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "films.yaml").write_text(TASK, encoding="utf-8")
    return tmp_path


def row(mood: str) -> Row:
    return Row("films", "1", "1", {"review": "It broke.", "mood": mood})


def test_promptsource_templates_beside_own_ones(folder: Path) -> None:
    task = load_task(str(folder / "films.yaml"))
    assert [(t.id, t.role.value) for t in task.templates] == [
        ("own", "answer"),
        ("Good_or_bad", "answer"),
        ("pleased", "answer"),
        ("write", "inverted"),
        ("negated", "auxiliary"),
    ]
    said = {
        (t.id, mood): render_example(task, t, row(mood)).target
        for t in task.templates
        for mood in task.choices
    }
    assert said["Good_or_bad", "positive"] == "good"
    assert said["Good_or_bad", "negative"] == "bad"
    assert said["pleased", "positive"] == "It pleased"
    assert said["negated", "positive"] == "a negative"
    prompts = {t.id: render_example(task, t, row("negative")).messages[0].content
               for t in task.templates}  # fmt: skip
    assert prompts["Good_or_bad"] == "It broke. Did they find it good or bad?"
    assert prompts["write"] == "Write a negative review."
    assert task.templates[1].choices == ("good", "bad"), "in the task's order"
    assert {t.origin for t in task.templates} == {"instil", "promptsource"}
    assert check_templates(task, load_rows(task).rows) == ()


def test_labels_in_another_order_than_the_collections_are_refused(folder: Path) -> None:
    path = folder / "ps"
    text = (
        (path / "templates.yaml")
        .read_text(encoding="utf-8")
        .replace("answer_choices: bad ||| good", "answer_choices: Negative ||| Positive")
    )
    (path / "templates.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(TaskError, match="another order") as caught:
        read_collection(Collection(from_=str(path), format="promptsource", fields=FIELDS), QUESTION)
    assert [p.fix for p in caught.value.problems] == ['labels: ["negative", "positive"]']


def test_whole_numbers_are_handed_over_as_numbers(folder: Path) -> None:
    question = Question("text", "label", ("1", "0"))
    good, *_ = read_collection(
        Collection(from_=str(folder / "ps"), format="promptsource"), question
    )
    assert good.choices == ("good", "bad")


@pytest.mark.parametrize(
    "condition",
    ["if label", "if not label", "if text and label", "if label in [1]", "if label == 1"],
)
def test_a_label_that_is_tested_is_a_number(folder: Path, condition: str) -> None:
    target = "{% IF %}{{text}} yes{% else %}{{text}} no{% endif %}".replace("IF", condition)
    jinja = "{{text}} Go on. ||| " + target
    other = {"original_task": False}
    entry = {"name": "x", "jinja": jinja, "answer_choices": None, "metadata": other}
    (folder / "ps" / "templates.yaml").write_text(json.dumps({"templates": {"a": entry}}))
    template = load_task(str(folder / "films.yaml")).templates[-1]
    moods = ("negative", "positive")
    found = [render(template.target, row(mood).fields, where="x") for mood in moods]
    said = ["yes", "no"] if "not" in condition else ["no", "yes"]
    assert found == [f"It broke. {each}" for each in said]


def test_a_template_that_shows_the_answer_is_to_be_left_out(folder: Path) -> None:
    jinja = "{% if label == 1 %}{{text}} ||| fine{% else %}{{text}}! ||| so{{text}}{% endif %}"
    other = {"original_task": False}
    entry = {"name": "Show it", "jinja": jinja, "answer_choices": None, "metadata": other}
    (folder / "ps" / "templates.yaml").write_text(json.dumps({"templates": {"a": entry}}))
    with pytest.raises(TaskError) as told:
        load_task(str(folder / "films.yaml"))
    assert any('skip: ["Show_it"]' in p.fix for p in told.value.problems), told.value


def test_a_line_break_behind_a_tag_stays(folder: Path) -> None:
    jinja = "{% if text %}{{text}} so{% endif %}\nAnswer:{# or not #}\nnow ||| {{label}}"
    entry = {"name": "x", "jinja": jinja, "answer_choices": None}
    (folder / "ps" / "templates.yaml").write_text(json.dumps({"templates": {"a": entry}}))
    (wording,) = read_promptsource(folder / "ps" / "templates.yaml", name="x")
    prompt = render(wording.prompt, {"text": "It broke", "label": "0"}, where="x")
    assert prompt.strip() == "It broke so\nAnswer:\nnow"


def test_only_and_skip_by_name_or_id(folder: Path) -> None:
    def ids(**more: tuple[str, ...]) -> list[str]:
        collection = Collection(
            from_=str(folder / "ps"), format="promptsource", fields=FIELDS, **more
        )
        return [t.id for t in read_collection(collection, QUESTION)]

    assert ids(only=("pleased", "Good_or_bad")) == ["Good_or_bad", "pleased"]
    assert ids(skip=("Good or bad?", "write")) == ["pleased", "negated"]
    with pytest.raises(TaskError, match="no template 'pleasd'") as caught:
        ids(skip=("pleasd",))
    assert caught.value.problems[0].nearest == "pleased"


def test_no_tag_makes_an_object(tmp_path: Path) -> None:
    path = tmp_path / "templates.yaml"
    for tag in ("!!python/object/apply:os.getcwd []", "!Other {a: 1}"):
        path.write_text(f"templates:\n  a: {tag}\n", encoding="utf-8")
        with pytest.raises(TaskError, match="cannot be read"):
            read_promptsource(tmp_path, name="")


@pytest.mark.parametrize(
    ("source", "prompt", "target"),
    [
        ("A {{ x }} ||| {{ y }}", "A {{ x }} ", " {{ y }}"),
        ("{% if a %}P ||| T{% endif %}", "{% if a %}P {% endif %}", "{% if a %} T{% endif %}"),
        ("{% if a %}P{% else %}Q{% endif %} ||| T", "{% if a %}P{% else %}Q{% endif %} ", " T"),
        ("P {% if a %}{% endif %} ||| T", "P  ", " T"),
        ("{{ '|||' }} P ||| T ||| more", "{{ '|||' }} P ", " T "),
        (
            "{% for w in x %}{{ w }}{% endfor %} ||| T",
            "{% for w in x %}{{ w }}{% endfor %} ",
            " T",
        ),
    ],
)
def test_a_text_is_parted_at_the_separator(source: str, prompt: str, target: str) -> None:
    assert split(source) == (prompt, target)


def test_the_escape_from_the_sandbox_is_refused(folder: Path) -> None:
    path = folder / "ps" / "templates.yaml"
    bad = "{{ text.__class__.__mro__ }} ||| {{ answer_choices[label] }}"
    path.write_text(
        "templates:\n  a: !Template\n    name: a\n    answer_choices: no ||| yes\n"
        f"    jinja: '{bad}'\n",
        encoding="utf-8",
    )
    (template,) = read_collection(
        Collection(from_=str(folder / "ps"), format="promptsource", fields=FIELDS), QUESTION
    )
    with pytest.raises(TaskError, match="may not do this"):
        render(template.prompt, row("positive").fields, where="")


def test_choice_is_the_same_for_the_same_row() -> None:
    source = "{{ ['a', 'b', 'c', 'd'] | choice }}"
    drawn = [render(source, {"n": n}, where="") for n in range(60)]
    assert drawn == [render(source, {"n": n}, where="") for n in range(60)]
    assert set(drawn) == {"a", "b", "c", "d"}


def test_answers_that_depend_on_the_row(tmp_path: Path) -> None:
    text = """
templates:
  a: !Template
    name: which
    answer_choices: '{{choice1}} ||| {{choice2}}'
    jinja: "{{premise}} Why? {{ answer_choices | join(' or ') }} ||| {{ answer_choices[label] }}"
"""
    (tmp_path / "templates.yaml").write_text(text, encoding="utf-8")
    task = parse_task(
        "id: copa\nsource: c.csv\ntext: premise\ntarget: label\nchoices: ['0', '1']\n"
        "templates: {from: ., format: promptsource}\n",
        where="copa.yaml",
        folder=tmp_path,
    )
    fields = {"premise": "It rained.", "choice1": "Clouds.", "choice2": "Sun.", "label": "0"}
    example = render_example(task, task.templates[0], Row("copa", "1", "1", fields))
    assert example.messages[0].content == "It rained. Why? Clouds. or Sun."
    assert (example.target, example.choices) == ("Clouds.", ("Clouds.", "Sun."))


def test_flan_pairs_in_every_shape(tmp_path: Path) -> None:
    pair = ["{review}\n\nGood {{or}} bad?\n{options_}", "{answer}"]
    (tmp_path / "list.json").write_text(json.dumps([pair]), encoding="utf-8")
    (tmp_path / "sets.json").write_text(json.dumps({"a": [pair], "b": [pair]}), encoding="utf-8")
    lines = json.dumps({"inputs": pair[0], "targets": pair[1]})
    (tmp_path / "pairs.jsonl").write_text(lines + "\n", encoding="utf-8")
    (tmp_path / "templates.py").write_text(
        f'import os\nPATTERNS = {{"a": [({pair[0]!r}, {pair[1]!r}),\n'
        '("Write {answer}.", "{review}")]}\n'
        "raise SystemExit('this file must not run')\n",
        encoding="utf-8",
    )
    for file, name in (("list.json", ""), ("sets.json", "b"), ("pairs.jsonl", "")):
        collection = Collection(from_=str(tmp_path / file), format="flan", set=name)
        (template,) = read_collection(collection, QUESTION)
        scope = {"review": "Fine {x}.", "mood": "positive", "choices": ["positive", "negative"]}
        said = render(template.prompt, scope, where="")
        assert said == "Fine {x}.\n\nGood {or} bad?\nOPTIONS:\n- positive\n- negative"
        assert template.choices == ("positive", "negative")
    both = read_collection(
        Collection(from_=str(tmp_path / "templates.py"), format="flan"), QUESTION
    )
    assert [t.role for t in both] == [Role.ANSWER, Role.INVERTED]
    assert render(both[1].prompt, {"mood": "negative"}, where="") == "Write negative."
    with pytest.raises(TaskError, match="several sets"):
        read_flan(tmp_path / "sets.json", name="")
    (tmp_path / "code.py").write_text("PATTERNS = {'a': open('x')}\n", encoding="utf-8")
    with pytest.raises(TaskError, match="without running"):
        read_flan(tmp_path / "code.py", name="")


INSTRUCTIONS = {
    "Definition": ["Say how the {review} feels."],
    "Positive Examples": [{"input": "A joy.", "output": "positive", "explanation": "joy"}],
    "Negative Examples": [],
    "Instances": [
        {"id": "t-1", "input": "It broke.", "output": ["negative", "bad"]},
        {"id": "t-2", "input": "I like it.", "output": ["positive"]},
    ],
}


def test_natural_instructions_as_rows_and_as_phrasings(tmp_path: Path) -> None:
    (tmp_path / "task1.json").write_text(json.dumps(INSTRUCTIONS), encoding="utf-8")
    task = parse_task(
        "id: task1\nsource: {uri: task1.json, format: natural_instructions}\ntext: input\n"
        "target: output\nreferences: outputs\nmetric: exact_match\nrow_id: id\n"
        "templates: {from: task1.json, format: natural_instructions}\n",
        where="task1.yaml",
        folder=tmp_path,
    )
    assert [t.id for t in task.templates] == ["definition", "definition_1_examples"]
    rows = load_rows(task).rows
    assert [(r.id, r.place[-10:]) for r in rows] == [("t-1", "instance 1"), ("t-2", "instance 2")]
    plain, shown = (render_example(task, t, rows[0]) for t in task.templates)
    assert plain.messages[0].content == "Say how the {review} feels.\n\nInput: It broke.\nOutput:"
    assert "Positive example 1\nInput: A joy.\nOutput: positive\n\n" in shown.messages[0].content
    assert shown.references == ("negative", "bad")


@pytest.mark.parametrize("text", ["plain", "a {{ b }} {% c %}", 'q " and \\ {', "{#", "line\n{"])
def test_a_literal_renders_to_itself(text: str) -> None:
    assert render(literal(text), {}, where="") == text.strip()


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ("{from: nowhere.json, format: flan}", "there is no such file"),
        ("{from: ps, format: ps}", "format has a value"),
        ("{from: ps, format: promptsource, fields: {text: review, label: mood}, labels: [a]}",
         "`labels` must be"),
        ("{from: ps, format: promptsource, lables: []}", "unknown key"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_entry_has_its_line(folder: Path, entry: str, what: str) -> None:
    text = TASK[: TASK.index("  - from")] + f"  - {entry}\n"
    with pytest.raises(TaskError) as caught:
        parse_task(text, where="films.yaml", folder=folder)
    assert what in caught.value.problems[0].what
    assert caught.value.problems[0].where.startswith("films.yaml:9")


@pytest.mark.slow
@pytest.mark.enable_socket
def test_the_real_collection_of_promptsource(tmp_path: Path) -> None:
    """All 279 files of release 0.2.3: what reads, and what falls out for a stated reason."""
    from instil.data.sources.fetch import fetch_member

    root = fetch_member(
        "pypi:promptsource==0.2.3/promptsource-0.2.3/promptsource/templates/",
        sha256="f106c889778a0fe5590e7183904bf964e1a01691c8a29451e44f3df5ddef05f5",
        filename="promptsource-0.2.3.tar.gz",
    )
    files = sorted(root.rglob("templates.yaml"))
    assert len(files) == 279
    found = [w for file in files for w in read_promptsource(file, name="")]
    assert len(found) == 2085
    both = [w for w in found if w.prompt.strip() and w.target.strip()]
    assert len(both) > 2060
    question = Question("text", "label", ("negative", "positive"))
    imdb = read_collection(Collection(from_=str(root), format="promptsource", set="imdb"), question)
    assert len(imdb) == 11
    answers = {t.id: t.choices for t in imdb}
    assert answers["Reviewer_Enjoyment_Yes_No"] == ("No", "Yes")
    entailment = Question("premise", "label", ("entailment", "neutral", "contradiction"))
    cb = read_collection(
        Collection(from_=str(root), format="promptsource", set="super_glue/cb"), entailment
    )
    assert {t.choices for t in cb} >= {("Yes", "No", "Maybe")}
