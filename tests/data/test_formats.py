"""What is built in is listed in several places: all of them agree."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from instil.data.readers.rowfile import PlacedRow, RowFile
from instil.data.readers.sqlrows import SQLITE
from instil.data.sources.source import read_table
from instil.data.sources.uri import HUB, MADE, PACKAGES
from instil.scoring.metrics import METRICS
from instil.tasks import task
from instil.tasks.form import SourceForm
from instil.tasks.formats import FORMATS
from instil.types import SourceSpec


def test_a_task_may_name_each_format_that_has_a_reader() -> None:
    assert get_args(SourceForm.model_fields["format"].annotation) == ("", *FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_has_a_reader(name: str) -> None:
    module, _, function = FORMATS[name].reader.partition(":")
    reader = getattr(import_module(module), function)
    assert get_type_hints(reader) == {"file": RowFile, "return": Iterator[PlacedRow]}


def test_each_metric_is_listed_by_its_name() -> None:
    assert all(metric.name == name for name, metric in METRICS.items())


@pytest.mark.parametrize("scheme", [*(f"{name}:" for name in PACKAGES), SQLITE, HUB, MADE])
def test_a_task_may_name_each_scheme(scheme: str) -> None:
    assert scheme in (*task._PACKAGES, task._SQLITE, task._HUB, task._MADE)


def test_names_of_files_that_are_no_utf_8_are_spelt(tmp_path):
    (tmp_path / "mails").mkdir()
    try:
        Path(os.fsdecode(os.fsencode(tmp_path / "mails") + b"/caf\xe9.txt")).write_text("one")
    except OSError:
        pytest.skip("file names are Unicode here")
    ((place, columns),) = read_table(SourceSpec(str(tmp_path / "mails"), format="folder"))
    assert columns["file"] == "caf\\xe9.txt"
    assert place.encode().endswith(b"caf\\xe9.txt")
