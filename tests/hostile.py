"""A table of bad inputs, made: each is one command line in a folder, with the exit code it ends in.

Six areas: recipes, tasks, data, models, command lines and fuzzing. A case makes its files itself,
in a folder that already holds a recipe, a task and rows that are right.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import shutil
import sqlite3
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from instil.config.recipe import Recipe

MISTAKE = frozenset({2})
ANY = frozenset({0, 2})
"""Where some of what is tried is rightly taken."""
ESCAPES = "\x1b[31m\x1b]0;title\x07\u202e\u200f[red]"

WORDS = "the a it is was very good bad great poor phone book film plot screen sound".split()
TASK = """
id: moods
kind: sentiment
cluster: sentiment
description: Made-up reviews.
licence: CC0-1.0
source: moods.csv
text: text
target: mood
choices: [positive, negative]
templates:
  - {id: ask, prompt: "Is it positive or negative?\\n{{ text }}", target: "{{ mood }}"}
  - {id: write, role: inverted, prompt: "Write a {{ mood }} review.", target: "{{ text }}"}
"""
RECIPE = """
model: MODEL
tasks: [{use: ./moods.yaml}]
train: {num_train_epochs: 0.1}
validation: 12
test: 12
baselines: {shots: [0, 1], tfidf: false}
forgetting: {tasks: none}
"""


@dataclass(frozen=True)
class Case:
    """A bad input."""

    area: str
    name: str
    arguments: tuple[str, ...]
    prepare: Callable[[Path], object] = lambda folder: None
    codes: frozenset[int] = MISTAKE

    @property
    def id(self) -> str:
        return ascii(f"{self.area}: {self.name}")[1:-1][:90]


def lay_out(folder: Path, *, model: Path) -> None:
    """Write a recipe, a task and rows that are right."""
    draw = random.Random(3)
    lines = [
        f"{' '.join(draw.choices(WORDS, k=9))},{('positive', 'negative')[n % 2]}" for n in range(80)
    ]
    (folder / "moods.csv").write_text("text,mood\n" + "\n".join(lines) + "\n", "utf-8")
    (folder / "moods.yaml").write_text(TASK, "utf-8")
    (folder / "recipe.yaml").write_text(RECIPE.replace("MODEL", str(model)), "utf-8")


def table() -> list[Case]:
    """All cases."""
    return [*recipes(), *tasks(), *data(), *models(), *command_lines(), *fuzzing()]


def written(name: str, text: str | bytes) -> Callable[[Path], object]:
    """Return what writes a file into a case's folder."""
    content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return lambda folder: (folder / name).write_bytes(content)


# --- recipes -----------------------------------------------------------------------------------


