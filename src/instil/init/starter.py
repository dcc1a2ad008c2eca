"""The two files that `instil init` writes: a task and a recipe, with comments.

The task file says where the rows are, which field is what, and how the model is asked. The recipe
says what to do with it; its sizes are fitted to the number of rows, and what it leaves out has the
recipe's defaults.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from ruamel.yaml.comments import CommentedMap

from instil.config.yamlwriter import comment, dump_yaml
from instil.data.columns import counted, tokens
from instil.data.readers.sqlrows import SQLITE, parse_sqlite
from instil.data.sources.archive import MEMBER
from instil.data.sources.uri import HUB, is_public
from instil.errors import DataError, Problem
from instil.files import write_whole
from instil.init.guesses import REWRITES, Kind, holds_objects, name_words
from instil.init.inspect import Guess, Wishes, inspect_table
from instil.init.labels import is_filled, listable
from instil.init.wording import free_text_kind, templates
from instil.tasks.template import spelt
from instil.types import OnBadRow, SourceSpec

_TEST_SHARE, _MOST_TEST = 0.25, 300
_VALIDATION_SHARE, _MOST_VALIDATION = 0.15, 150
_MOST_TRAIN = 600
_LENGTHS = (256, 512, 1024)
_LONGEST_ANSWER = 512
_TRAIN_A_CLASS, _TEST_A_CLASS = 20, 4
_JSON_WORD = 5  # tokens between two blanks of JSON; SmolLM2's tokenizer makes 3 to 5
_HOW_TO_CALL = 200  # tokens that a chat template says of tools, about
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_LONGEST_NAME = 100  # characters, of the 255 bytes that most file systems allow
_RESERVED = frozenset(
    ["CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))]
)
"""Names of devices under Windows, with any ending."""
TASK_ENDING, RECIPE_ENDING = ".task.yaml", ".recipe.yaml"
_LONG_TEXT = 250  # words; five of these and the question would fill a small model's context


@dataclass(frozen=True, slots=True)
class Sizes:
    """Rows of each part."""

    train: int | None
    """None: all that the others leave over."""
    validation: int
    """Rows to choose on."""
    test: int
    """Rows to judge on."""


@dataclass(frozen=True, slots=True)
class Starter:
    """What was written."""

    guess: Guess
    """What the rows seem to be."""
    task_file: Path
    """The task."""
    recipe_file: Path
    """The recipe that trains on it."""


def write_starter(
    data: str | Path,
    *,
    folder: Path,
    wishes: Wishes,
    name: str | None = None,
    model: str = "smollm2-135m-instruct",
    encoding: str = "utf-8",
    on_bad_row: OnBadRow = OnBadRow.ERROR,
    overwrite: bool = False,
) -> Starter:
    """Look at a file of rows and write `NAME.task.yaml` and `NAME.recipe.yaml`.

    Args:
        data: The rows: a path, or an address such as `hub:owner/name` or `sqlite:shop.db`.
        folder: Where the two files go.
        wishes: Columns that the user names.
        name: Of the task, and so of the two files; by default the data file's.
        model: The recipe's base model.
        encoding: Of a text file of rows.
        on_bad_row: What becomes of rows that cannot be used.
        overwrite: Whether files that exist are written over.

    Raises:
        DataError: The rows cannot be used, a file exists, or the name cannot be a file's.
    """
    data = str(data)
    task_file, recipe_file = starter_files(data, folder=folder, name=name)
    existing = [file for file in (task_file, recipe_file) if file.exists()]
    if existing and not overwrite:
        fix = "add --force to write over it, or --name another"
        raise DataError(*(Problem("this exists already", where=str(f), fix=fix) for f in existing))
    source = SourceSpec(uri=data, encoding=encoding, on_bad_row=on_bad_row)
    guess = inspect_table(source, wishes=wishes)
    id = task_file.name.removesuffix(TASK_ENDING)
    task = task_yaml(guess, id=id, source=replace(source, uri=_from(folder, data)))
    recipe = recipe_yaml(guess, task=task_file.name, model=model)
    write_whole(task_file, task.encode())
    write_whole(recipe_file, recipe.encode())
    return Starter(guess, task_file, recipe_file)


def starter_files(data: str | Path, *, folder: Path, name: str | None = None) -> tuple[Path, Path]:
    """Return the task file and the recipe that `write_starter` writes.

    Raises:
        DataError: The name cannot be a file's.
    """
    id = task_id(_file_name(str(data))) if name is None else _plain_name(name)
    return folder / f"{id}{TASK_ENDING}", folder / f"{id}{RECIPE_ENDING}"


def task_id(name: str) -> str:
    """Make a task's id of a file's name.

    >>> task_id("My Reviews (2024).csv.gz"), task_id("---.csv")
    ('My_Reviews_2024', 'task')
    """
    stem = name.split(".")[0] if not name.startswith(".") else name
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-")[:_LONGEST_NAME] or "task"


def _plain_name(name: str) -> str:
    """Return the task's id of a name that the user gives: not a path, nothing a system reserves."""
    plain = re.sub(r"\s+", "_", name.strip())
    reserved = plain.split(".")[0].upper() in _RESERVED
    if not _NAME.fullmatch(plain) or reserved or len(plain) > _LONGEST_NAME:
        raise DataError(
            "this cannot be a task's name",
            where="--name",
            found=name or "an empty name",
            allowed=f"letters, digits, _ and -, {_LONGEST_NAME} at most"
            + (", and no name that Windows keeps for a device" if reserved else ""),
            fix="say where the files go by --folder" if "/" in name or "\\" in name else "",
        )
    return plain


