"""Requests batched as they come: one thread computes, all others wait for its pieces.

A *wave* is a batch that is read together and then gets a token at a time. Requests that come while
others are computed make a new wave, so that nobody waits for another's end; a row that has ended,
or whose client went away, leaves its wave. Where there are as many waves as allowed, requests queue
and begin together::

    a a a a|end
        b b b b b b|end        b and c came while a was computed: one wave
        c c c|gone

Tuned and base model are one set of weights where the run trained an adapter: it is switched off for
waves of the base model.

Tests: `tests/ship/test_server.py`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from instil.encode.chat_format import ChatFormat
from instil.errors import OutOfMemoryError
from instil.evaluate.choices import common_prefix
from instil.memory_limits import is_out_of_memory
from instil.model.engine.layout import rounded_count
from instil.model.engine.memory import Memory, read_batch, step_batch
from instil.model.engine.packed import next_logits
from instil.model.load import LoadedModel

WAVES = 4
"""Batches that are computed at the same time."""
ROWS = 64
"""Requests of a wave."""
TOKENS = 16_384
"""Tokens of a wave, the prompts' and the longest answers', of more than one request."""
_COLD = 1e-4
"""Temperatures below it are 0: the likeliest token."""
_UNFINISHED = "\ufffd"
"""What a tokenizer writes for half a character."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be continued, and how."""

    prompt: tuple[int, ...]
    """Token ids."""
    max_tokens: int
    """Longest answer."""
    model: str
    """Which of the engine's models."""
    temperature: float = 0.0
    """0: the likeliest token."""
    top_p: float = 1.0
    """Share of probability that tokens are drawn from."""
    seed: int | None = None
    """Of the draws; None: another one each time."""
    stops: tuple[str, ...] = ()
    """Texts that end the answer; they are no part of it."""
    top_logprobs: int | None = None
    """Likeliest tokens to tell beside each that was taken; None: no probabilities at all."""
    stripped: bool = True
    """Whether blanks around the answer are taken off, as predictions have it."""


@dataclass(frozen=True, slots=True)
class Told:
    """A token that was taken."""

    token: int
    """Its id."""
    logprob: float
    """Its log-probability."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens, each with its own."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer."""

    text: str
    """May be empty: half a character is held back."""
    tokens: int
    """Tokens taken since the last piece."""
    told: tuple[Told, ...] = ()
    """Their probabilities, where they are asked for."""
    finish: str = ""
    """`stop`, `length`, or `error` with the last piece."""


@dataclass(eq=False, slots=True)
class Job:
    """A request on its way."""

    request: Request
    """What is asked."""
    put: Callable[[Piece], None]
    """Called with each piece, in the engine's thread."""
    gone: threading.Event = field(default_factory=threading.Event)
    """Set by whoever no longer wants the answer."""


class Speech:
    """Tokens to text, piece by piece: no half characters, nothing behind a stop text."""

    def __init__(self, chat: ChatFormat, *, stops: Sequence[str], stripped: bool) -> None:
        self._decode = chat.tokenizer.decode
        self._stops, self._stripped = tuple(filter(None, stops)), stripped
        self._ids: list[int] = []
        self._from = self._read = 0
        self._held = ""
        self._begun = False
        self.stopped = False

    def add(self, token: int) -> str:
        """Take a token; return the text that is certain by now."""
        self._ids.append(token)
        before = self._decode(self._ids[self._from : self._read], skip_special_tokens=True)
        now = self._decode(self._ids[self._from :], skip_special_tokens=True)
        if now.endswith(_UNFINISHED):
            return ""
        self._from, self._read = self._read, len(self._ids)
        text = self._held + now[len(before) :]
        ends = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self.stopped, self._held = True, ""
            # The stop text complete first ends the answer, however tokens cut it.
            return self._out(text[: min(ends)[1]], last=True)
        # How much of the text's end may be the beginning of a stop text.
        parts = (stop[:n] for stop in self._stops for n in range(1, len(stop)))
        keep = max((len(part) for part in parts if text.endswith(part)), default=0)
        certain = text[: len(text) - keep]
        certain = certain.rstrip() if self._stripped else certain
        self._held = text[len(certain) :]
        return self._out(certain)

    def _out(self, text: str, *, last: bool = False) -> str:
        if self._stripped:
            text = text if self._begun else text.lstrip()
            text = text.rstrip() if last else text
        self._begun = self._begun or bool(text)
        return text

    def end(self) -> str:
        """Return what was held back."""
        rest = self._decode(self._ids[self._from :], skip_special_tokens=True)
        before = self._decode(self._ids[self._from : self._read], skip_special_tokens=True)
        text, self._held = self._held + rest[len(before) :], ""
        return self._out(text, last=True)


class Source(Protocol):
    """Rows that are continued together, as a model has them."""

    def logits(self) -> torch.Tensor:
        """Return what stands behind each row, (n, V)."""

    def take(self, tokens: torch.Tensor, going: Sequence[int]) -> None:
        """Go on with some rows, by their number, each with its token."""


