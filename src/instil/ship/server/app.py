"""The HTTP side of `instil serve`: OpenAI's addresses, and `/v1/classify`.

Every answer of an error has OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

Tests: `tests/ship/test_server.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from instil.errors import InstilError, OutOfMemoryError
from instil.model.soundness import context_length
from instil.ship.predict import ANSWER_TOKENS, predict_rows
from instil.ship.server.engine import Engine, Job, Piece, Request, Told, reason
from instil.ship.server.listen import names_this_machine
from instil.ship.server.schema import ChatAsked, ClassifyAsked, TextAsked
from instil.ship.server.tokens import token_text
from instil.types import Message

A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes."""

    body: int = 1 << 20
    """Bytes of a request."""
    queue: int = 256
    """Requests that wait or are computed; more are turned away with 429."""
    tokens: int = 1024
    """Longest answer, in tokens."""


class HttpError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, *, param: str = "", code: str = "") -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def response(self) -> JSONResponse:
        """Return it in OpenAI's shape."""
        kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error")
        body = {
            "message": str(self),
            "type": kind if self.status < 500 else "server_error",
            "param": self.param or None,
            "code": self.code or None,
        }
        headers = {"Retry-After": "1"} if self.status in (429, 503) else {}
        return JSONResponse({"error": body}, self.status, headers)