def _parted(data: str) -> tuple[str, str, str]:
    """Part an address into its scheme, a local path, and what follows the path."""
    if data.startswith(SQLITE):
        path, _ = parse_sqlite(data)
        return SQLITE, path, data.removeprefix(SQLITE + path)
    if data.startswith(HUB):
        path, mark, options = data.removeprefix(HUB).partition("?")
        return HUB, path, mark + options
    path, mark, member = data.partition(MEMBER)
    return "", path, mark + member


def _file_name(data: str) -> str:
    """The name of what holds the rows: the last part of its path.

    >>> _file_name("hub:owner/imdb@main?split=train"), _file_name("x.zip!/sub/rows.csv")
    ('imdb', 'rows.csv')
    """
    scheme, path, more = _parted(data)
    path = path.partition("@")[0] if scheme == HUB else path
    return Path(more if more.startswith(MEMBER) else path).name


def _from(folder: Path, data: str) -> str:
    """Write the way from the task file to the rows, or the whole path where they are elsewhere."""
    scheme, name, more = _parted(data)
    if is_public(data):
        return data
    whole = Path(os.path.expanduser(name)).resolve()
    path = os.path.relpath(whole, folder.resolve())
    if path.startswith(".."):
        return f"{scheme}{whole}{more}"
    return f"{scheme}{'./' if scheme == HUB else ''}{path}{more}"