class _Packed:
    """Rows in instil's own memory; their prompts' common beginning is read once."""

    def __init__(self, loaded: LoadedModel, prompts: Sequence[tuple[int, ...]], room: int) -> None:
        self.loaded = loaded
        shared = common_prefix(list(prompts)) if len(prompts) > 1 else 0
        prefix = self._read([prompts[0][:shared]], None, 0)[0] if shared else None
        own = [prompt[shared:] for prompt in prompts]
        self.memory, self._logits = self._read(own, prefix, room)

    def _read(
        self, prompts: Sequence[tuple[int, ...]], prefix: Memory | None, room: int
    ) -> tuple[Memory, torch.Tensor]:
        device = self.loaded.device
        memory = Memory([len(p) for p in prompts], prefix=prefix, room=room, device=device)
        batch = read_batch(memory, prompts, device=device)
        build = self.loaded.build
        return memory, next_logits(self.loaded.model, batch, build=build, memory=memory.read)

    def logits(self) -> torch.Tensor:
        return self._logits

    def take(self, tokens: torch.Tensor, going: Sequence[int]) -> None:
        if len(going) < len(tokens):
            self.memory.keep(going)
            tokens = tokens[list(going)]
        step = step_batch(self.memory, tokens)
        build = self.loaded.build
        self._logits = next_logits(self.loaded.model, step, build=build, memory=self.memory.step)
        self.memory.move_on()


class _Plain:
    """One row in transformers' own cache, for models that the memory gives other figures of."""

    def __init__(self, loaded: LoadedModel, prompts: Sequence[tuple[int, ...]], room: int) -> None:
        (prompt,) = prompts
        self.loaded = loaded
        self._cache: Any = None
        self._forward(torch.tensor([prompt], device=loaded.device))

    def _forward(self, ids: torch.Tensor) -> None:
        out = self.loaded.model(input_ids=ids, past_key_values=self._cache, use_cache=True)
        self._cache = out.past_key_values
        self._logits: torch.Tensor = out.logits[:, -1]

    def logits(self) -> torch.Tensor:
        return self._logits

    def take(self, tokens: torch.Tensor, going: Sequence[int]) -> None:
        self._forward(tokens[None])


@dataclass(slots=True)
class _Row:
    """A request in a wave."""

    job: Job
    speech: Speech
    draws: torch.Generator
    tokens: int = 0
    """Taken so far."""

    def choose(self, logits: torch.Tensor) -> tuple[int, tuple[Told, ...]]:
        """Take the next token; with its probabilities, where they are asked for."""
        request = self.job.request
        scores = logits.float()
        if request.temperature < _COLD:
            token = int(scores.argmax())
        else:
            shares = (scores / request.temperature).softmax(-1)
            ordered, places = shares.sort(descending=True)
            ordered[ordered.cumsum(0) - ordered > request.top_p] = 0.0
            drawn = torch.multinomial(ordered.cpu(), 1, generator=self.draws)
            token = int(places[int(drawn)])
        if request.top_logprobs is None:
            return token, ()
        logs = scores.log_softmax(-1)
        best = logs.topk(request.top_logprobs) if request.top_logprobs else None
        top = zip(best.indices.tolist(), best.values.tolist(), strict=True) if best else ()
        return token, (Told(token, float(logs[token]), tuple(top)),)


class _Wave:
    """Requests of one model that began together."""

    def __init__(self, loaded: LoadedModel, jobs: Sequence[Job], model: str) -> None:
        self.loaded, self.model = loaded, model
        self.stops = frozenset(loaded.chat.stop_ids)
        self.rows = []
        for job in jobs:
            how, draws = job.request, torch.Generator()
            if how.seed is None:
                draws.seed()
            else:
                draws.manual_seed(how.seed)
            speech = Speech(loaded.chat, stops=how.stops, stripped=how.stripped)
            self.rows.append(_Row(job, speech, draws))
        room = max(job.request.max_tokens for job in jobs)
        kind = _Packed if _fits(loaded, jobs[0].request) else _Plain
        self.source: Source = kind(loaded, [job.request.prompt for job in jobs], room)

    def advance(self) -> bool:
        """Take a token a row and hand the pieces out; return whether rows are left."""
        logits = self.source.logits()
        tokens, going = [], []
        for place, row in enumerate(self.rows):
            token = self._one(row, logits[place])
            tokens.append(0 if token is None else token)
            if token is not None:
                going.append(place)
        if not going:
            return False
        # Down to the next round number: every new shape costs oneDNN a compilation.
        if rounded_count(len(going)) == rounded_count(len(self.rows)):
            going = list(range(len(self.rows)))
        self.source.take(torch.tensor(tokens, device=self.loaded.device), going)
        self.rows = [self.rows[place] for place in going]
        return True

    def _one(self, row: _Row, logits: torch.Tensor) -> int | None:
        """Let one row go on; None where it has ended."""
        job = row.job
        if job.gone.is_set():
            return None
        try:
            token, told = row.choose(logits)
        except RuntimeError as error:  # no probabilities, where a model says what is no number
            _fail([job], error)
            return None
        row.tokens += 1
        if token in self.stops:
            job.put(Piece(row.speech.end(), 1, told, "stop"))
        else:
            text = row.speech.add(token)
            if row.speech.stopped:
                job.put(Piece(text, 1, told, "stop"))
            elif row.tokens >= job.request.max_tokens:
                job.put(Piece(text + row.speech.end(), 1, told, "length"))
            else:
                job.put(Piece(text, 1, told))
                return token
        job.gone.set()
        return None


