"""Tasks of Super-NaturalInstructions (Wang et al. 2022): one JSON file, its definition as prompt.

    {"Definition": ["Say whether the review is positive or negative."],
     "Positive Examples": [{"input": "I like it.", "output": "positive", "explanation": "..."}],
     "Instances": [{"id": "task1-7", "input": "It broke.", "output": ["negative"]}]}

The phrasings are those of the paper (section 4.2, as Tk-Instruct was trained): the definition
alone, and the definition with one or two of the positive examples. `data.readers.natural` reads the
instances as rows with `input`, `output`, `outputs` and `id`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from instil.config.yamlfile import read_text
from instil.errors import TaskError
from instil.tasks.imports.wording import Wording, literal

SHOWN = (0, 1, 2)
"""Positive examples in the prompt, one phrasing each."""
INPUT, OUTPUT = "input", "output"
ORIGIN, LICENCE = "Super-NaturalInstructions", "Apache-2.0"


def read_natural_instructions(path: Path, *, name: str) -> list[Wording]:
    """Read the phrasings of a task file.

    Args:
        path: The JSON file, or a folder of them.
        name: In a folder: which one, such as `task1312_amazonreview_polarity_classification`.

    Raises:
        TaskError: No such file, no JSON, or no `Definition`.
    """
    file = path / f"{name.removesuffix('.json')}.json" if path.is_dir() else path
    text = read_text(file, error=TaskError)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as bad:
        raise TaskError(f"this is not JSON: {bad}", where=str(file)) from None
    parts = content.get("Definition") if isinstance(content, dict) else None
    definition = "\n".join(map(str, parts if isinstance(parts, list) else [parts or ""])).strip()
    if not definition:
        what = "this is no task of Super-NaturalInstructions: it has no `Definition`"
        raise TaskError(what, where=str(file))
    examples = content.get("Positive Examples")
    listed = examples if isinstance(examples, list) else []
    shown = [e for e in listed if isinstance(e, Mapping) and {INPUT, OUTPUT} <= e.keys()]
    return [_wording(definition, shown[:count]) for count in SHOWN if count <= len(shown)]


def _wording(definition: str, shown: list[Mapping[str, object]]) -> Wording:
    parts = [literal(definition)]
    for number, example in enumerate(shown, start=1):
        pair = f"Input: {_first(example[INPUT])}\nOutput: {_first(example[OUTPUT])}"
        parts.append(literal(f"Positive example {number}\n{pair}"))
    ask = "Now complete the following example\n" if shown else ""
    parts.append(ask + "Input: {{ input }}\nOutput:")
    name = f"definition_{len(shown)}_examples" if shown else "definition"
    return Wording(name, "\n\n".join(parts), "", origin=ORIGIN, licence=LICENCE)


def _first(value: object) -> str:
    return str(value[0] if isinstance(value, list) and value else value).strip()
