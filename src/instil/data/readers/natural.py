"""Rows out of a task file of Super-NaturalInstructions: its `Instances`.

Each becomes a row with `id`, `input`, `output` (the first of the right answers) and `outputs` (all
of them); `tasks.imports.natural_instructions` reads the phrasings of the same file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from instil.data.readers.rowfile import Faults, PlacedRow, RowFile, excerpt
from instil.data.readers.textfile import reading_text
from instil.errors import DataError, Problem


def read_natural(file: RowFile) -> Iterator[PlacedRow]:
    """Read the instances.

    Raises:
        DataError: for a file that is no such JSON, and for instances without input or output.
    """
    with reading_text(file.path, encoding=file.encoding, place=file.place) as stream:
        text = stream.read()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"this is not JSON: {error}", where=file.place) from error
    instances = content.get("Instances") if isinstance(content, dict) else None
    if not isinstance(instances, list):
        what = "this is no task of Super-NaturalInstructions: it has no list of `Instances`"
        raise DataError(what, where=file.place, fix="name another `format`")
    faults = Faults(file.place, file.bad)
    for number, instance in enumerate(instances, start=1):
        place, outputs = f"{file.place} instance {number}", []
        if isinstance(instance, dict) and {"input", "output"} <= instance.keys():
            output = instance["output"]
            outputs = [str(each) for each in (output if isinstance(output, list) else [output])]
        if not outputs:
            what = "an instance needs an `input` and an `output`"
            faults.add(Problem(what, where=place, found=excerpt(str(instance))))
        elif not faults.count:
            id, text = str(instance.get("id", number)), instance["input"]
            yield place, {"id": id, "input": text, "output": outputs[0], "outputs": outputs}
    faults.done(rows=len(instances), fix="correct the instance, or take it out of the file")
