from __future__ import annotations

from dataclasses import replace
from types import ModuleType

from instil.report.page import Table
from instil.report.sections.origin import data_blocks


def test_labels_are_shown_with_their_values_in_the_data(sample: ModuleType) -> None:
    task = replace(sample.class_task(), labels={"0": "negative", "1": "positive"})
    tables = [block for block in data_blocks(task) if isinstance(block, Table)]
    labels = [row[0].text for row in tables[1].rows]
    assert labels == ["negative (0 in the data)", "positive (1 in the data)", "mixed"]
