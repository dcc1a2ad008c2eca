"""The model card: `README.md` of `model/`, with the front matter that the model hub reads.

`model-index` is left out: its results refer to data sets of the hub, which a user's rows are not.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence

from instil import format as fmt
from instil.compare.kept import guard_claims, mean_claim, mean_of_several
from instil.config.methods import METHODS
from instil.report.parts import verdict_word
from instil.report.sections.guard import guard_outcomes
from instil.report.sections.keeping import keeping_lines
from instil.results.run import RunSummary
from instil.results.tasks import TaskResult
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
_USAGE = "How to use it"
_ASK = "Ask in the words that it was trained with; `report.html` shows every template."


def model_card(summary: RunSummary, *, manifest: Mapping[str, object]) -> str:
    """Return the text of the model card.

    Args:
        summary: Every figure of the run.
        manifest: The contents of `manifest.json`. Read where they are there: `versions`, and the
            `licence` and `source` of each task under `data`.
    """
    tasks = ", ".join(f"{plain(task.task)} ({plain(task.kind)})" for task in summary.tasks)
    tuning = METHODS[summary.training.method]
    how = f"with {tuning.word}" if tuning.adapter else "in full"
    kept = [text for line in keeping_lines(summary) for text in ("", plain(line))]
    licence = plain(summary.model_licence) or "not stated"
    sections = {
        "Verdict": [f"- {plain(sentence)}" for sentence in summary.verdict],
        "Results on test": _results(summary.tasks),
        "What was forgotten": [*_forgetting(summary), *kept],
        _USAGE: _usage(summary, adapted=_is_adapter(summary)),
        "Training data": _data(summary.tasks, manifest),
        "Training": _training(summary, manifest),
        "Limits": [
            "The figures hold for rows like the test rows, asked in the templates of the run. They "
            "say nothing of other languages, other subjects, or answers that no template asks for.",
            "",
            f"Licence of the base model: {licence}. The rows have licences of their own (above); "
            "whoever passes this model on has to keep to both.",
        ],
    }
    parts = [_front_matter(summary), f"# {plain(summary.name)}", ""]
    parts.append(f"{plain(summary.model)}, fine-tuned {how} on {tasks}.\n")
    for title, lines in sections.items():
        parts += [f"## {title}", "", *lines, ""] if lines else []
    return "\n".join(parts)


def converted_card(
    card: str, summary: RunSummary, *, library: str, commands: Sequence[str] = ()
) -> str:
    """Return a run's card for its model in another form: only how it is loaded is another.

    Args:
        card: As it lies beside the run's model; what was written into it by hand stays.
        summary: Every figure of the run.
        library: What reads that form, in the hub's word.
        commands: Shell commands that serve it; none: transformers load it, whole.
    """
    usage = _usage_by(summary, commands) if commands else _usage(summary, adapted=False)
    section = "\n".join([f"## {_USAGE}", "", *usage, "", ""])
    card = re.sub(r"(?m)^library_name: .*$", f"library_name: {library}", card, count=1)
    return re.sub(rf"(?ms)^## {_USAGE}$.*?(?=^## |\Z)", lambda _: section, card, count=1)


def _is_adapter(summary: RunSummary) -> bool:
    """Whether PEFT's files lie beside the card, which need the base model; else the whole model."""
    return METHODS[summary.training.method].adapter and summary.pruning is None


def plain(text: str) -> str:
    r"""Return `text` as one line of Markdown that reads as it stands.

    >>> plain("a | b <script>")
    'a \\| b \\<script\\>'
    """
    line = " ".join(visible(text).split())
    # A number before a full stop would begin a list: the stop is what has to be escaped.
    return _MARKS.sub(lambda m: f"{m[0]}\\" if m[0][-1].isdigit() else f"\\{m[0]}", line)


