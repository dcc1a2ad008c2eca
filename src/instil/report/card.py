"""The model card: `README.md` of `model/`, with the front matter that the model hub reads.

`model-index` is left out: its results refer to data sets of the hub, which a user's rows are not.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

from instil import format as fmt
from instil.report.parts import verdict_word
from instil.report.sections.guard import guard_outcomes
from instil.report.sections.keeping import keeping_lines
from instil.results import Arm, RunSummary, TaskResult
from instil.sanitize import visible
from instil.types import Part, Role

# Licence identifiers of the hub's documentation that models are published under.
_LICENCES = frozenset(
    "apache-2.0 mit openrail bsd bsd-2-clause bsd-3-clause cc cc0-1.0 cc-by-2.0 cc-by-3.0 "
    "cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-sa-4.0 "
    "cc-by-nc-nd-4.0 cc-by-nd-4.0 gpl-2.0 gpl-3.0 agpl-3.0 lgpl-3.0 mpl-2.0 isc unlicense zlib "
    "artistic-2.0 bigscience-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m gemma llama2 "
    "llama3 llama3.1 llama3.2 llama3.3 llama4 odc-by odbl pddl".split()
)
_NAMED_LICENCES = {"gemma terms of use": "gemma", "apache license 2.0": "apache-2.0"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_MARKS = re.compile(r"[\\`*\[\]<>|~$&]|(?<!\w)_|_(?!\w)|^(?:[-+](?=[\s-]|$)|[#=]|\d+(?=[.)]\s))")

_PLAIN = "AutoModelForCausalLM.from_pretrained"


class Form(StrEnum):
    """What lies in the folder beside the card."""

    ADAPTER = "adapter"
    """PEFT's files, which need the base model."""
    WEIGHTS = "weights"
    """The whole model."""


def model_card(summary: RunSummary, *, manifest: Mapping[str, object]) -> str:
    """Return the text of the model card.

    Args:
        summary: Every figure of the run.
        manifest: The contents of `manifest.json`. Read where they are there: `versions`, and the
            `licence` and `source` of each task under `data`.
    """
    form = Form.ADAPTER if summary.training.method == "lora" else Form.WEIGHTS
    parts = [
        _front_matter(summary, form),
        _opening(summary),
        _section("Verdict", [f"- {plain(sentence)}" for sentence in summary.verdict]),
        _section("Results on test", _results(summary.tasks)),
        _section("What was forgotten", [*_forgetting(summary), *_keeping(summary)]),
        _section("How to use it", _usage(summary, form)),
        _section("Training data", _data(summary.tasks, manifest)),
        _section("Training", _training(summary, manifest)),
        _section("Limits", _limits(summary)),
    ]
    return "\n".join(part for part in parts if part)


def plain(text: str) -> str:
    r"""Return `text` as one line of Markdown that reads as it stands.

    >>> plain("a | b <script>")
    'a \\| b \\<script\\>'
    """
    line = " ".join(visible(text).split())
    return _MARKS.sub(lambda found: _escaped(found.group()), line)


def _escaped(mark: str) -> str:
    # A number before a full stop would begin a list: the stop is what has to be escaped.
    return f"{mark}\\" if mark[-1].isdigit() else f"\\{mark}"


def _front_matter(summary: RunSummary, form: Form) -> str:
    from ruamel.yaml import YAML

    adapted = form is Form.ADAPTER
    fields: dict[str, object] = dict(_licence(summary.model_licence))
    if _HUB_ID.fullmatch(summary.model):
        fields["base_model"] = summary.model
    fields["library_name"] = "peft" if adapted else "transformers"
    fields["pipeline_tag"] = "text-generation"
    kinds = (re.sub(r"[^a-z0-9]+", "-", task.kind.lower()).strip("-") for task in summary.tasks)
    method = "lora" if summary.training.method == "lora" else "full-fine-tuning"
    fields["tags"] = list(dict.fromkeys(["instil", "instruct", method, *filter(None, kinds)]))
    yaml, text = YAML(), io.StringIO()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 10_000
    yaml.dump(fields, text)
    return f"---\n{text.getvalue()}---\n"