def keys(schema: dict, prefix: str = "") -> Iterator[str]:
    """Name the keys of a recipe that hold values."""
    for name, inner in schema["properties"].items():
        section = inner.get("$ref", "").rpartition("/")[2]
        if section and "properties" in DEFINITIONS[section]:
            yield from keys(DEFINITIONS[section], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


SCHEMA = Recipe.model_json_schema()
DEFINITIONS = SCHEMA["$defs"]
LAUGHS = "a: &a [x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
TEXTS = {
    "empty": "",
    "a list": "[1, 2]",
    "a text": "hello",
    "a number": "42",
    "null": "null",
    "nothing but a comment": "# hello",
    "two documents": "a: 1\n---\nb: 2\n",
    "tabs": "model:\n\tx: 1\n",
    "a tag": "model: !!python/object/apply:os.system [id]\n",
    "laughs": LAUGHS,
    "itself": "model: &a [*a]\n",
    "an unknown alias": "model: *a\n",
    "deep brackets": "model: " + "[" * 1500 + "]" * 1500,
    "deep mappings": "\n".join(" " * n + "a:" for n in range(300)),
    "many keys": "\n".join(f"k{n}: 1" for n in range(100_000)),
    "a long text": "model: " + "x" * 2_000_000,
    "a zero byte": "model: a\0b\n",
    "a surrogate": "model: \ud800\n",
    "escapes as key": json.dumps({ESCAPES: 1}),
    "escapes as value": json.dumps({"model": ESCAPES}),
    "twice": "model: a\nmodel: b\n",
    "a long number": "seed: " + "9" * 9999,
    "a long hex number": "seed: 0x" + "f" * 9999,
    "infinite": "train: {learning_rate: .inf}",
    "not a number": "train: {learning_rate: .nan}",
    "a late date": "model: 9999-12-31 23:59:59 -1:00\n",
    "no date": "model: 2001-99-99\n",
    "bad base64": "model: !!binary a\n",
    "bad escape": 'model: "\\U11111111"\n',
    "a list as key": "? [a]\n: 1\n",
    "a merge of text": "<<: a\n",
    "a quote": 'model: "a\n',
    "an anchor": "&\n",
    "a directive": "%YAML 9.9\n---\nmodel: a\n",
    "json with comma": '{"model": "a",}}\n',
}  # fmt: skip
BYTES = {
    "utf-16": RECIPE.encode("utf-16"),
    "latin-1": "model: caf\u00e9\n".encode("latin-1"),
    "zip": b"PK\x03\x04" + bytes(range(256)),
    "gzip": gzip.compress(RECIPE.encode()),
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "all bytes": bytes(range(256)) * 9,
}
CHANGES = [
    "seed=&a [*a]", "tasks.\u00b2.train=3", "tasks.-1.train=3", "tasks.9.train=3",
    "tasks.x.train=3",
    "tasks.99999999999999999999.train=3", "=", "=1", "a", ".", "..=1", "seed", "seed.=1", ".seed=1",
    "seed=", "seed=[", "seed={", 'seed="', "seed='", "seed=*a", "seed=!!int x", "seed=-1",
    f"seed={2**32}", f"seed={'9' * 5000}", "seed=1e400", "seed=.nan", "seed=\0", "seed=\x1b[31m",
    "\x1b[31m=1", "model=", "model=\0", "model=\x1b[31m", "model=./\x1b[31m", "model=..", "model=/",
    "model=/dev/null", "model=/dev/zero", "model=/proc/self", "model=a/b/c", "model=hub:x",
    "model=./moods.csv", f"model={'x' * 5000}", "tasks=[]", "tasks=[{use: ./nope.yaml}]",
    "tasks=[{use: .}]", "tasks=[{use: ./recipe.yaml}]", "tasks=[{use: ./moods.csv}]", "tasks=null",
    "tasks=[{use: /dev/zero}]", "tasks=[{use: ''}]", "tasks=[{use: './a\0b.yaml'}]",
    'tasks=[{use: "\\x1b[31m"}]', "tasks=[{use: moodz}]", "mix.examples=1000000000000",
    f"mix.examples={10**400}", "mix.temperature=1e-300", "mix.temperature=0", "tasks.0.weight=.inf",
    "tasks.0.weight=1e308", "tasks.0.train=0", "tasks.0.train=99999999999", "validation=99999999",
    "validation=0", "test=1", "train.num_train_epochs=1e9", "train.num_train_epochs=.inf",
    "train.num_train_epochs=0", "train.max_length=0", "train.max_length=99999999999999",
    "train.tokens_per_batch=0", "train.micro_batch_tokens=1", "train.learning_rate=2",
    "train.learning_rate=.nan", "train.weight_decay=.inf", "train.max_grad_norm=-1",
    "lora.r=0", "lora.r=99999", "lora.lora_alpha=-1", "lora.target_modules=[nope]",
    "lora.target_modules=[]", "lora.target_modules=['.*(']", "device=cuda:99", "device=toaster",
    "dtype=float8", "method=magic", "quantize=1bit", "chat_template=nope",
    "chat_template=/dev/zero", "chat_template=moods.csv", "system=loud", "thinking=maybe",
    "baselines.templates=[nope]", "baselines.shots=[]", "baselines.shots=[99]",
    "baselines.shots=[-1]", "forgetting.tasks=[nope]", "forgetting.tasks=[./nope.yaml]",
    "forgetting.rows=0", "keep.interpolate=2", "keep.kl=.inf", "output=\0",
]  # fmt: skip


def recipes() -> Iterator[Case]:
    for name, text in {**TEXTS, **BYTES}.items():
        yield Case("recipes", name, ("check", "recipe.yaml"), written("recipe.yaml", text))
    for change in CHANGES:
        yield Case("recipes", change, ("check", "recipe.yaml", "--set", change))
    for key in keys(SCHEMA):
        for value in ("{zz: 1}", "[[[]]]", "&a [*a]"):
            yield Case(
                "recipes", f"{key}={value}", ("check", "recipe.yaml", "--set", f"{key}={value}")
            )


# --- tasks -------------------------------------------------------------------------------------

BOMBS = [
    "{% for i in range(1000) %}{% for j in range(1000) %}x{% endfor %}{% endfor %}",
    "{% for i in range(1000000000) %}x{% endfor %}",
    "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{% set b = text %}" + "{% set b = b ~ b %}" * 60 + "{{ b }}",
    "{% set b = text %}" + "{% set b = b + b %}" * 60 + "{{ b }}",
    "{% set b = [text] %}" + "{% set b = [b, b] %}" * 60 + "{{ b | tojson }}",
    "{% set b = 9 %}" + "{% set b = b * b %}" * 60 + "{{ b }}",
    "{% set b = text %}" + "{% set b = b | replace('', b) %}" * 9 + "{{ b }}",
    "{% set b = text %}" + "{% set b = b | list | join(b) %}" * 9 + "{{ b }}",
    "{% set b = text %}" + "{% set b = b.translate({97: b, 101: b}) %}" * 30 + "{{ b }}",
    "{{ text * 1000000000 }}", "{{ 10 ** 10 ** 10 }}", "{{ '%1000000000d' % 1 }}",
    "{{ text.center(1000000000) }}", "{{ text | center(1000000000) }}", "{{ text.format(1) }}",
    "{{ (1).to_bytes(1000000000) }}", "{{ range(10 ** 9) | sum }}",
    "{{ text | round(99999999999) }}",
    "{{ 1 / 0 }}", "{{ text.__class__ }}", "{{ text.__class__.__mro__[1].__subclasses__() }}",
    "{% include '/etc/passwd' %}", "{% import 'os' as os %}", "{% extends 'x' %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{{ self }}", "{{ config }}", "{{ nope }}",
    "{{ text | nope }}", "{{ text", "{% if %}", "{% endfor %}", "{{ text | attr('__class__') }}",
    "{{ row }}", "{{ mood }} {{ text }}", "", " ", "constant", "{{ text | sort }}", "{{ [text] }}",
    "{{ '" + ESCAPES + "' | nope }}", "{{ " + "(" * 3000 + "text" + ")" * 3000 + " }}",
    "{% if text %}" * 300 + "x" + "{% endif %}" * 300, "{{ text }}" + "x" * 2_000_000,
    "{{ text | truncate('x') }}", "{{ text | float }}", "{{ text.encode('utf-8') }}",
    "{{ text | first_words('x') }}", "{{ text[1000000] }}", "{{ text | tojson | int }}",
]  # fmt: skip


SHOWN = [  # prompts that hold the answer
    "{% for k, v in row.items() %}{{ k }}: {{ v }}{% endfor %}", "{{ row.values() | join }}",
    "{% for k in row %}{{ row[k] }}{% endfor %}", "{% set r = row %}{{ r.mood }}{{ text }}",
    "{{ text }}{{ row.get('mood') }}", "{{ text }} {{ hint }}", "{{ text }} {{ hint | first }}",
    "{{ text }} {{ choices.index(hint) }}", "{{ text }}{% if hint == 'positive' %}!{% endif %}",
    "{{ text }} {{ all }}",
]  # fmt: skip


def _task(**changes: object) -> str:
    """Return the task with other values, as JSON, which is YAML."""
    whole: dict[str, object] = {
        "id": "moods", "kind": "sentiment", "cluster": "sentiment", "description": "Made-up.",
        "licence": "CC0-1.0", "source": "moods.csv", "text": "text", "target": "mood",
        "choices": ["positive", "negative"],
        "templates": [
            {"id": "ask", "prompt": "Is it good?\n{{ text }}", "target": "{{ mood }}"},
        ],
    }  # fmt: skip
    return json.dumps({**whole, **changes})


def _template(**changes: str) -> list[dict[str, str]]:
    return [{"id": "ask", "prompt": "Good?\n{{ text }}", "target": "{{ mood }}", **changes}]


_TASK_KEYS = ("id", "kind", "source", "text", "target", "choices", "templates", "licence")


def tasks() -> Iterator[Case]:
    def case(name: str, text: str | bytes, codes: frozenset[int] = MISTAKE) -> Case:
        return Case("tasks", name, ("check", "recipe.yaml"), written("moods.yaml", text), codes)

    for number, bomb in enumerate(BOMBS):
        yield case(f"prompt {number} {bomb[:40]}", _task(templates=_template(prompt=bomb)))
    for prompt in SHOWN:
        fields = {"hint": "mood | string", "all": "row.values() | join"}
        yield case(f"shown {prompt}", _task(templates=_template(prompt=prompt), fields=fields))
    for number, bomb in enumerate(BOMBS[:34]):
        if "text" in bomb or number > 18:
            inner = bomb.removeprefix("{{").removesuffix("}}")
            plain = inner.strip() in ("self", "text")  # an expression like any other
            codes = ANY if plain else MISTAKE
            yield case(f"where {number} {bomb[:40]}", _task(where=inner), codes)
    for key in _TASK_KEYS:
        for value in ({"zz": 1}, [[[]]], None, 7.5, ESCAPES, "\0"):
            free = key in ("kind", "licence") and isinstance(value, str)
            codes = ANY if free else MISTAKE
            yield case(f"{key} {value!r}", _task(**{key: value}), codes)
    for name in ("no texts", "itself", "laughs", "deep brackets", "many keys", "utf-16", "png"):
        text = {**TEXTS, **BYTES}.get(name, "id: moods\n")
        yield case(name, text)
    for uri in (
        "nope.csv", "", ".", "/", "/dev/zero", "/dev/stdin", "/proc/self/mem", "a\0b", "..",
        "~nobody/x",
        "moods.csv!/x", "moods.csv!/../x", "zip:x", "http://x/y.csv", "pip:x", "hub:", "hub:./nope",
        "made:", "made:nope", "npm:x", "sqlite:", "sqlite:moods.csv", "x" * 5000,
        ESCAPES, "moods.yaml",
    ):  # fmt: skip
        yield case(f"source {uri}", _task(source=uri))
    for encoding in (
        "",
        "nope",
        "\0",
        "rot13",
        "zlib",
        "utf-16",
        "utf-7",
        ESCAPES,
        "idna",
        "ascii,\0",
    ):
        made = {"uri": "bytes.csv", "encoding": encoding}
        rows = "text,mood\ncaf\u00e9,positive\n".encode("latin-1")
        yield Case(
            "tasks", f"encoding {encoding}", ("check", "recipe.yaml"),
            lambda folder, made=made, rows=rows: (
                (folder / "moods.yaml").write_text(_task(source=made), "utf-8"),
                (folder / "bytes.csv").write_bytes(rows),
            ),
        )  # fmt: skip


# --- data and init -----------------------------------------------------------------------------

CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "blanks": b" \n \n",
    "a header": b"text,label\n",
    "zero bytes": bytes(5000),
    "all bytes": bytes(range(256)) * 20,
    "brackets": b"[" * 100_000,
    "braces": b'{"a":' * 100_000,
    "a quote": b'text,label\n"a,b\n' + b"c,d\n" * 50,
    "ragged": b"text,label\na\nb,c,d\n" + b"e,f\n" * 20,
    "twice": b"text,text\na,b\nc,d\n",
    "ragged escapes": f"text,{ESCAPES}\n{ESCAPES}\n".encode(),
    "escapes in json": b'{"a\\u001b[31m": \n',
    "a zero byte": b"text,label\n" + b"a,b\n" * 30 + b"c\0,d\n",
    "half a character": b"text,label\n\xe4\xb8,x\n",
    "a surrogate": b'[{"text": "\\ud800", "label": "a"}]',
    "a long number": b"[" + b"9" * 5000 + b"]",
    "not finite": b'[{"text": 1e999, "label": NaN}]',
    "numbers": b"[1, 2, 3]",
    "a text": b'"hello"',
    "null": b"null",
    "one row": b'[{"text": "a", "label": "b"}]',
    "parquet's mark": b"PAR1" + bytes(100) + b"PAR1",
    "arrow's mark": b"ARROW1\0\0" + bytes(100) + b"ARROW1",
    "sqlite's mark": b"SQLite format 3\0" + bytes(200),
    "zip's mark": b"PK\x03\x04" + bytes(100),
    "gzip's mark": b"\x1f\x8b\x08\0" + bytes(100),
    "a cut gzip": gzip.compress(b"text,label\na,b\n" * 999)[:60],
    "a pickle": b"\x80\x04\x95\x0c\0\0\0\0\0\0\0\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
}
ENDINGS = (
    "csv tsv json jsonl parquet arrow xlsx xls ods db zip tar.gz csv.gz json.xz mo txt".split()
)


