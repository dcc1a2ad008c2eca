"""Who is let in, what may be reached, and what every page carries."""

from __future__ import annotations

import errno
import os
import re

import pytest
from starlette.testclient import TestClient

from instil.web.app import make_app, read_ahead
from instil.web.jobs import jobs
from instil.web.pages import answers, data
from instil.web.site import POLICY
from pages import HOME

ROWS = "text,label\n" + "".join(
    f"It is {'good' if n % 2 else 'bad'} {n},{'yes' if n % 2 else 'no'}\n" for n in range(60)
)


def put(page: TestClient, name: str, content: str = ROWS, **more):
    return page.put(f"{HOME}files/{name}", content=content.encode(), **more)


def test_without_the_secret_nothing_is_said(page):
    for path in ("/", "/other/", "/assets/page.js", "/secre/", "/secret2/", "//secret/"):
        answer = page.get(path)
        assert answer.status_code == 403
        assert "whole address" in answer.text


def test_another_name_of_this_machine_is_turned_away(page):
    answer = page.get(HOME, headers={"Host": "evil.example"})
    assert answer.status_code == 403
    assert page.get(HOME, headers={"Host": "localhost.evil.example:80"}).status_code == 403
    for host in ("127.0.0.1:8000", "localhost", "[::1]:9"):
        assert page.get(HOME, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost:8001"},  # another server of this machine
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "same-site"},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_change_is_taken_from_the_page_alone(site, headers):
    page = TestClient(make_app(site), base_url="http://localhost")
    answer = page.put(f"{HOME}files/a.csv", content=b"a,b\n", headers=headers)
    assert answer.status_code == 403
    assert not list(site.workplace.folder.iterdir())


def test_no_change_is_made_by_looking(shop_page, shop):
    links, seen = [HOME], set()
    while links:
        link = links.pop()
        if link in seen:
            continue
        seen.add(link)
        answer = shop_page.get(link)
        if "text/html" in answer.headers["content-type"]:
            assert answer.status_code == 200, link
            links += re.findall(r'href="(/secret/[^"#]*)', answer.text.replace("&amp;", "&"))
    assert len(seen) > 15
    assert not jobs(shop)
    assert not (shop / ".instil").exists()


def test_every_page_carries_the_policy_and_sets_no_cookie(shop_page):
    for path in ("", "data/moods.csv", "run/runs/moods", "nowhere", "assets/page.js"):
        headers = shop_page.get(HOME + path).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "set-cookie" not in headers
        assert "access-control-allow-origin" not in headers
    report = shop_page.get(f"{HOME}report/runs/moods").headers["content-security-policy"]
    assert "sandbox" in report
    assert "script-src" not in report


def test_a_file_is_taken_under_its_own_name_or_the_next_free_one(page, site):
    first, second = put(page, "a b.csv"), put(page, "a b.csv")
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["to"] == f"{HOME}data/a%20b.csv"
    assert sorted(p.name for p in site.workplace.folder.iterdir()) == ["a b-2.csv", "a b.csv"]
    assert page.get(second.json()["to"]).status_code == 200


@pytest.mark.parametrize(
    "name",
    ["..%2Fa.csv", "%2e%2e", ".hidden.csv", "a%00.csv", "a%0ab.csv", "run.sh", "x.py", "a" * 250],
)
def test_a_name_that_would_lead_elsewhere_is_refused(page, site, name):
    assert put(page, name).status_code in (400, 404)
    assert not list(site.workplace.folder.parent.glob("*.csv"))
    assert not list(site.workplace.folder.iterdir())


@pytest.mark.parametrize(
    "path",
    [
        "data/../outside.csv",
        "data/%2e%2e/outside.csv",
        "data/..%2Foutside.csv",
        "data//etc/passwd",
        "data/%2Fetc%2Fpasswd",
        "data/link.csv",
        "data/.git/config",
        "task/link.csv",
        "plan/link.csv",
        "run/%2e%2e",
        "report/out",
        "answers/out",
        "study/out",
        "job/%2e%2e",
        "job/..%2F..",
        "assets/..%2Fsite.py",
        "compare?a=..&b=..",
    ],
)
def test_nothing_outside_the_folder_is_reached(page, site, path):
    folder = site.workplace.folder
    (folder.parent / "outside.csv").write_text("hidden,words\nsecret words,1\n")
    (folder / "link.csv").symlink_to(folder.parent / "outside.csv")
    (folder / "out").symlink_to(folder.parent)
    answer = page.get(HOME + path)
    assert answer.status_code == 404
    assert "secret words" not in answer.text


def test_markup_in_names_and_rows_is_shown_as_text(page, site):
    evil = '<script>alert(1)</script><img src=x onerror="alert(2)">'
    rows = f'"{evil.replace(chr(34), chr(34) * 2)}",label\n' + ROWS.split("\n", 1)[1].replace(
        "It is", evil.replace('"', "'")
    )
    put(page, "evil.csv", rows)
    (site.workplace.folder / "<b>x<i>.csv").write_text(ROWS)
    for path in ("", "data/evil.csv"):
        text = page.get(HOME + path).text
        assert "<script>alert" not in text
        assert "<img" not in text
        assert "<b>x<i>" not in text
    assert "&lt;script&gt;" in page.get(f"{HOME}data/evil.csv").text


def test_a_form_without_end_is_refused(page):
    put(page, "a.csv")
    answer = page.post(f"{HOME}data/a.csv/guess", content=b"x=" + b"y" * (5 << 20))
    assert answer.status_code == 400
    assert "too long" in answer.text


def test_the_runs_are_listed_in_the_order_asked_for(shop_page):
    for order in ("newest", "name", "score", "state", "nonsense"):
        text = shop_page.get(f"{HOME}?sort={order}").text
        assert "runs/moods" in text
        assert "finished" in text
        assert "Minus best prompting" in text


def test_a_run_that_cannot_be_read_is_told_beside_the_others(shop_page, shop):
    broken = shop / "runs" / "broken"
    broken.mkdir()
    (broken / "recipe.yaml").write_text("nonsense: 1\n")
    (broken / "manifest.json").write_text("{}")
    try:
        text = shop_page.get(HOME).text
        assert "cannot be read" in text
        assert "runs/moods" in text
    finally:
        for path in broken.iterdir():
            path.unlink()
        broken.rmdir()


def test_what_is_not_there_is_told(page):
    assert page.get(f"{HOME}job/nothing").status_code == 404
    assert page.post(f"{HOME}job/nothing/stop").status_code == 404
    assert page.delete(f"{HOME}data/a.csv").status_code == 405


def test_a_full_disk_is_told(page, site, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "rows.csv")

    monkeypatch.setattr(os, "replace", full)
    answer = put(page, "rows.csv")
    assert answer.status_code == 400
    assert "No space left" in answer.json()["error"]
    monkeypatch.undo()
    assert [path.name for path in site.workplace.folder.iterdir()] == []


def test_what_is_likely_looked_at_is_read_ahead(shop_page, shop, monkeypatch):
    site = shop_page.app.state.site
    (shop / "broken.json").write_text("{")
    read_ahead(site)

    def again(*_: object, **__: object) -> None:
        raise AssertionError("it was read ahead")

    for module, name in ((data, "read_table"), (data, "inspect_table"), (answers, "load_scores")):
        monkeypatch.setattr(module, name, again)
    for path in ("data/moods.csv", "answers/runs/moods"):
        assert shop_page.get(HOME + path).status_code == 200