def _licence(name: str) -> dict[str, str]:
    """Return the hub's licence fields: a known identifier, or `other` with the name as given."""
    known = _NAMED_LICENCES.get(name.strip().lower(), name.strip().lower())
    if known in _LICENCES:
        return {"license": known}
    return {"license": "other", "license_name": visible(name).strip() or "not stated"}


def _opening(summary: RunSummary) -> str:
    tasks = ", ".join(f"{plain(task.task)} ({plain(task.kind)})" for task in summary.tasks)
    how = "with LoRA" if summary.training.method == "lora" else "in full"
    return f"# {plain(summary.name)}\n\n{plain(summary.model)}, fine-tuned {how} on {tasks}.\n"


def _section(title: str, lines: Iterable[str]) -> str:
    body = "\n".join(lines)
    return f"## {title}\n\n{body}\n" if body else ""


def _results(tasks: Sequence[TaskResult]) -> list[str]:
    lines: list[str] = []
    for task in tasks:
        rows = fmt.plural(task.rows.get(Part.TEST, 0), "test row")
        lines += [f"{plain(task.task)}, {rows}; in brackets the 95 % interval:", ""]
        metrics = list(dict.fromkeys(name for arm in task.arms for name in arm.summaries))
        head = ["Arm", *(fmt.style(metric).label for metric in metrics), "Tuned minus this arm"]
        lines += [*_table(head, [_arm_cells(task, arm, metrics) for arm in task.arms]), ""]
    return lines[:-1]


def _arm_cells(task: TaskResult, arm: Arm, metrics: Sequence[str]) -> list[str]:
    found = (arm.summaries.get(metric) for metric in metrics)
    figures = [fmt.interval(each) if each else fmt.MISSING for each in found]
    comparison = task.against(arm.name)
    if comparison is None:
        return [arm.label, *figures, fmt.MISSING]
    return [
        arm.label,
        *figures,
        fmt.change_with_interval(comparison),
    ]


def _forgetting(summary: RunSummary) -> list[str]:
    if not summary.forgetting:
        return ["Forgetting was not measured."]
    shown = guard_outcomes(summary.forgetting)
    rows = [
        [
            guard.task,
            fmt.style(guard.comparison.metric).label,
            fmt.interval(guard.before),
            fmt.interval(guard.after),
            fmt.change_with_interval(guard.comparison),
            verdict_word(outcome, subject="after is"),
        ]
        for guard, outcome in zip(summary.forgetting, shown, strict=True)
    ]
    return _table(["Task", "Metric", "Before", "After", "Difference", "Reading"], rows)


def _keeping(summary: RunSummary) -> list[str]:
    return [text for line in keeping_lines(summary) for text in ("", plain(line))]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    body = ["| " + " | ".join(map(plain, row)) + " |" for row in (head, *rows)]
    return [body[0], "|" + " --- |" * len(head), *body[1:]]