def plan_sizes(rows: int, *, classes: int) -> Sizes:
    """Share out the rows: a quarter tests, about a seventh validates, the rest trains.

    Many classes have more rows: 20 of each train, and 4 test.

    >>> plan_sizes(300, classes=2), plan_sizes(5000, classes=5)
    (Sizes(train=None, validation=45, test=75), Sizes(train=600, validation=150, test=300))
    >>> plan_sizes(20_000, classes=150)
    Sizes(train=3000, validation=300, test=600)
    """
    test = min(max(_MOST_TEST, _TEST_A_CLASS * classes), round(_TEST_SHARE * rows))
    wanted = max(round(_VALIDATION_SHARE * rows), min(2 * classes, rows // 5))
    validation = min(max(_MOST_VALIDATION, 2 * classes), wanted)
    most = max(_MOST_TRAIN, _TRAIN_A_CLASS * classes)
    train = most if rows - test - validation > 1.5 * most else None
    return Sizes(train, validation=validation, test=test)


def task_yaml(guess: Guess, *, id: str, source: SourceSpec) -> str:
    """Write the task file.

    Args:
        guess: What the rows are.
        id: The task's name.
        source: Where the rows are, counted from the task file.
    """
    task = CommentedMap()
    task["id"] = id
    kind = Kind.CLASSES if guess.kind is Kind.WRITTEN else guess.kind
    task["kind"] = free_text_kind(guess) if kind is Kind.FREE_TEXT else str(kind)
    task["description"] = f"{guess.target.name} of {guess.text.name} in {_file_name(source.uri)}"
    _say(task, "licence", "not stated", "The licence of the rows; it goes into the model's card.")
    own = {"uri": source.uri}
    if source.encoding != "utf-8":
        own["encoding"] = source.encoding
    if source.on_bad_row is not OnBadRow.ERROR:
        own["on_bad_row"] = str(source.on_bad_row)
    where = own if len(own) > 1 else source.uri
    _say(task, "source", where, "Where the rows are, from this file's folder.")
    _say(task, "text", guess.text_field, "The field that the model reads.")
    _say(task, "target", guess.target_field, "The field that holds the right answer.")
    if guess.history:
        text = "The field with the turns before the text, each with a role and its content."
        _say(task, "history", guess.history, text)
        text = "Which of the assistant's turns are trained on: all, or the last alone."
        _say(task, "train_on", "all", text)
    if guess.tools:
        text = "The field with the functions that the model may call, as JSON schemas."
        _say(task, "tools", guess.tools.name, text)
    if guess.calls:
        text = "The field with the calls that the right answer makes."
        _say(task, "calls", guess.calls, text)
    if guess.fields:
        notes = "; ".join(guess.labels.notes if guess.labels else ())
        text = f"Fields computed from the columns{': ' if notes else ''}{notes}."
        _say(task, "fields", dict(guess.fields), text)
    _add_answers(task, guess)
    conditions = list(guess.labels.where) if guess.labels else []
    if guess.labels is None and guess.target.empty:
        conditions = [is_filled(guess.target)]
    if conditions:
        text = "Rows for which this does not hold are left out, and counted in the report."
        _say(task, "where", " and ".join(f"({each})" for each in conditions), text)
    if guess.group:
        absent = ' | default("")' if guess.group.absent else ""
        text = "Rows with the same value are all trained on or all tested on: no leaks."
        _say(task, "group", spelt(guess.group.name) + absent, text)
    _say(task, "templates", templates(guess), _TEMPLATES_HELP)
    columns = ", ".join(" ".join(column.split()) for column in guess.columns)
    header = f"A task: rows, and how a model is asked about them. Columns of the rows: {columns}."
    return dump_yaml(task, header=header)


_TEMPLATES_HELP = (
    'How the model is asked, in Jinja2 with the columns by name (row["A b"] where a name has '
    "blanks).\nRoles: answer (the default) is the task's own question, and judged; auxiliary "
    "another question about the row; inverted leads from the answer back to the text. Which of "
    "them are trained on says `templates` in the recipe."
)


def _say(mapping: CommentedMap, key: str, value: object, text: str, *, indent: int = 0) -> None:
    mapping[key] = value
    comment(mapping, key, text, indent=indent)


def _add_answers(task: CommentedMap, guess: Guess) -> None:
    """Add what may be answered, and how an answer is judged."""
    labels = guess.labels
    if labels:
        if labels.words:
            words = {  # a whole number stands without quotes, where it reads back the same
                int(value) if re.fullmatch(r"0|-?[1-9][0-9]{0,8}", value) else value: word
                for value, word in labels.words.items()
            }
            text = "Value in the data -> the word that stands for it in prompts and answers, in"
            _say(task, "labels", words, f"{text} order.")
        else:
            text = "All values of the target, in order; a template may list another wording of"
            _say(task, "choices", list(labels.choices), f"{text} them.")
        ordered = guess.kind is Kind.RATING
        also = "; within_one would also count a rating that is one off" if ordered else ""
        _say(task, "metric", "accuracy", f"The metric that decides{also}.")
        return
    metric = "token_f1" if guess.target.mean_words <= 5 else "rougeL"
    metric = {"translation": "chrf", "entities": "token_f1"}.get(free_text_kind(guess), metric)
    # ROUGE hears no mistake of grammar, case or signs, and JSON is right or wrong.
    metric = "chrf" if REWRITES & {*name_words(guess.target.name)} else metric
    objects = holds_objects(guess.target)
    metric = "exact_match" if guess.kind is Kind.WRITTEN or objects else metric
    text = "How alike answer and target are; also exact_match, token_f1, rouge1, rouge2, chrf,"
    _say(task, "metric", metric, f"{text} bleu.")
    calls = _JSON_WORD * guess.target.words_at(0.95) if guess.calls or objects else 0
    longest = min(_LONGEST_ANSWER, max(16, calls + 8, guess.target.tokens_at(0.95) + 8))
    _say(task, "max_new_tokens", longest, "Longest answer to generate, in tokens.")


def recipe_yaml(guess: Guess, *, task: str, model: str) -> str:
    """Write the recipe.

    Args:
        guess: What the rows are.
        task: The task file, counted from the recipe.
        model: The base model.
    """
    classes = len(guess.labels.choices) if guess.labels else 1
    sizes = plan_sizes(guess.rows, classes=classes)
    recipe = CommentedMap()
    _say(recipe, "model", model, "A name from `instil models`, a folder (./name), or a hub id.")
    use = {"use": f"./{task}", "train": sizes.train, "templates": "auto"}
    text = (
        "train: rows to train on; null takes all that validation and test leave over.\n"
        "templates: auto trains on one wording for each 1000 rows where there are choices, and "
        "judges the others too; all trains on all of them."
    )
    _say(recipe, "tasks", [use], text)
    _say(recipe, "method", "lora", "lora trains small adapters; full trains every weight.")
    text = "Rows that prompts and checkpoints are chosen on, and rows that judge once, at the end."
    _say(recipe, "validation", sizes.validation, text)
    recipe["test"] = sizes.test
    train, baselines = CommentedMap(), CommentedMap()
    train["learning_rate"] = "auto"
    text = "How often every row is seen; auto: 2, or more where the rows are few."
    _say(train, "num_train_epochs", "auto", text, indent=2)
    text = "Tokens of an example, prompt and answer."
    _say(train, "max_length", _max_length(guess), text, indent=2)
    text = "A longer example has its longest field cut; error and drop are the other ways."
    _say(train, "too_long", "shorten", text, indent=2)
    _say(recipe, "train", train, "The training; what is not named is automatic.")
    long = _words(guess) > _LONG_TEXT
    text = "Worked examples in the prompt" + ("; few, for the texts are long." if long else ".")
    _say(baselines, "shots", [0, 1] if long else [0, 1, 5], text, indent=2)
    _say(recipe, "baselines", baselines, "What tuning has to beat, on the same rows.")
    text = "What the model should still know: guard tasks of other kinds, before and after."
    _say(recipe, "forgetting", {"tasks": "guard", "rows": 50}, text)
    header = (
        "A recipe: what to train, and what to compare it with. Next: `instil check`, then `instil "
        "run`. The run's own recipe.yaml lists every key with its default."
    )
    return dump_yaml(recipe, header=header)


def _words(guess: Guess) -> int:
    """Return the words of text and answer that 95 % of the rows do not exceed."""
    answer = 0 if guess.labels else guess.target.words_at(0.95)
    return guess.measured.words_at(0.95) + answer


def _max_length(guess: Guess) -> int:
    """Return a length that nearly all examples fit, and a prompt around them.

    Choices that the prompt lists stand in it as well, a line each in one template, and so do
    functions that a model may call, with the chat template's words on how to call them.
    """
    tools = _JSON_WORD * guess.tools.words_at(0.95) + _HOW_TO_CALL if guess.tools else 0
    choices = guess.labels.choices if guess.labels else ()
    listed = 0
    if listable(choices):
        for choice in choices:
            words, unspaced = counted(choice)
            listed += 3 + tokens(choice, words=words, unspaced=unspaced)
    answer = 0 if guess.labels else guess.target.tokens_at(0.95)
    wanted = guess.measured.tokens_at(0.95) + answer + listed + tools + 80
    return next((length for length in _LENGTHS if wanted <= length), _LENGTHS[-1])