def _front_matter(summary: RunSummary) -> str:
    from ruamel.yaml import YAML

    adapted, licence = _is_adapter(summary), summary.model_licence
    known = licence.strip().lower()
    known = _NAMED_LICENCES.get(known, known)
    # The hub knows an identifier, or `other` with the name as given.
    fields: dict[str, object] = {"license": known if known in _LICENCES else "other"}
    if known not in _LICENCES:
        fields["license_name"] = visible(licence).strip() or "not stated"
    if _HUB_ID.fullmatch(summary.model):
        fields["base_model"] = summary.model
    fields["library_name"] = "peft" if adapted else "transformers"
    fields["pipeline_tag"] = "text-generation"
    kinds = (re.sub(r"[^a-z0-9]+", "-", task.kind.lower()).strip("-") for task in summary.tasks)
    trained = METHODS[summary.training.method].adapter
    method = summary.training.method if trained else "full-fine-tuning"
    fields["tags"] = list(dict.fromkeys(["instil", "instruct", method, *filter(None, kinds)]))
    yaml, text = YAML(), io.StringIO()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 10_000
    yaml.dump(fields, text)
    return f"---\n{text.getvalue()}---\n"


def _results(tasks: Sequence[TaskResult]) -> list[str]:
    lines: list[str] = []
    for task in tasks:
        count = fmt.plural(task.rows.get(Part.TEST, 0), "test row")
        lines += [f"{plain(task.task)}, {count}; in brackets the 95 % interval:", ""]
        metrics = list(dict.fromkeys(name for arm in task.arms for name in arm.summaries))
        head = ["Arm", *(fmt.style(metric).label for metric in metrics), "Tuned minus this arm"]
        rows = []
        for arm in task.arms:
            means = (arm.summaries.get(metric) for metric in metrics)
            figures = [fmt.interval(mean) if mean else fmt.MISSING for mean in means]
            against = task.against(arm.name)
            change = fmt.change_with_interval(against) if against else fmt.MISSING
            rows.append([arm.label, *figures, change])
        lines += [*_table(head, rows), ""]
    return lines[:-1]


