"""The page of a task: templates as they are typed, mistakes at their place, findings mended."""

from __future__ import annotations

import html
import re
import time

import pytest

from instil.data.correct import load_marks
from instil.tasks.task import load_task
from pages import HOME

ROWS = "text,mood,shop\n" + "".join(
    f"It is {'good' if n % 2 else 'bad'} and number {n},{'yes' if n % 2 else 'no'},s{n % 30}\n"
    for n in range(120)
)


@pytest.fixture
def path(page, site):
    (site.workplace.folder / "rows.csv").write_text(ROWS)
    page.post(f"{HOME}data/rows.csv", data={"group": "none"})
    return site.workplace.folder / "rows.task.yaml"


def said(answer) -> str:
    return html.unescape(answer.text)


def post(page, where: str, **form: str):
    return page.post(f"{HOME}task/rows.task.yaml{where}", data=form)


def test_each_template_stands_beside_three_rows(page, path):
    text = said(page.get(f"{HOME}task/rows.task.yaml"))
    task = load_task(str(path))
    for template in task.templates:
        assert template.id in text
    assert text.count("rows.csv:2") == len(task.templates)
    assert text.count("rows.csv:4") == len(task.templates)


def test_tokens_that_are_trained_on_are_marked_once_the_tokenizer_is_here(page, path):
    until = time.monotonic() + 60
    while "marked ones are trained on" not in said(answer := post(page, "/preview")):
        assert time.monotonic() < until
        time.sleep(0.2)
    assert "<|im_start|>user" in said(answer).replace('</span><span class="token">', "")
    assert "<|im_end|>" in said(answer)


def test_tokens_are_those_of_the_recipes_own_rules(page, path, site):
    """The recipe's chat template and length policy, not the model's defaults."""
    (site.workplace.folder / "mine.jinja").write_text(
        "{% for message in messages %}MINE {{ message['role'] }}: {{ message['content'] }}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}MINE assistant: {% endif %}"
    )
    rows = ROWS.replace("number 0,", f"number 0 {'and so on ' * 60},")
    (site.workplace.folder / "rows.csv").write_text(rows)
    recipe = path.with_name("rows.recipe.yaml")
    text = re.sub(r"max_length: \d+", "max_length: 96", recipe.read_text())
    recipe.write_text(text + "chat_template: ./mine.jinja\n")
    until = time.monotonic() + 60
    while "marked ones are trained on" not in said(answer := post(page, "/preview")):
        assert time.monotonic() < until
        time.sleep(0.2)
    plain = html.unescape(re.sub("<[^>]*>", "", answer.text))
    assert "MINE user: " in plain
    assert "<|im_start|>" not in plain
    assert "rows.csv:2, truncated" in plain
    assert "rows.csv:3, truncated" not in plain


def test_a_template_is_rendered_as_it_is_typed(page, path):
    form = {"prompt:0": "HELLO {{ text }}"}
    text = said(post(page, "/preview", **form)).replace("<|", "")
    assert "HELLO It is bad and number 0" in re.sub("<[^>]*>", "", text)
    assert "HELLO" not in path.read_text()  # a look writes nothing
    assert "Written" in post(page, "", **form).text
    assert load_task(str(path)).templates[0].prompt == "HELLO {{ text }}"
    assert "# How the model is asked" in path.read_text()  # comments stay


@pytest.mark.parametrize(
    "prompt",
    ["{{ text", "{{ txet }}", "{% for %}", "", "{{ text.__class__ }}", "{{ 'a' * 10**9 }}"],
)
def test_a_mistake_is_told_at_its_template_and_nothing_is_written(page, path, prompt):
    before = path.read_text()
    answer = post(page, "/preview", **{"prompt:1": prompt})
    assert answer.status_code == 200
    at = answer.text.index('id="shown-1"')
    assert "problem" in answer.text[at : at + 200]
    assert post(page, "", **{"prompt:1": prompt}).status_code in (200, 400)
    if "text" in prompt and "class" not in prompt:
        assert path.read_text() == before