class Engine:
    """Computes all requests in one thread.

    Args:
        models: Name -> model; two names may share weights, see `bases`.
        bases: Names whose adapter is switched off.
    """

    def __init__(self, models: Mapping[str, LoadedModel], *, bases: Sequence[str] = ()) -> None:
        self.models, self._bases = dict(models), frozenset(bases)
        self._jobs: queue.SimpleQueue[Job | Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting: list[Job] = []
        self._waves: list[_Wave] = []
        self._ending = self._off = False
        adapted = (each.model for name, each in self.models.items() if name in self._bases)
        self._adapters = [
            module
            for model in adapted
            for module in model.modules()
            if isinstance(module, BaseTunerLayer)
        ]
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def load(self) -> int:
        """Requests that wait or are computed."""
        rows = sum(not row.job.gone.is_set() for wave in self._waves for row in wave.rows)
        return self._jobs.qsize() + len(self._waiting) + rows

    def submit(self, job: Job) -> None:
        """Put a request into the queue."""
        self._jobs.put(job)

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Have something computed in the engine's thread, between two tokens."""
        result: Future[Any] = Future()

        def run() -> None:
            if not result.set_running_or_notify_cancel():
                return
            try:
                result.set_result(function())
            except BaseException as error:
                result.set_exception(error)

        self._jobs.put(run)
        return result

    def close(self) -> None:
        """Let what is under way end, and stop."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        with torch.inference_mode():
            while not (self._ending and not self._waves and not self._waiting):
                self._take_in()
                self._begin()
                self._waves.sort(key=lambda wave: wave.model in self._bases)  # one switch a turn
                self._waves = [wave for wave in self._waves if self._advanced(wave)]
            self._switch()

    def _take_in(self) -> None:
        """Fetch what has come; wait where there is nothing to compute."""
        idle = not self._waves and not self._waiting
        if idle:
            self._switch()
        while idle or not self._jobs.empty():
            came = self._jobs.get()
            idle = False
            if came is None:
                self._ending = True
            elif isinstance(came, Job):
                self._waiting.append(came)
            else:
                self._switch()
                came()
                if self._waves or self._waiting:
                    return  # the next call waits for a token: callers who ask anew would never end

    def _begin(self) -> None:
        """Begin waves with what waits, while there may be more of them."""
        self._waiting = [job for job in self._waiting if not job.gone.is_set()]
        while self._waiting and len(self._waves) < WAVES:
            model = self._waiting[0].request.model
            loaded = self.models[model]
            packed = _fits(loaded, self._waiting[0].request)
            tokens = 0
            jobs: list[Job] = []
            for job in self._waiting:
                if job.request.model != model or _fits(loaded, job.request) != packed:
                    continue
                tokens += len(job.request.prompt) + job.request.max_tokens
                if jobs and (tokens > TOKENS or len(jobs) == (ROWS if packed else 1)):
                    break
                jobs.append(job)
            self._waiting = [job for job in self._waiting if job not in jobs]
            try:
                self._switch(model)
                self._waves.append(_Wave(loaded, jobs, model))
            except Exception as error:
                _fail(jobs, error)

    def _advanced(self, wave: _Wave) -> bool:
        """Take a token in a wave; return whether it goes on."""
        try:
            self._switch(wave.model)
            return wave.advance()
        except Exception as error:
            _fail([row.job for row in wave.rows], error)
            return False

    def _switch(self, model: str = "") -> None:
        """Switch the adapter off for a base model and on for all else, where it is otherwise."""
        off = model in self._bases
        if off != self._off:
            self._off = off
            for layer in self._adapters:
                layer.enable_adapters(enabled=not off)


def _fits(loaded: LoadedModel, request: Request) -> bool:
    """Whether instil's memory is proved to give the model's own figures for so many tokens."""
    longest = loaded.build.longest
    within = longest is None or len(request.prompt) + request.max_tokens < longest
    return loaded.build.own_memory and within


def _fail(jobs: Sequence[Job], error: Exception) -> None:
    """End requests that cannot be computed; the others are not touched by it."""
    for job in jobs:
        if not job.gone.is_set():
            job.gone.set()
            job.put(Piece(reason(error), 0, finish="error"))


def reason(error: Exception) -> str:
    """Say why something cannot be computed, without what a message may hold of the machine."""
    short = isinstance(error, OutOfMemoryError) or is_out_of_memory(error)
    return "there is not enough memory" if short else type(error).__name__
