"""The page of a file of rows: columns, the guess, and what the form writes."""

from __future__ import annotations

import html
import re

import pytest
from ruamel.yaml import YAML

from instil.cli.main import app
from instil.web.pages import data as module
from instil.web.pages.data import Asked, asked_of
from pages import HOME

ROWS = "text,sarcastic,author,when\n" + "".join(
    f"The {'moon' if n % 2 else 'market'} did it again {n},{n % 2},a{n % 40},2024-01-{n % 28 + 1}\n"
    for n in range(120)
)


@pytest.fixture
def file(site):
    (site.workplace.folder / "rows.csv").write_text(ROWS)
    return site.workplace.folder / "rows.csv"


def said(answer) -> str:
    return html.unescape(answer.text)


def test_columns_are_shown_with_what_they_hold(page, file):
    text = said(page.get(f"{HOME}data/rows.csv"))
    assert "120 rows, 4 columns" in text
    for words in ("2 values", "dates", "The market did it again 0", "120 of 120"):
        assert words in text
    assert "instil init rows.csv" in text
    assert "/rows.csv:2" not in text  # places are told from the folder


def test_rows_are_leafed_through_on_the_server(page, file):
    first, later = page.get(f"{HOME}data/rows.csv").text, page.get(f"{HOME}data/rows.csv?from=100")
    assert "again 19," not in first
    assert "again 20<" not in first
    assert "again 100<" in later.text
    for odd in ("-1", "x", "999999999999", "1e9"):
        assert page.get(f"{HOME}data/rows.csv?from={odd}").status_code == 200


def test_the_guess_follows_the_form(page, file):
    answer = page.post(
        f"{HOME}data/rows.csv/guess", data={"label": "author", "text": "text", "group": "none"}
    )
    text = said(answer)
    assert "author" in text
    assert "as you say" in text
    assert "instil init rows.csv --text text --label author --group none" in text
    wrong = said(
        page.post(f"{HOME}data/rows.csv/guess", data={"text": "sarcastic", "label": "sarcastic"})
    )
    assert "one column cannot be two things" in wrong


def test_the_form_writes_what_the_command_writes(page, file, site, tmp_path, monkeypatch):
    answer = page.post(
        f"{HOME}data/rows.csv",
        data={"name:0": "serious", "name:1": "sarcastic", "group": "author"},
        follow_redirects=False,
    )
    assert answer.status_code == 303
    assert answer.headers["location"] == f"{HOME}task/rows.task.yaml"
    ours = (file.parent / "rows.task.yaml").read_text()
    assert YAML(typ="safe").load(ours)["labels"] == {0: "serious", 1: "sarcastic"}
    # The command that the page shows writes the same.
    asked = asked_of({"name:0": "serious", "name:1": "sarcastic", "group": "author"})
    other = tmp_path / "other"
    other.mkdir()
    (other / "rows.csv").write_text(ROWS)
    monkeypatch.chdir(other)
    command = [*asked.command("rows.csv", force=False), "--model", site.default_model]
    with pytest.raises(SystemExit) as ended:
        app(command)
    assert ended.value.code == 0
    assert (other / "rows.task.yaml").read_text() == ours
    recipe = (file.parent / "rows.recipe.yaml").read_text()
    assert (other / "rows.recipe.yaml").read_text() == recipe


def test_the_command_names_the_folder_of_the_file_and_what_it_writes_over(page, file):
    below = file.parent / "below"
    below.mkdir()
    (below / "rows.csv").write_text(ROWS)
    assert "--folder below" in page.get(f"{HOME}data/below/rows.csv").text
    assert "--force" not in page.get(f"{HOME}data/below/rows.csv").text
    (below / "rows.recipe.yaml").touch()
    assert "--force" in page.get(f"{HOME}data/below/rows.csv").text
    assert "--folder" not in page.get(f"{HOME}data/rows.csv").text


def test_files_that_are_there_are_written_over_when_that_is_said(page, file):
    page.post(f"{HOME}data/rows.csv", data={})
    again = page.post(f"{HOME}data/rows.csv", data={})
    assert again.status_code == 400
    assert "this exists already" in again.text
    assert "write over" in page.get(f"{HOME}data/rows.csv").text
    sure = page.post(f"{HOME}data/rows.csv", data={"force": "on"}, follow_redirects=False)
    assert sure.status_code == 303
    other = page.post(f"{HOME}data/rows.csv", data={"task": "mine"}, follow_redirects=False)
    assert other.headers["location"].endswith("mine.task.yaml")


