"""What is built in is listed in several places: all of them agree."""

from __future__ import annotations

from typing import get_args

import pytest

from instil.data.readers.formats import READERS
from instil.data.readers.sqlrows import SQLITE
from instil.data.sources.uri import HUB, MADE, PACKAGES
from instil.scoring.metrics import METRICS
from instil.tasks import task
from instil.tasks.form import SourceForm
from instil.tasks.template import FORMATS


def test_a_task_may_name_each_format_that_has_a_reader() -> None:
    assert get_args(SourceForm.model_fields["format"].annotation) == ("", *READERS)
    assert FORMATS.keys() == READERS.keys()


def test_each_metric_is_listed_by_its_name() -> None:
    assert all(metric.name == name for name, metric in METRICS.items())


@pytest.mark.parametrize("scheme", [*(f"{name}:" for name in PACKAGES), SQLITE, HUB, MADE])
def test_a_task_may_name_each_scheme(scheme: str) -> None:
    assert scheme in (*task._PACKAGES, task._SQLITE, task._HUB, task._MADE)