def _bomb(folder: Path) -> None:
    with gzip.open(folder / "bomb.csv.gz", "wb", compresslevel=9) as packed:
        for _ in range(100):
            packed.write(b"text,label\n" + bytes(1 << 20))


def _zip_bomb(folder: Path) -> None:
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.csv", bytes(100 << 20))


def _bad_names(folder: Path) -> None:
    with zipfile.ZipFile(folder / "names.zip", "w") as archive:
        for name in ("../x.csv", f"{ESCAPES}.csv", "/etc/x.csv"):
            archive.writestr(name, "text,label\na,b\n")


def _cut(folder: Path) -> None:
    """Archives and packed files without their end."""
    rows = "text,label\n" + "".join(f"{n} {random.Random(n).random()},a\n" for n in range(999))
    for mode in ("gz", "bz2", "xz"):
        with tarfile.open(folder / f"cut.tar.{mode}", f"w:{mode}") as archive:
            for name in ("a.csv", "b.csv"):
                info = tarfile.TarInfo(name)
                info.size = len(rows)
                archive.addfile(info, io.BytesIO(rows.encode()))
        whole = (folder / f"cut.tar.{mode}").read_bytes()
        (folder / f"cut.tar.{mode}").write_bytes(whole[:-4])
        packed = {"gz": gzip, "bz2": bz2, "xz": lzma}[mode].compress(rows.encode())
        (folder / f"cut.csv.{mode}").write_bytes(packed[:-4])