def _forgetting(summary: RunSummary) -> list[str]:
    if not summary.forgetting:
        return ["Forgetting was not measured."]
    shown, margins = guard_outcomes(summary.forgetting), summary.margins
    said = guard_claims(summary.forgetting, margins)
    rows = [
        [
            guard.task,
            fmt.style(guard.comparison.metric).label,
            fmt.interval(guard.before),
            fmt.interval(guard.after),
            fmt.change_with_interval(guard.comparison),
            "; ".join(filter(None, [verdict_word(outcome, subject="after is"), claim])),
        ]
        for guard, outcome, claim in zip(summary.forgetting, shown, said, strict=True)
    ]
    if several := mean_of_several(summary.forgetting):
        mean, tasks = several
        change, claim = fmt.change_with_interval(mean), mean_claim(mean, margins)
        label = fmt.style(mean.metric).label
        rows.append([f"mean of {tasks}", label, fmt.MISSING, fmt.MISSING, change, claim])
    return _table(["Task", "Metric", "Before", "After", "Difference", "Reading"], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    body = ["| " + " | ".join(map(plain, row)) + " |" for row in (head, *rows)]
    return [body[0], "|" + " --- |" * len(head), *body[1:]]


def _messages(summary: RunSummary) -> list[tuple[str, str]]:
    """Return what the model is asked: a task and its messages as JSON, Python too as all are texts.

    The template and no row: a card is made to be published, the rows need not be.
    """
    asked: dict[str, list[dict[str, str]]] = {}
    for turn in summary.turns:
        if turn.role is Role.ANSWER:
            said = [{"role": each.role, "content": each.content} for each in turn.wording]
            asked.setdefault(turn.task, said)
    unknown = [{"role": "user", "content": "..."}]
    # ASCII keeps whatever the texts hold inside its quotes.
    return [(task, json.dumps(m or unknown, indent=4)) for task, m in (asked or {"": []}).items()]


def _other_tasks(summary: RunSummary) -> list[str]:
    lines = []
    for task, messages in _messages(summary)[1:]:
        lines += ["", f"For {plain(task)} the messages are:", "", *_fenced("json", [messages])]
    return lines


def _fenced(language: str, lines: Sequence[str]) -> list[str]:
    ticks = re.findall("`+", "\n".join(lines))
    fence = "`" * max(3, 1 + max(map(len, ticks), default=0))
    return [f"{fence}{language}", *lines, fence]


def _usage_by(summary: RunSummary, commands: Sequence[str]) -> list[str]:
    longest = max(task.max_new_tokens for task in summary.tasks)
    return [
        *_fenced("bash", commands),
        "",
        f"{_ASK} As the messages of a request, at temperature 0 and with at most {longest} tokens "
        "to come; in place of what stands in {{ }}, your own text:",
        "",
        *_fenced("json", [_messages(summary)[0][1]]),
        *_other_tasks(summary),
    ]


def _usage(summary: RunSummary, *, adapted: bool) -> list[str]:
    longest = max(task.max_new_tokens for task in summary.tasks)
    loading = [f"model = {_PLAIN}(folder)"]
    if adapted:
        on_hub = "/" in summary.model and _HUB_ID.fullmatch(summary.model)
        base = summary.model if on_hub else "PATH/OF/THE/BASE/MODEL"
        loading = [
            f"base = {_PLAIN}({json.dumps(base)})",
            "model = PeftModel.from_pretrained(base, folder)",
        ]
    code = [
        *(["from peft import PeftModel"] if adapted else []),
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'folder = "."  # where this card lies',
        *loading,
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "# in place of what stands in {{ }}: your own text",
        f"messages = {_messages(summary)[0][1]}",
        "inputs = tokenizer.apply_chat_template(",
        '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True',
        ")",
        f"output = model.generate(**inputs, max_new_tokens={longest})",
        'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], '
        "skip_special_tokens=True))",
    ]
    lines = [_ASK]
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
    return [*lines, "", *_fenced("python", code), *_other_tasks(summary)]


def _data(tasks: Sequence[TaskResult], manifest: Mapping[str, object]) -> list[str]:
    head = ["Task", "Kind", "Train", "Validation", "Test", "Licence of the rows", "Source"]
    known = _mapping(manifest.get("data"))
    rows = []
    for task in tasks:
        facts = _mapping(known.get(task.task))
        counts = [fmt.count(task.rows.get(part, 0)) for part in Part]
        origin = [str(facts.get(name) or "not stated") for name in ("licence", "source")]
        rows.append([task.task, task.kind, *counts, *origin])
    lines = _table(head, rows)
    for task in tasks:
        if task.labels:
            pairs = (f"{plain(value)} = {plain(word)}" for value, word in task.labels.items())
            lines += ["", f"Labels of {plain(task.task)} in the data: {', '.join(pairs)}."]
    return lines


def _training(summary: RunSummary, manifest: Mapping[str, object]) -> list[str]:
    training = summary.training
    share = fmt.percent(training.trainable_share)
    versions = _mapping(manifest.get("versions"))
    lines = [
        f"- {fmt.parameters(training.trainable_parameters)} weights trained ({share} of the model)",
        *(f"- {plain(fmt.without_adapter(each))}" for each in training.left_out),
        f"- {fmt.count(training.steps)} steps, {fmt.fixed(training.epochs, 2)} epochs; "
        f"the weights of step {fmt.count(training.best_step)} were kept, by validation",
        f"- peak learning rate {fmt.learning_rate(training.learning_rate)}, "
        f"{plain(training.number_format)}, seed {summary.seed}",
        f"- loss on the completion alone, {fmt.count(training.supervised_tokens)} tokens",
        f"- {fmt.seconds(training.seconds)}, {fmt.size(training.peak_memory_bytes)} of memory",
    ]
    if versions:
        named = ", ".join(f"{plain(name)} {plain(str(each))}" for name, each in versions.items())
        lines.append(f"- made with {named}")
    return lines


def _mapping(value: object) -> Mapping[str, object]:
    return {str(key): each for key, each in value.items()} if isinstance(value, Mapping) else {}
