"""The library's tasks on made-up rows in the shape of the real ones; nothing is fetched.

Rows that take a function to make stand here, the others in `samples.yaml`, those for the data sets
of the hub in `hub_samples.yaml`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from instil.data.build import render_example
from instil.data.registry import load_rows
from instil.data.sources.uri import is_package
from instil.tasks.task import hub_library, library, load_task
from instil.tasks.template import evaluate, render
from instil.types import Role, SourceSpec, Task, Template

GOLDEN = Path(__file__).parent / "golden"
Fields = dict[str, object]


def story(folder: str, file: str, headline: str, text: str) -> Fields:
    mangled = f"{headline}\n\n{text}\n\nThe rest of the story.\n".encode().decode("cp1252")
    columns = {"text": mangled, "folder": folder, "file": file}
    return {**columns, "first_line": "unused", "rest": "unused"}


def chat(user: str, ideal: str) -> Fields:
    messages = [{"role": "system", "content": "?"}, {"role": "user", "content": user}]
    return {"input": messages, "ideal": ideal}


STORIES = [
    story("business", "007.txt", "Kettle sales rise", "Kettles cost £9 now. Shops are glad."),
    story("tech", "012.txt", "Robots learn to queue", 'They "wait", it seems. ' + "word " * 90),
]
SAMPLES: dict[str, list[Fields]] = {
    "amazon_reviews": [
        {"review_sentence": "8_1", "rating": "3.15", "text": "quick &amp;#38; quiet,  a joy."},
        {"review_sentence": "8_2", "rating": "-0.75", "text": "the lid rattles."},
    ],
    "movie_reviews": [
        {"category": "fresh", "text": " A warm, odd\nlittle film.", "movie_name": "the_long_tea"},
        {"category": "rotten", "text": "Two hours of fog.", "movie_name": "fog_2"},
    ],
    "bbc_topic": STORIES,
    "bbc_headline": STORIES,
    "finance_entities": [
        chat(
            "Ann Lee lends Oak Bank , Oslo , what Oak Bank asks .",
            "[Ann Lee - PERSON, Oak Bank - ORGANIZATION, Oslo - LOCATION, Oak Bank - ORGANIZATION]",
        ),
        chat("Borrower shall pay .", "[Borrower - PERSON]"),
    ],
    "trivia": [
        {
            "question": "How many legs has a stool.?",
            "answers": [3, "three "],
            "category": "general",
        },
        {"question": "Who wrote this?", "answers": ["Nobody"], "category": "artandliterature"},
    ],
    "quartz": [
        chat("Heat makes a gas\n\n A: expand.\n B: shrink", "A"),
        chat("Ice is _____ than water.\n\n A: denser\n B: less dense?", "B"),
    ],
}
LEFT_OUT: dict[str, list[Fields]] = {
    "amazon_reviews": [{"review_sentence": "8_3", "rating": "0.5", "text": "it is a kettle."}],
    "movie_reviews": [{"category": "plot", "text": "A man boils tea.", "movie_name": "tea"}],
    "finance_entities": [
        chat("Nothing here .", "No entities found"),
        chat("Borrower " * 81, "[Borrower - PERSON]"),
    ],
    "trivia": [
        {"question": "What is this? http://a.b/c.png", "answers": ["x"], "category": "general"},
        {"question": "Hit points of a slime?", "answers": [8], "category": "finalfantasy"},
        {"question": "__ Nimoy", "answers": ["Leonard"], "category": "general"},
    ],
}


for file in ("samples.yaml", "hub_samples.yaml"):
    with open(Path(__file__).parent / file, encoding="utf-8") as stream:
        for name, parts in YAML(typ="safe").load(stream).items():
            SAMPLES[name] = parts["rows"]
            LEFT_OUT[name] = parts.get("left_out", [])
ALL = (*library(), *hub_library())


def derive(task: Task, columns: Fields) -> Fields:
    fields = dict(columns)
    for name, expression in task.fields.items():
        fields[name] = evaluate(expression, fields, where=name)
    return fields


def kept(task: Task, fields: Fields) -> bool:
    return not task.where or bool(evaluate(task.where, fields, where="where"))


def rendered(template: Template, fields: Fields) -> tuple[str, str, list[str]]:
    choices = [render(choice, fields, where="choices") for choice in template.choices]
    scope = {**fields, "choices": choices}
    prompt, target = (render(s, scope, where="") for s in (template.prompt, template.target))
    return prompt, target, choices


def transcript(task: Task, name: str) -> str:
    lines = []
    for template in task.templates:
        lines.append(f"=== {template.id} ({template.role})")
        for columns in SAMPLES[name]:
            prompt, target, choices = rendered(template, derive(task, columns))
            among = f"    [{' | '.join(choices)}]" if choices else ""
            lines += [prompt, f"--> {target}{among}", ""]
    return "\n".join(lines)


@pytest.mark.parametrize("name", ALL)
def test_rendered_templates(name: str, golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / f"{name}.txt", transcript(load_task(name), name))


@pytest.mark.parametrize("name", ALL)
def test_texts_are_clean_and_answers_right(name: str) -> None:
    task = load_task(name)
    checked = 0
    for template in task.templates:
        for columns in SAMPLES[name]:
            fields = derive(task, columns)
            prompt, target, choices = rendered(template, fields)
            for line in f"{prompt}\n{target}".split("\n"):
                assert line == line.rstrip()
                assert "  " not in line
            assert not choices or target in choices
            if template.role is Role.ANSWER and choices:
                assert choices.index(target) == task.choices.index(str(fields[task.target]))
            checked += 1
    assert checked >= 6


@pytest.mark.parametrize("name", ALL)
def test_a_task_is_complete(name: str) -> None:
    task = load_task(name)
    roles = Counter(template.role for template in task.templates)
    assert len(task.templates) >= 5
    assert roles[Role.ANSWER] >= 3
    assert roles[Role.INVERTED] >= 1
    assert task.id == name.removeprefix("hub/")
    assert task.rows > 0
    assert task.description.endswith((".", "?"))
    assert task.licence != "not stated"
    assert task.source.uri.partition(":")[0] in ("pypi", "npm", "made", "hub")
    assert (len(task.source.sha256) == 64) == is_package(task.source.uri)
    assert name.startswith("hub/") == task.source.uri.startswith("hub:")
    assert all(template.origin == "instil" for template in task.templates)


@pytest.mark.parametrize("name", ALL)
def test_wording_is_cheap(name: str) -> None:
    """What a template adds to the row's own text, in words: on a CPU every token counts."""
    for template in load_task(name).templates:
        fixed = template.prompt.replace("{{ ", "{{").replace(" }}", "}}").split()
        assert len([word for word in fixed if "{{" not in word]) <= 20