def _database(folder: Path) -> None:
    with sqlite3.connect(folder / "x.db") as database:
        database.execute("CREATE TABLE t (text, label)")
        database.execute(f"CREATE TABLE '{ESCAPES}' (a)")
    database.close()


def _sparse(folder: Path) -> None:
    with (folder / "sparse.csv").open("wb") as file:
        file.truncate(1 << 34)


def data() -> Iterator[Case]:
    for content, made in CONTENTS.items():
        for ending in ENDINGS:
            yield Case(
                "data",
                f"{content}.{ending}",
                ("init", f"x.{ending}"),
                written(f"x.{ending}", made),
                ANY
                if content in ("one row", "ragged", "surrogate") or ending == "txt"
                else MISTAKE,
            )
    more: list[tuple[str, Callable[[Path], object], tuple[str, ...]]] = [
        ("a gzip bomb", _bomb, ("bomb.csv.gz",)),
        ("a zip bomb", _zip_bomb, ("bomb.zip",)),
        ("a zip bomb's member", _zip_bomb, ("bomb.zip!/rows.csv",)),
        ("a sparse file", _sparse, ("sparse.csv",)),
        ("names that lead elsewhere", _bad_names, ("names.zip!/../x.csv",)),
        ("names with escapes", _bad_names, ("names.zip!/y.csv",)),
        ("a database of several tables", _database, ("sqlite:x.db",)),
        ("a query that writes", _database, ("sqlite:x.db?query=DROP TABLE t",)),
        ("a query that attaches", _database, ("sqlite:x.db?query=ATTACH 'y.db' AS y",)),
        ("a query that is none", _database, (f"sqlite:x.db?query={ESCAPES}",)),
        ("no such column", lambda folder: None, ("moods.csv", "--label", "moodz")),
        ("one column twice", lambda folder: None, ("moods.csv", "--label=text", "--text=text")),
        *((f"a cut {name}", _cut, (name,)) for mode in ("gz", "bz2", "xz")
          for name in (f"cut.csv.{mode}", f"cut.tar.{mode}!/a.csv")),
        *((f"the name {name}", lambda folder: None, ("moods.csv", "--name", name))
          for name in ("", ".", "..", "/x", "a\\b", "con", "-x", "a.b", "x" * 999)),
        ("a name that leads elsewhere", lambda folder: None, ("moods.csv", "--name", "../x")),
        ("a name of escapes", lambda folder: None, ("moods.csv", "--name", ESCAPES)),
        ("a name with a zero byte", lambda folder: None, ("moods.csv", "--name", "a\0b")),
        ("a folder with a zero byte", lambda folder: None, ("moods.csv", "--folder", "a\0b")),
        ("a folder that is a file", lambda folder: None, ("moods.csv", "--folder", "moods.csv/x")),
        ("an encoding with a zero byte", lambda folder: None, ("moods.csv", "--encoding", "a\0b")),
        ("an unknown encoding", lambda folder: None, ("moods.csv", "--encoding", ESCAPES)),
        ("label words that are none", lambda folder: None, ("moods.csv", "--label-names", "=")),
    ]  # fmt: skip
    for name, prepare, arguments in more:
        yield Case("data", name, ("init", *arguments), prepare)