def test_words_and_group_outlast_a_mistake_in_a_template(page, path):
    form = {"label:yes": "happy", "group": "shop"}
    wrong = post(page, "", **{**form, "prompt:1": "{{ text"})
    assert wrong.status_code == 400
    assert re.search(r'name="label:yes"[^>]*value="happy"', said(wrong))
    assert re.search(r'<option value="shop" selected', said(wrong))


def test_labels_get_words_and_the_group_is_chosen(page, path):
    post(page, "", **{"label:yes": "happy", "label:no": "sad", "group": "shop"})
    task = load_task(str(path))
    assert dict(task.labels) == {"no": "sad", "yes": "happy"}
    assert task.group == "shop"
    post(page, "", **{"label:yes": "glad", "group": ""})
    task = load_task(str(path))
    assert (task.labels["yes"], task.group) == ("glad", "")
    twice = post(page, "", **{"label:yes": "sad"})
    assert twice.status_code == 400
    assert "the same word" in said(twice)


def test_a_group_of_any_name_is_chosen(page, site):
    (site.workplace.folder / "rows.csv").write_text(ROWS.replace("shop", "The Shop", 1))
    page.post(f"{HOME}data/rows.csv", data={"group": "none"})
    text = said(page.get(f"{HOME}task/rows.task.yaml"))
    value = re.search('<option value="([^>]*)">The Shop<', text)[1]
    assert "Written" in post(page, "", group=value).text
    assert load_task(str(site.workplace.folder / "rows.task.yaml")).group == 'row["The Shop"]'


def test_the_whole_text_can_be_written(page, path):
    text = path.read_text()
    post(page, "", text=text.replace("description:", "description: changed"))
    assert load_task(str(path)).description.startswith("changed")
    wrong = post(page, "", text="templates: [")
    assert wrong.status_code == 400
    assert "templates: [" in wrong.text  # what was typed is kept
    assert load_task(str(path)).description.startswith("changed")


def test_findings_are_mended_in_the_task_file(page, site):
    folder = site.workplace.folder
    rows = ROWS.replace("It is good", "It &amp; is good").replace(",yes,", ",Yes,", 9)
    (folder / "rows.csv").write_text(rows)
    page.post(f"{HOME}data/rows.csv", data={"group": "none", "label": "mood"})
    path = folder / "rows.task.yaml"
    text = path.read_text()
    path.write_text(text.replace("unescape", "string"))
    found = said(post(page, "/findings"))
    assert "HTML entities" in found
    what = re.search('name="what" value="([^"]*HTML entities[^"]*)"', found)[1]
    assert "Written" in post(page, "/mend", what=what).text
    assert "unescape" in path.read_text()
    assert "HTML entities" not in said(post(page, "/findings"))
    assert "has been mended" in post(page, "/mend", what=what).text


def test_rows_that_contradict_one_another_are_marked_to_be_left_out(page, path, site):
    rows = ROWS + "".join(f"It is odd,{each},s1\n" for each in ("no", "yes") * 8)
    (site.workplace.folder / "rows.csv").write_text(rows)
    post(page, "", group="shop")  # they stay in one part
    found = said(post(page, "/findings"))
    what = re.search(r"\d+ pairs? of rows ha\w+ the same text and different labels", found)[0]
    answer = post(page, "/leave-out", what=what)
    assert "instil correct rows.task.yaml rows.labels.jsonl" in answer.text
    marks = load_marks(site.workplace.folder / "rows.labels.jsonl")
    assert len(marks) >= 2
    assert {int(id) for id in marks} <= set(range(121, 137))
    assert all(mark.now is None for mark in marks.values())


def test_what_cannot_be_looked_at_is_told(page, path, site):
    (site.workplace.folder / "rows.csv").unlink()
    for what in ("", "/findings", "/preview"):
        answer = post(page, what) if what else page.get(f"{HOME}task/rows.task.yaml")
        assert answer.status_code in (200, 400)
        assert "rows.csv" in answer.text
    path.write_text("just: [a list")
    for what in ("/findings", "/preview"):
        assert "problem" in post(page, what).text
    assert page.get(f"{HOME}task/rows.task.yaml").status_code == 200