@pytest.mark.parametrize("name", ["../x", "a/b", "CON", "x" * 300])
def test_a_name_that_is_no_name_is_told(page, file, name):
    answer = page.post(f"{HOME}data/rows.csv", data={"task": name})
    assert answer.status_code == 400
    assert "cannot be a task's name" in said(answer)


def test_what_is_no_file_of_rows_is_told(page, site):
    (site.workplace.folder / "odd.json").write_text("{")
    (site.workplace.folder / "empty.csv").write_text("")
    for name in ("odd.json", "empty.csv"):
        answer = page.get(f"{HOME}data/{name}")
        assert answer.status_code == 400
        assert name in answer.text


def test_bad_rows_are_listed_and_left_out_when_that_is_said(page, site):
    broken = ROWS + 'one too many,1,a,2024-01-01,"x"\n'
    (site.workplace.folder / "rows.csv").write_text(broken)
    text = page.get(f"{HOME}data/rows.csv").text
    assert "1 row cannot be used" in text
    assert page.post(f"{HOME}data/rows.csv", data={}).status_code == 400
    done = page.post(f"{HOME}data/rows.csv", data={"skip": "on"}, follow_redirects=False)
    assert done.status_code == 303


def test_of_a_large_file_the_first_rows_are_kept(page, file, monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 50)
    text = page.get(f"{HOME}data/rows.csv").text
    assert "More than 50 rows" in text
    assert re.search(r"120 rows; columns", text)  # the guess has read all


def test_a_column_named_like_a_field_of_the_form_stays_apart(page, site):
    rows = "text,text:x,name:0\n" + "a lovely day it is,1,2\nsuch a bad one was it,0,2\n" * 30
    (site.workplace.folder / "odd.csv").write_text(rows)
    assert page.get(f"{HOME}data/odd.csv").status_code == 200


def test_words_equal_to_the_values_are_no_wish():
    assert asked_of({"name:a": "a", "name:b": "b"}).names is None
    assert asked_of({"name:a": "x", "name:b": ""}).names == {"a": "x"}
    assert Asked(names={"1": "x=y"}).command("f", force=False)[-1] == "1=x=y"


def test_fields_of_labels_stay_while_a_word_is_typed_and_all_labels_have_one(page, site):
    rows = "text,colour\n" + "".join(f"what a thing it is {n},c{n % 30}\n" for n in range(300))
    (site.workplace.folder / "colours.csv").write_text(rows)
    words = {f"name:c{n}": f"colour {n}" for n in range(30)} | {"name:c7": ""}
    shown = said(page.post(f"{HOME}data/colours.csv/guess", data=words))
    assert "no word for 'c7'" in shown
    assert all(f'name="name:c{n}"' in shown for n in range(30))
    assert 'value="colour 29"' in shown
    whole = said(page.post(f"{HOME}data/colours.csv/guess", data={**words, "name:c7": "red"}))
    assert "no word for" not in whole


def test_a_text_to_write_needs_its_column(page, file):
    shown = page.post(f"{HOME}data/rows.csv", data={"kind": "free", "text": "text"})
    assert shown.status_code == 400
    assert "nothing says which" in said(shown)
    assert re.search('<option value="free" selected', said(shown))


def test_a_file_in_another_encoding_is_read_when_that_is_said(page, site, tmp_path):
    rows = "Urteil;Text\n" + "".join(
        f"{'gut' if n % 2 else 'schlecht'};Das Gerät gefällt „{n}“ mal\n" for n in range(60)
    )
    (site.workplace.folder / "alt.csv").write_bytes(rows.encode("cp1252"))
    first = page.get(f"{HOME}data/alt.csv")
    assert 'name="encoding"' in first.text
    assert "Gerät gefällt „1“" not in first.text
    text = said(page.get(f"{HOME}data/alt.csv?encoding=cp1252"))
    assert "Gerät gefällt „1“" in text
    assert "instil init alt.csv --encoding cp1252" in text
    form = {"encoding": "cp1252", "label": "Urteil"}
    done = page.post(f"{HOME}data/alt.csv", data=form, follow_redirects=False)
    assert done.status_code == 303
    assert "encoding: cp1252" in (site.workplace.folder / "alt.task.yaml").read_text()
    assert page.get(f"{HOME}data/alt.csv?encoding=nonsense").status_code in (200, 400)