# --- models ------------------------------------------------------------------------------------


def _model(change: Callable[[Path], object]) -> Callable[[Path], object]:
    def prepare(folder: Path) -> None:
        recipe = (folder / "recipe.yaml").read_text("utf-8")
        model = Path(next(line for line in recipe.splitlines() if "model: " in line)[7:])
        shutil.copytree(model, folder / "model")
        change(folder / "model")

    return prepare


def _config(**changes: object) -> Callable[[Path], object]:
    def change(model: Path) -> None:
        path = model / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")

    return change


def _index(text: str) -> Callable[[Path], object]:
    """Put the weights into a part, and an index of it beside."""

    def change(model: Path) -> None:
        (model / "model.safetensors").rename(model / "part.safetensors")
        (model / "model.safetensors.index.json").write_text(text, "utf-8")

    return change


def _tensors(name: str, fill: float | None) -> Callable[[Path], object]:
    """Fill a tensor with one number, or take it out."""

    def change(model: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(model / "model.safetensors")
        if fill is None:
            del tensors[name]
        else:
            tensors[name].fill_(fill)
        save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})

    return change


def _header(header: bytes) -> Callable[[Path], object]:
    content = struct.pack("<Q", len(header)) + header
    return lambda model: (model / "model.safetensors").write_bytes(content)


