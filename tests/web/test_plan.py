"""The page of a recipe: form and YAML are one file, and the forecast is that of `check`."""

from __future__ import annotations

import html
from concurrent.futures import ThreadPoolExecutor

import pytest

from instil import format as fmt
from instil.config.recipe import load_recipe
from instil.stages.check import check_recipe
from instil.web.jobs import jobs
from instil.web.pages import plan as module
from instil.web.pages.plan import changed
from pages import HOME

FORM = {
    "model": "./tiny",
    "method": "lora",
    "train.num_train_epochs": "6",
    "tasks.0.train": "",
    "validation": "24",
    "test": "40",
    "baselines.search": "off",
    "forgetting.budget": "",
    "forgetting.at_most": "",
}


@pytest.fixture
def path(shop):
    file = shop / "moods.recipe.yaml"
    file.write_text(file.read_text().replace(str(shop / "tiny"), "./tiny"))
    return file


def post(page, what: str = "", **form: str):
    return page.post(f"{HOME}plan/moods.recipe.yaml{what}", data=form)


def said(answer) -> str:
    return html.unescape(answer.text)


def test_the_form_shows_what_the_file_says(shop_page, path):
    text = said(shop_page.get(f"{HOME}plan/moods.recipe.yaml"))
    for field in ('value="./tiny"', 'value="24"', 'value="40"', "<option selected>lora"):
        assert field in text
    assert "instil run moods.recipe.yaml --folder runs/moods-2" in text


def test_a_form_that_changes_nothing_leaves_the_file_as_it_is(path):
    fields = module._fields(path, path.read_text())
    assert changed(path, fields) == path.read_text()
    assert load_recipe(path) == module.tried(path, changed(path, FORM))
    short = "model: ./tiny # why\ntasks: [{use: ./moods.task.yaml}]\n"
    path.write_text(short)
    fields = module._fields(path, short)
    assert changed(path, fields) == short
    path.write_text(changed(path, {**fields, "train.num_train_epochs": "3"}))
    assert "# why" in path.read_text()
    assert load_recipe(path).train.num_train_epochs == 3
    assert "validation" not in path.read_text()


def test_the_form_is_written_into_the_file(shop_page, path):
    answer = post(shop_page, **{**FORM, "tasks.0.train": "50", "forgetting.budget": "2.5"})
    assert "Written" in answer.text
    recipe = load_recipe(path)
    assert (recipe.tasks[0].train, recipe.forgetting.budget) == (50, 2.5)
    assert recipe.validation == 24
    post(shop_page, **{**FORM, "baselines.search": "quick", "forgetting.at_most": "0.02"})
    recipe = load_recipe(path)
    assert (recipe.baselines.search, recipe.forgetting.at_most) == ("quick", 0.02)
    assert recipe.forgetting.budget is None


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("validation", "many", "validation"),
        ("method", "magic", "method"),
        ("test", "-1", "test"),
        ("train.num_train_epochs", "1e400", "num_train_epochs"),
        ("model", "", "model"),
    ],
)
def test_what_is_no_recipe_is_told_and_not_written(shop_page, path, field, value, word):
    before = path.read_text()
    answer = post(shop_page, **{**FORM, field: value})
    assert answer.status_code == 400
    assert word in said(answer)
    assert "moods.recipe.yaml" in said(answer)
    assert f'value="{FORM["test"] if field != "test" else value}"' in said(answer), "it stays"
    assert path.read_text() == before
    assert not list(path.parent.glob(".*.tmp"))


def test_the_forecast_is_that_of_check(shop_page, path):
    text = said(post(shop_page, "/forecast", **{**FORM, "test": "30"}))
    path.write_text(path.read_text().replace("test: 40", "test: 30"))
    (task,) = check_recipe(load_recipe(path)).tasks
    assert f"test {task.rows['test']}" in text
    assert fmt.size_of_change(task.smallest_difference, task.metric) in text
    assert "GB" in text or "MB" in text


def test_each_view_follows_the_other(shop_page, path):
    of_form = said(post(shop_page, "/forecast", **{**FORM, "validation": "20"}))
    assert "validation: 20" in of_form
    assert 'id="fields"' not in of_form
    text = path.read_text().replace("validation: 24", "validation: 18")
    of_text = said(post(shop_page, "/forecast", text=text))
    assert 'name="validation" value="18"' in of_text
    assert 'id="whole"' not in of_text
    assert "validation: 24" in path.read_text()


def test_of_several_forecasts_that_wait_the_last_is_made(shop_page, path):
    with ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(post, shop_page, "/forecast", **{**FORM, "validation": str(10 + n)})
            for n in range(4)
        ]
        codes = [each.result().status_code for each in asked]
    assert set(codes) <= {200, 204}
    assert 200 in codes


def test_a_recipe_that_cannot_be_read_is_told_and_begins_nothing(shop_page, path, shop):
    path.write_text("model: [")
    assert shop_page.get(f"{HOME}plan/moods.recipe.yaml").status_code == 400
    assert post(shop_page, "/forecast", **FORM).status_code == 200
    assert shop_page.post(f"{HOME}start/moods.recipe.yaml").status_code == 400
    assert not jobs(shop)
