"""Shards kept as files, so that a run that was killed goes on with those that it has.

A file's name is a digest of all that its tokens follow from: the rows and templates, the length
policy, the tokenizer and its chat template, the code that renders and encodes, and the versions of
the libraries below it. So a file is never that of other rows, and one that is not found is made
again. It is written under another name first, and holds a digest of itself: what a crash or a disk
has damaged counts as not found. It holds numbers and JSON alone, no pickles.

Tests: `tests/encode/test_kept.py`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from functools import cache
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from instil.encode.shard import Encoder, MixCounts, Shard
from instil.encode.store import Numbers, Store
from instil.files import write_whole

_BELOW = ("jinja2", "transformers", "tokenizers")


class Kept:
    """A folder of shards."""

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        """Keep in `folder`, which need not exist, what `encoder` makes."""
        self.folder = folder
        self._before = _digest(_code(), *_facts(encoder))

    def path(self, asked: bytes) -> Path:
        """Return where the shard of some pickled items lies, or would lie."""
        return self.folder / f"{_digest(self._before, asked)}.safetensors"

    def load(self, asked: bytes) -> Shard | None:
        """Return the shard of some pickled items; None where it is not there, or not whole."""
        try:
            with safe_open(self.path(asked), "np") as file:
                notes = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in ("ids", "mask", "ends")}
        except (OSError, SafetensorError):
            return None
        told = notes.get("told", "")
        if notes.get("digest") != _digest(told.encode(), *map(_bytes, arrays.values())):
            return None
        content = json.loads(told)
        store = Store.of(content["store"], **arrays)
        return Shard(store, MixCounts.of(content["counts"]))

    def save(self, asked: bytes, shard: Shard) -> None:
        """Keep the shard of some pickled items; one with rows at fault is not kept."""
        if shard.faults:
            return
        told, arrays = shard.store.parts()
        content = json.dumps({"store": told, "counts": shard.counts.parts()})
        digest = _digest(content.encode(), *map(_bytes, arrays.values()))
        whole = save(arrays, metadata={"told": content, "digest": digest})
        write_whole(self.path(asked), whole)


def _facts(encoder: Encoder) -> list[bytes]:
    """All that tokens follow from, but for the rows; the same in every process."""
    chat = encoder.chat
    facts = (
        (encoder.max_length, str(encoder.too_long)),
        (chat.stop_id, chat.plain, chat.rules, chat.holds, chat.anchors, chat.by_line, chat.ending),
        (chat.encoder_decoder, chat.decoder_start, chat.special.pattern),
        (chat.tokenizer.chat_template, sorted(chat.tokenizer.special_tokens_map.items())),
    )
    return [chat.tokenizer.backend_tokenizer.to_str().encode(), *(repr(f).encode() for f in facts)]


@cache
def _code() -> bytes:
    """The source that renders and encodes, and the versions of what it calls."""
    package = Path(__file__).parents[1]
    files = (p for name in ("data", "encode", "tasks") for p in (package / name).rglob("*.py"))
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _BELOW]
    sources = [file.read_bytes() for file in sorted(files)]
    return _digest(*sources, *(version.encode() for version in versions)).encode()


def _bytes(array: Numbers) -> bytes:
    return array.tobytes()


def _digest(*parts: bytes | str) -> str:
    """Return a digest of parts, each with its length before it."""
    whole = hashlib.blake2b(digest_size=20)
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode()
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()