def _replaced(name: str, content: bytes | None) -> Callable[[Path], object]:
    def change(model: Path) -> None:
        path = model / name
        path.unlink(missing_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)

    return change


def _linked(name: str, target: str) -> Callable[[Path], object]:
    def change(model: Path) -> None:
        (model / name).unlink(missing_ok=True)
        (model / name).symlink_to(target)

    return change


CHAT_TEMPLATES = [
    "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
    "{{ n.x }}",
    "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) ~ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
    "{{ 1 / 0 }}", "{% include 'x' %}", "{% import 'x' as y %}", "{% extends 'x' %}", "constant",
    "",
    "{{ messages.__class__ }}", "{{ ''.__class__.__mro__ }}", "{{ raise_exception('no') }}",
    "{{ '%1000000000d' % 1 }}", "{{ 'a' * 1000000000 }}", "{{ 2 ** 1000000000 }}", "{% for %}",
    "{{ '{:1000000000}'.format(1) }}", "{{ lipsum(1000000000) }}", "{{ nope.nope }}", "{{",
    "{% for m in messages %}{{ m.role }}: {{ m.content[:12] }}{% endfor %}",
    "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
    "{% for m in messages if m.role != 'user' %}{{ m.content }}{% endfor %}",
    "{{ raise_exception('" + ESCAPES + "') }}", "{{ messages[9].content }}", "\x00",
]  # fmt: skip


def models() -> Iterator[Case]:
    changes: dict[str, Callable[[Path], object]] = {
        "text_config is a list": _config(text_config=[]),
        "text_config is a text": _config(text_config="x"),
        "model_type is a list": _config(model_type=[]),
        "model_type is null": _config(model_type=None),
        "model_type is unknown": _config(model_type=ESCAPES),
        "hidden_size is a text": _config(hidden_size="x"),
        "hidden_size is negative": _config(hidden_size=-48),
        "hidden_size is a list": _config(hidden_size=[48]),
        "num_hidden_layers is a text": _config(num_hidden_layers="x"),
        "num_attention_heads is 0": _config(num_attention_heads=0),
        "vocab_size is a text": _config(vocab_size="x"),
        "max_position_embeddings is a text": _config(max_position_embeddings="x"),
        "hidden_size of another model": _config(hidden_size=64),
        "hidden_size is huge": _config(hidden_size=10**30),
        "heads of another model": _config(num_attention_heads=8),
        "num_key_value_heads is 0": _config(num_key_value_heads=0),
        "too many layers": _config(num_hidden_layers=3),
        "a million layers": _config(num_hidden_layers=10**6),
        "too few layers": _config(num_hidden_layers=1),
        "no layers": _config(num_hidden_layers=0),
        "vocab_size of another model": _config(vocab_size=300),
        "an unknown activation": _config(hidden_act=ESCAPES),
        "an unknown rope_type": _config(rope_parameters={"rope_type": "x", "rope_theta": 1.0}),
        "an unknown dtype": _config(dtype=ESCAPES),
        "unknown layer_types": _config(layer_types=[ESCAPES, "x"]),
        "a norm that gives NaN": _config(rms_norm_eps=-1e9),
        "model_type of images": _config(model_type="vit"),
        "model_type of an encoder": _config(model_type="bert"),
        "model_type of code": _config(model_type="mine", auto_map={"AutoConfig": "mine.Mine"}),
        "an unknown quantization": _config(quantization_config={"quant_method": ESCAPES}),
        "a quantization by name": _config(quantization_config={"quant_method": "gptq", "bits": 4}),
        "quantization is a list": _config(quantization_config=[1]),
        "generation config is a list": _replaced("generation_config.json", b"[]"),
        "an adapter for a model": _replaced("adapter_config.json", b"{}"),
        "weights with NaN": _tensors("model.layers.1.mlp.up_proj.weight", float("nan")),
        "weights with infinities": _tensors("model.norm.weight", float("inf")),
        "weights that lack a tensor": _tensors("model.layers.1.mlp.up_proj.weight", None),
        "index is no JSON": _index("{"),
        "index is deep": _index("[" * 99999),
        "index is a list": _index("[]"),
        "index is empty": _index('{"weight_map": {}}'),
        "index names what is gone": _index('{"weight_map": {"a": "gone.safetensors"}}'),
        "index leads out": _index('{"weight_map": {"a": "../part.safetensors"}}'),
        "index leads to /etc": _index('{"weight_map": {"a": "/etc/passwd"}}'),
        "index names escapes": _index(json.dumps({"weight_map": {"a": ESCAPES}})),
        "config is a list": _replaced("config.json", b"[]"),
        "config is a text": _replaced("config.json", b'"x"'),
        "config is empty": _replaced("config.json", b""),
        "config is binary": _replaced("config.json", bytes(range(256))),
        "config is deep": _replaced("config.json", b"[" * 99999),
        "config is a folder": _replaced("config.json", None),
        "config is a loop": _linked("config.json", "config.json"),
        "config leads nowhere": _linked("config.json", "gone"),
        "config is gone": lambda model: (model / "config.json").unlink(),
        "weights are a folder": _replaced("model.safetensors", None),
        "weights are empty": _replaced("model.safetensors", b""),
        "weights are a loop": _linked("model.safetensors", "model.safetensors"),
        "weights lead nowhere": _linked("model.safetensors", "gone"),
        "weights are a pointer": _replaced("model.safetensors", b"version https://git-lfs"),
        "weights are a pickle": _replaced("model.safetensors", CONTENTS["a pickle"]),
        "weights are zeros": _replaced("model.safetensors", bytes(9999)),
        "weights have a huge header": _replaced("model.safetensors", b"\xff" * 99),
        "weights' header is a list": _header(b"[]"),
        "weights' header is a number": _header(b"7"),
        "weights' header is no JSON": _header(b"{{{"),
        "weights' header is deep": _header(b"[" * 9999),
        "weights' header has a text": _header(b'{"a": "x"}'),
        "weights' header has bad offsets": _header(
            b'{"a": {"dtype": "F32", "shape": [9999999], "data_offsets": [0, 4]}}'
        ),
        "tokenizer is empty": _replaced("tokenizer.json", b""),
        "tokenizer is a list": _replaced("tokenizer.json", b"[]"),
        "tokenizer is binary": _replaced("tokenizer.json", bytes(range(256))),
        "tokenizer is a folder": _replaced("tokenizer.json", None),
        "tokenizer's config is a list": _replaced("tokenizer_config.json", b"[]"),
        "tokenizer's config is empty": _replaced("tokenizer_config.json", b""),
        "chat template is a folder": _replaced("chat_template.jinja", None),
        "chat template is binary": _replaced("chat_template.jinja", bytes(range(128, 256))),
        "chat template is a loop": _linked("chat_template.jinja", "chat_template.jinja"),
    }  # fmt: skip
    for number, template in enumerate(CHAT_TEMPLATES):
        changes[f"chat template {number} {template[:30]}"] = _replaced(
            "chat_template.jinja", template.encode()
        )
    # an empty template is none: the model is a base model then
    taken = {"chat template 10 ", "tokenizer's config is empty"}
    for name, change in changes.items():
        arguments = ("check", "recipe.yaml", "--set", "model=./model")
        codes = ANY if name in taken else MISTAKE
        yield Case("models", name, arguments, _model(change), codes)