@dataclass(frozen=True)
class Service:
    """What the addresses work with."""

    engine: Engine
    """Computes."""
    run: Path
    """The run directory."""
    tuned: str
    """The tuned model's name; the other is the base model's."""
    limits: Limits = field(default_factory=Limits)
    """What is taken."""
    begun: int = field(default_factory=lambda: int(time.time()))
    """When it began, in seconds since 1970."""
    answer_tokens: int = ANSWER_TOKENS
    """The longest answer to a request that does not say."""

    # --- addresses -------------------------------------------------------------------------------

    async def models(self, request: HttpRequest) -> Response:
        """`GET /v1/models`."""
        known = [self._about(name) for name in self.engine.models]
        return JSONResponse({"object": "list", "data": known})

    async def model(self, request: HttpRequest) -> Response:
        """`GET /v1/models/{name}`."""
        return JSONResponse(self._about(self._name(request.path_params["name"])))

    async def health(self, request: HttpRequest) -> Response:
        """`GET /health`."""
        return JSONResponse({"status": "ok", "requests": self.engine.load})

    async def chat(self, request: HttpRequest) -> Response:
        """`POST /v1/chat/completions`."""
        asked = await self._read(request, ChatAsked)
        name = self._name(asked.model)
        chat = self.engine.models[name].chat
        roles = {"developer": "system"}
        turns = [Message(roles.get(t.role, t.role), t.content) for t in asked.messages]
        try:
            prompt = tuple(chat.prompt(turns))
        except InstilError as error:
            raise HttpError(400, str(error), param="messages") from error
        wanted = asked.max_completion_tokens or asked.max_tokens
        top = (asked.top_logprobs or 0) if asked.logprobs else None
        to_do = self._request(asked, prompt, name, wanted, top=top, stripped=True)
        return await self._answered(request, asked, _chat_shape(to_do, chat.tokenizer))

    async def completions(self, request: HttpRequest) -> Response:
        """`POST /v1/completions`."""
        asked = await self._read(request, TextAsked)
        name = self._name(asked.model)
        tokenizer = self.engine.models[name].chat.tokenizer
        given = asked.prompt
        if isinstance(given, list) and given and isinstance(given[0], str):
            given = given[0]
        if isinstance(given, str):
            prompt = tuple(tokenizer(given)["input_ids"])
        else:
            prompt = tuple(int(each) for each in given)
        rows = self.engine.models[name].model.get_input_embeddings().weight.shape[0]
        if not prompt or not all(0 <= token < rows for token in prompt):
            raise HttpError(400, "the prompt has no tokens, or unknown ones", param="prompt")
        to_do = self._request(
            asked, prompt, name, asked.max_tokens or 16, top=asked.logprobs, stripped=False
        )
        return await self._answered(request, asked, _text_shape(to_do, tokenizer))

    async def classify(self, request: HttpRequest) -> Response:
        """`POST /v1/classify`: a row through the run's own template."""
        asked = await self._read(request, ClassifyAsked)
        self._require_room()
        row = asked.row if asked.row is not None else str(asked.text)
        loaded = self.engine.models[self.tuned]
        future = self.engine.call(
            lambda: predict_rows(
                self.run, [row], template=asked.template, max_error=asked.max_error, loaded=loaded
            )
        )
        try:
            (answer,) = await asyncio.wrap_future(future)
        except Exception as error:
            if not isinstance(error, InstilError) or isinstance(error, OutOfMemoryError):
                raise HttpError(503, _computed_not(reason(error))) from error
            told = [replace(p, where="") if str(self.run) in p.where else p for p in error.problems]
            raise HttpError(400, "\n".join(map(str, told)), param="row") from error
        shares = answer.get("probabilities")
        if not isinstance(shares, dict):
            raise HttpError(400, "this task has no labels: use /v1/chat/completions")
        sure = max(shares.values())
        abstains = sure < asked.threshold or bool(answer.get("unanswered"))
        label = answer.get("prediction_value", answer["prediction"])
        return JSONResponse(
            {
                "label": None if abstains else label,
                "abstained": abstains,
                "probability": sure,
                "probabilities": shares,
                **({"shortened": True} if answer.get("shortened") else {}),
                "model": self.tuned,
            }
        )

    # --- what they share -------------------------------------------------------------------------

    async def _read(self, request: HttpRequest, kind: type[A]) -> A:
        """Read a body, as far as it may be long."""
        if not request.headers.get("content-type", "").startswith("application/json"):
            raise HttpError(415, "send JSON: Content-Type: application/json")
        body = bytearray()
        try:
            async for block in request.stream():
                body += block
                if len(body) > self.limits.body:
                    raise HttpError(413, f"more than {self.limits.body:,} bytes")
        except ClientDisconnect as error:
            raise HttpError(400, "the request broke off") from error
        try:
            return kind.model_validate_json(bytes(body))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            said = first["msg"].removeprefix("Value error, ")
            raise HttpError(400, f"{place}: {said}" if place else said, param=place) from error

    def _about(self, name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": self.begun, "owned_by": "instil"}

    def _name(self, name: str) -> str:
        known = self.engine.models
        if name and name not in known:
            raise HttpError(
                404,
                f"there is no model {name[:100]!r}; there are: {', '.join(known)}",
                param="model",
                code="model_not_found",
            )
        return name or self.tuned

    def _require_room(self) -> None:
        if self.engine.load >= self.limits.queue:
            raise HttpError(429, f"{self.limits.queue} requests are under way: try again soon")

    def _request(
        self,
        asked: ChatAsked | TextAsked,
        prompt: tuple[int, ...],
        name: str,
        wanted: int | None,
        *,
        top: int | None,
        stripped: bool,
    ) -> Request:
        """Hold a request against the limits, and put it into the engine's words."""
        longest, _ = context_length(self.engine.models[name].folder.path)
        room = longest - len(prompt) if longest else self.limits.tokens
        if room < 1 or (wanted or 1) > room:
            raise HttpError(
                400,
                f"{len(prompt):,} tokens of prompt and {wanted or 1:,} of answer: the model takes "
                f"{longest:,} together",
                code="context_length_exceeded",
            )
        if (wanted or 0) > self.limits.tokens:
            raise HttpError(
                400, f"answers here have at most {self.limits.tokens:,} tokens", param="max_tokens"
            )
        self._require_room()
        return Request(
            prompt,
            wanted or min(self.answer_tokens, self.limits.tokens, room),
            name,
            temperature=asked.temperature,
            top_p=asked.top_p,
            seed=asked.seed,
            stops=asked.stops,
            top_logprobs=top,
            stripped=stripped,
        )

    async def _answered(
        self, http: HttpRequest, asked: ChatAsked | TextAsked, shape: _Shape
    ) -> Response:
        """Have a request computed, and answer it whole or piece by piece."""
        pieces: asyncio.Queue[Piece] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def put(piece: Piece) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody reads
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        job = Job(shape.request, put)
        self.engine.submit(job)
        if asked.stream:
            events = _events(job, pieces, shape, with_usage=asked.with_usage)
            return StreamingResponse(events, media_type="text/event-stream")
        left = asyncio.create_task(_disconnected(http))
        try:
            parts: list[Piece] = []
            while not parts or not parts[-1].finish:
                came = asyncio.create_task(pieces.get())
                await asyncio.wait({came, left}, return_when=asyncio.FIRST_COMPLETED)
                if left.done() and not came.done():
                    came.cancel()
                    return Response(status_code=499)
                parts.append(await came)
        finally:
            job.gone.set()
            left.cancel()
        if parts[-1].finish == "error":
            raise HttpError(503, _computed_not(parts[-1].text))
        return JSONResponse(shape.whole(parts))


def _computed_not(why: str) -> str:
    return f"the answer cannot be computed: {why}"


async def _disconnected(http: HttpRequest) -> None:
    """Return when the client goes away."""
    while not await http.is_disconnected():
        await asyncio.sleep(0.1)


async def _events(
    job: Job, pieces: asyncio.Queue[Piece], shape: _Shape, *, with_usage: bool
) -> AsyncIterator[str]:
    """Yield server-sent events; whoever goes away ends the generator, which frees the place."""
    tokens = 0
    try:
        for choice in shape.opening:
            yield _event(shape.event(choice))
        while True:
            piece = await pieces.get()
            tokens += piece.tokens
            if piece.finish == "error":
                error = HttpError(503, _computed_not(piece.text))
                yield f"data: {bytes(error.response().body).decode()}\n\n"
                return
            if piece.text or piece.told or piece.finish:
                yield _event(shape.part(piece))
            if piece.finish:
                break
        if with_usage:
            yield _event({**shape.event(), "usage": shape.usage(tokens)})
        yield "data: [DONE]\n\n"
    finally:
        job.gone.set()


def _event(body: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


@dataclass(frozen=True, slots=True)
class _Shape:
    """How the answer to one request is written, as chat or as plain text."""

    request: Request
    """What was asked."""
    kind: str
    """What a whole answer is called."""
    part_kind: str
    """What an event is called."""
    id: str
    """The answer's own."""
    choice: Callable[[str, Sequence[Told], str | None, bool], dict[str, Any]]
    """Writes the one choice: its text, tokens and end, and whether it is an event's."""
    opening: tuple[dict[str, Any], ...] = ()
    """Choices of events before the first piece."""
    created: int = field(default_factory=lambda: int(time.time()))
    """In seconds since 1970."""

    def event(self, *choices: dict[str, Any]) -> dict[str, Any]:
        """Return an event with these choices."""
        return {**self._head(self.part_kind), "choices": list(choices)}

    def part(self, piece: Piece) -> dict[str, Any]:
        """Return the event of one piece."""
        return self.event(self.choice(piece.text, piece.told, piece.finish or None, True))

    def whole(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        """Return the whole answer."""
        told = tuple(token for piece in pieces for token in piece.told)
        text = "".join(piece.text for piece in pieces)
        choice = self.choice(text, told, pieces[-1].finish, False)
        usage = self.usage(sum(piece.tokens for piece in pieces))
        return {**self._head(self.kind), "choices": [choice], "usage": usage}

    def usage(self, tokens: int) -> dict[str, int]:
        """Tokens that were read and written."""
        prompt = len(self.request.prompt)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": tokens,
            "total_tokens": prompt + tokens,
        }

    def _head(self, kind: str) -> dict[str, Any]:
        model = self.request.model
        return {"id": self.id, "object": kind, "created": self.created, "model": model}


def _chat_shape(request: Request, tokenizer: Any) -> _Shape:
    """Return how `/v1/chat/completions` answers."""

    def one(token: int, logprob: float) -> dict[str, Any]:
        word, said = token_text(tokenizer, token)
        return {"token": word, "logprob": logprob, "bytes": list(said)}

    def choice(text: str, told: Sequence[Told], finish: str | None, stream: bool) -> dict[str, Any]:
        said: dict[str, Any] = {"content": text} if text or not stream else {}
        message = {"delta": said} if stream else {"message": {"role": "assistant", **said}}
        logprobs = None
        if request.top_logprobs is not None:
            content = [
                {**one(t.token, t.logprob), "top_logprobs": [one(*other) for other in t.top]}
                for t in told
            ]
            logprobs = {"content": content}
        return {"index": 0, **message, "logprobs": logprobs, "finish_reason": finish}

    first = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    ident = f"chatcmpl-{uuid.uuid4().hex}"
    return _Shape(
        request, "chat.completion", "chat.completion.chunk", ident, choice, opening=(first,)
    )


def _text_shape(request: Request, tokenizer: Any) -> _Shape:
    """Return how `/v1/completions` answers."""

    def choice(text: str, told: Sequence[Told], finish: str | None, stream: bool) -> dict[str, Any]:
        logprobs = None
        if request.top_logprobs is not None:
            words = [token_text(tokenizer, t.token)[0] for t in told]
            logprobs = {
                "tokens": words,
                "token_logprobs": [t.logprob for t in told],
                "top_logprobs": [
                    {token_text(tokenizer, other)[0]: p for other, p in t.top} for t in told
                ],
                "text_offset": [len("".join(words[:n])) for n in range(len(words))],
            }
        return {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish}

    ident = f"cmpl-{uuid.uuid4().hex}"
    return _Shape(request, "text_completion", "text_completion", ident, choice)


class Guard:
    """Lets in who may: with the token, or from this machine under its own name.

    Without a token the `Host` header must be a loopback name: a page of another site, whose name
    leads here by a trick, sends its own.
    """

    def __init__(self, app: ASGIApp, *, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or turn it away."""
        if scope["type"] == "http" and (error := self._refused(HttpRequest(scope))):
            await error.response()(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _refused(self, request: HttpRequest) -> HttpError | None:
        if self.token:
            given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
            right = hmac.compare_digest(given, self.token.encode())
            return None if right else HttpError(401, "a wrong token", code="invalid_api_key")
        own = names_this_machine(request.headers.get("host", ""))
        return None if own else HttpError(403, "ask under the name localhost")


async def _on_error(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HttpError)
    return error.response()


async def _no_address(request: HttpRequest, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return HttpError(status, f"there is no {request.method} {request.url.path}").response()


def make_app(service: Service, *, token: str = "") -> Starlette:
    """Return the application.

    Args:
        service: What it works with.
        token: Who gives it is let in; empty: who comes from this machine.
    """
    routes = [
        Route("/v1/models", service.models),
        Route("/v1/models/{name:path}", service.model),
        Route("/v1/chat/completions", service.chat, methods=["POST"]),
        Route("/v1/completions", service.completions, methods=["POST"]),
        Route("/v1/classify", service.classify, methods=["POST"]),
        Route("/health", service.health),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, token=token)],
        exception_handlers={HttpError: _on_error, 404: _no_address, 405: _no_address},
    )