@pytest.mark.parametrize("name", ALL)
def test_rows_are_kept_and_left_out(name: str) -> None:
    task = load_task(name)
    assert all(kept(task, derive(task, columns)) for columns in SAMPLES[name])
    assert not any(kept(task, derive(task, columns)) for columns in LEFT_OUT.get(name, []))
    for key in (task.row_id, task.group):
        fields = derive(task, SAMPLES[name][0])
        assert not key or str(evaluate(key, fields, where=key))


@pytest.mark.parametrize("name", hub_library())
def test_a_hub_task_reads_the_parquet_files_of_its_data_set(name: str, tmp_path: Path) -> None:
    """The types of Parquet, not of YAML: integers for labels, objects and lists as such."""
    import pyarrow
    import pyarrow.parquet

    samples = [*SAMPLES[name], *LEFT_OUT[name]]
    path = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(samples), path)
    task = replace(load_task(name), source=SourceSpec(str(path)))
    loaded = load_rows(task)
    assert len(loaded.rows) == len(SAMPLES[name])
    assert sum(loaded.skipped.values()) == len(LEFT_OUT[name])
    for template in task.templates:
        for row in loaded.rows:
            assert render_example(task, template, row).target


def test_the_library_is_wide() -> None:
    tasks = [load_task(name) for name in library()]
    assert len(tasks) >= 16
    assert len({task.kind for task in tasks}) >= 12
    assert len(hub_library()) >= 15


def test_hub_tasks_share_clusters_with_those_that_teach_the_same() -> None:
    known = {load_task(name).kind: load_task(name).cluster for name in library()}
    shared = [task for task in map(load_task, hub_library()) if task.kind in known]
    assert len(shared) >= 10
    for task in shared:
        # A question of science and one about everyday life are both multiple choice.
        assert task.cluster == known[task.kind] or task.kind == "multiple choice"


def test_amazon_reviews_has_templates_of_three_kinds() -> None:
    roles = Counter(template.role for template in load_task("amazon_reviews").templates)
    assert roles[Role.ANSWER] >= 4
    assert roles[Role.INVERTED] >= 2
    assert roles[Role.AUXILIARY] >= 2


@pytest.mark.parametrize(
    ("rating", "stars"),
    [(-4, 1), (-2.45, 1), (-2.4, 2), (-0.85, 2), (-0.8, 3), (0.75, 3), (0.8, 4), (2.4, 5), (4, 5)],
)
def test_stars_are_five_equal_parts_of_the_scale(rating: float, stars: int) -> None:
    columns: Fields = {"review_sentence": "1_1", "rating": str(rating), "text": "x"}
    assert derive(load_task("amazon_reviews"), columns)["stars"] == stars


def test_sentences_of_one_review_are_one_group() -> None:
    task = load_task("amazon_reviews")
    first, second = (derive(task, columns) for columns in SAMPLES["amazon_reviews"])
    assert evaluate(task.group, first, where="") == evaluate(task.group, second, where="") == "8"


def test_a_headline_is_not_in_its_story() -> None:
    task = load_task("bbc_headline")
    fields = derive(task, STORIES[0])
    assert str(fields["headline"]) not in str(fields["story"])
    assert "£9" in str(fields["story"])


def test_trivia_accepts_every_answer_as_text() -> None:
    task = load_task("trivia")
    fields = derive(task, SAMPLES["trivia"][0])
    assert fields[task.references] == ["3", "three"]
    assert fields["asked"] == "How many legs has a stool."