# --- command lines -----------------------------------------------------------------------------


def _places(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    (folder / "gone").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    (folder / "empty").mkdir()
    (folder / "nothing").write_bytes(b"")


PLACES = [
    "nope", "a\0b", "loop", "gone", "pipe", "empty", "nothing", ".", "/", "/dev/zero", "/dev/null",
    "/proc/self/mem", "/proc/self/fd", "moods.csv/x", "x" * 5000, "", "~nobody/x", ESCAPES,
    "[red]x",
    "\udc80", "moods.csv",
]  # fmt: skip
COMMANDS: list[tuple[str, ...]] = [
    ("check", "{}"), ("preview", "{}"), ("run", "{}"), ("run", "--resume", "{}"), ("init", "{}"),
    ("report", "{}"), ("compare", "{}", "{}"), ("methods", "{}"), ("curve", "{}", "--sizes", "9"),
    ("sequence", "{}", "{}"), ("predict", "{}", "hello"), ("chat", "{}"), ("export", "{}", "out"),
    ("verify", "x", "--run", "{}"), ("gate", "{}", "--forgets", "1"), ("serve", "{}"),
    ("push", "{}", "a/b"), ("correct", "{}", "x", "y.csv"),
    ("correct", "moods.yaml", "{}", "y.csv"),
    ("tasks", "show", "{}"), ("tasks", "test", "{}"), ("tasks", "{}"),
]  # fmt: skip
LINES = [
    "", "nope", "--nope", "check", "check a b", "run", "report", "compare a", "predict",
    "predict a",
    "predict a b --rows c", "predict a --raw", "predict a b --out c", "export a", "chat",
    "export a b --format x", "export a b --quantize q9", "export a b --format gguf-lora",
    "verify", "verify a", "verify a --run", "verify a --run b --rows 1", "gate", "gate a",
    "gate a --min x", "gate a --min accuracy=x", "gate a --forgets -1", "gate a --forgets nan",
    "serve", "serve a --port 99999", "serve a --host 0.0.0.0", "serve a --host nope",
    "serve a --dtype int8", "push a", "push a b", "push a b/c/d", "push a ../b",
    "curve recipe.yaml --sizes 0", "curve recipe.yaml --sizes -1", "curve recipe.yaml --sizes x",
    "curve recipe.yaml --sizes 1,,x", f"curve recipe.yaml --sizes {'9' * 5000}",
    "curve recipe.yaml --sizes \u00b2", "curve recipe.yaml --seeds x",
    "methods recipe.yaml --arms nope",
    "methods recipe.yaml --seeds -1", f"methods recipe.yaml --seeds {'9' * 5000}",
    "sequence recipe.yaml", "tasks show", "tasks show amazon_reviews --rows 0",
    "tasks show amazon_reviews --rows 99999999999999999999", "tasks nope nope", "tasks test",
    "preview recipe.yaml -n 0", "preview recipe.yaml -n x", "preview recipe.yaml --html /proc/x",
    "preview recipe.yaml --html .", "preview recipe.yaml --html moods.csv/x",
    "run recipe.yaml --folder moods.csv", "run recipe.yaml --folder moods.csv/x",
    "run recipe.yaml --folder /proc/x", "run recipe.yaml --resume .",
    "init moods.csv --on-bad-row x", "ui nope", "ui moods.csv", "ui --port 99999", "ui . --port x",
    "correct", "correct a b", "correct moods.yaml moods.yaml y.csv", "correct recipe.yaml a b",
]  # fmt: skip


def command_lines() -> Iterator[Case]:
    for command in COMMANDS:
        for place in PLACES:
            arguments = tuple(part.format(place) if part == "{}" else part for part in command)
            taken = (command[0] == "init" and place == "moods.csv") or (
                command == ("tasks", "{}") and not place
            )
            codes = ANY if taken else MISTAKE
            yield Case(
                "command lines", f"{' '.join(command)} {place[:40]}", arguments, _places, codes
            )
    for line in LINES:
        codes = ANY if line in ("", "tasks") else MISTAKE
        yield Case("command lines", line[:60], tuple(line.split()), codes=codes)


# --- fuzzing -----------------------------------------------------------------------------------


def _mutated(text: bytes, draw: random.Random) -> bytes:
    """Change, take out, double or put in a few pieces."""
    made = bytearray(text)
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(made) + 1)
        end = min(len(made), at + draw.randint(0, 12))
        pieces = (b"", bytes(made[at:end]) * 2, bytes([draw.randrange(256)]), draw.choice(SIGNS))
        made[at:end] = draw.choice(pieces)
    return bytes(made)