def _usage(summary: RunSummary, form: Form) -> list[str]:
    adapted = form is Form.ADAPTER
    turn = next((turn for turn in summary.turns if turn.role is Role.ANSWER), None)
    # The template and no row: a card is made to be published, the rows need not be.
    asked = turn.wording if turn else ()
    messages = [{"role": each.role, "content": each.content} for each in asked]
    # JSON of texts alone is Python too, and ASCII keeps whatever the texts hold inside its quotes.
    said = json.dumps(messages or [{"role": "user", "content": "..."}], indent=4)
    code = [
        *(["from peft import PeftModel"] if adapted else []),
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'folder = "."  # where this card lies',
        *(_loading_adapter(summary) if adapted else [f"model = {_PLAIN}(folder)"]),
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "# in place of what stands in {{ }}: your own text",
        f"messages = {said}",
        "inputs = tokenizer.apply_chat_template(",
        '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True',
        ")",
        "output = model.generate(**inputs, max_new_tokens=48)",
        'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], '
        "skip_special_tokens=True))",
    ]
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", said)), default=0))
    lines = ["Ask in the words that it was trained with; `report.html` shows every template."]
    if adapted:
        lines.append(
            f"The adapter needs its base model, {plain(summary.model)}. "
            "`instil export --merge` writes one model that needs neither that nor PEFT."
        )
    if adapted and summary.training.quantize:
        lines.append(
            "It was trained and judged on that base in 4 bits (bitsandbytes, "
            f"{plain(summary.training.quantize)}, double quantisation): load it so, or merge it."
        )
    return [*lines, "", f"{fence}python", *code, fence]


def _loading_adapter(summary: RunSummary) -> list[str]:
    """Return the code that loads the base model and puts the adapter on it."""
    on_hub = "/" in summary.model and _HUB_ID.fullmatch(summary.model)
    base = summary.model if on_hub else "PATH/OF/THE/BASE/MODEL"
    return [
        f"base = {_PLAIN}({json.dumps(base)})",
        "model = PeftModel.from_pretrained(base, folder)",
    ]


def _data(tasks: Sequence[TaskResult], manifest: Mapping[str, object]) -> list[str]:
    head = ["Task", "Kind", "Train", "Validation", "Test", "Licence of the rows", "Source"]
    known = _mapping(manifest.get("data"))
    rows = []
    for task in tasks:
        facts = _mapping(known.get(task.task))
        counts = [fmt.count(task.rows.get(part, 0)) for part in Part]
        origin = [str(facts.get(name) or "not stated") for name in ("licence", "source")]
        rows.append([task.task, task.kind, *counts, *origin])
    return [*_table(head, rows), *_label_words(tasks)]


def _label_words(tasks: Sequence[TaskResult]) -> Iterator[str]:
    """Say which word the model answers for which value of the data."""
    for task in tasks:
        if task.labels:
            pairs = (f"{plain(value)} = {plain(word)}" for value, word in task.labels.items())
            yield from ("", f"Labels of {plain(task.task)} in the data: {', '.join(pairs)}.")


def _training(summary: RunSummary, manifest: Mapping[str, object]) -> list[str]:
    training = summary.training
    share = fmt.percent(training.trainable_share)
    versions = _mapping(manifest.get("versions"))
    lines = [
        f"- {fmt.parameters(training.trainable_parameters)} weights trained ({share} of the model)",
        *(f"- {plain(fmt.without_adapter(each))}" for each in training.left_out),
        f"- {fmt.count(training.steps)} steps, {fmt.fixed(training.epochs, 2)} epochs; "
        f"the weights of step {fmt.count(training.best_step)} were kept, by validation",
        f"- peak learning rate {training.learning_rate:.3g}, {plain(training.number_format)}, "
        f"seed {summary.seed}",
        f"- loss on the completion alone, {fmt.count(training.supervised_tokens)} tokens",
        f"- {fmt.seconds(training.seconds)}, {fmt.size(training.peak_memory_bytes)} of memory",
    ]
    if versions:
        named = ", ".join(f"{plain(name)} {plain(str(each))}" for name, each in versions.items())
        lines.append(f"- made with {named}")
    return lines


def _limits(summary: RunSummary) -> list[str]:
    licence = plain(summary.model_licence) or "not stated"
    return [
        "The figures hold for rows like the test rows, asked in the templates of the run. They say "
        "nothing of other languages, other subjects, or answers that no template asks for.",
        "",
        f"Licence of the base model: {licence}. The rows have licences of their own (above); "
        "whoever passes this model on has to keep to both.",
    ]


def _mapping(value: object) -> Mapping[str, object]:
    return {str(key): each for key, each in value.items()} if isinstance(value, Mapping) else {}