SIGNS = [
    b"{{", b"}}", b"{%", b"%}", b"[", b"]", b"{", b"}", b":", b"- ", b"\n", b"\t",
    b'"', b"'", b"\0",
    b"&a ", b"*a", b"!!int ", b"|", b">", b"#", b",", b"\xff", b"\xe2\x80\xae", b"\x1b[31m",
    b"1e999",
    b"-1", b"null", b".nan", b"~", b"%", b"\r\n", b"\xef\xbb\xbf",
]  # fmt: skip
ROWS = {
    "moods.csv": ("text,mood\n" + "a good film,positive\na bad film,negative\n" * 12).encode(),
    "rows.jsonl": b'{"text": "a good film", "label": "x"}\n{"text": "bad", "label": "y"}\n' * 12,
    "rows.json": json.dumps([{"text": f"{n}", "label": "ab"[n % 2]} for n in range(24)]).encode(),
    "chat.jsonl": b'{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", '
    b'"content": "hello"}]}\n' * 12,
}  # fmt: skip


def fuzzing() -> Iterator[Case]:
    for seed in range(20):
        draw = random.Random(seed)
        recipe = RECIPE.replace("MODEL", "./nope")  # so that none is right, and none trains
        yield Case(
            "fuzzing", f"recipe {seed}", ("check", "recipe.yaml"),
            written("recipe.yaml", _mutated(recipe.encode(), draw)),
        )  # fmt: skip
        yield Case(
            "fuzzing", f"task {seed}", ("tasks", "show", "./moods.yaml"),
            written("moods.yaml", _mutated(TASK.encode(), draw)), ANY,
        )  # fmt: skip
        for name, rows in ROWS.items():
            yield Case(
                "fuzzing",
                f"{name} {seed}",
                ("init", name),
                written(name, _mutated(rows, draw)),
                ANY,
            )
