"""What requests say, in OpenAI's words; what is not built is refused by name, never passed over.

Tests: `tests/ship/test_server.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Stop = str | Annotated[list[str], Field(max_length=4)] | None
_IDLE: tuple[object, ...] = (None, 0, 0.0, False, {}, [], "auto", "none", "default")
"""Values that ask for nothing."""


class _Lenient(BaseModel):
    """A part of a request, in which null says nothing: clients write out what they leave open."""

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, said: object) -> object:
        if not isinstance(said, dict):
            return said
        return {name: value for name, value in said.items() if value is not None}


class _Asked(_Lenient):
    """What both kinds of request say."""

    model_config = ConfigDict(extra="allow", strict=False)

    model: str = ""
    """Which model; empty: the tuned one."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Longest answer, in tokens."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """0, the default here: what the run was judged by."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of probability that tokens are drawn from."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """Of the draws."""
    stop: Stop = None
    """Texts that end the answer."""
    stream: bool = False
    """Whether it is sent piece by piece."""
    stream_options: dict[str, Any] | None = None
    """`include_usage`."""
    user: str | None = None
    """Passed over, as OpenAI's own servers may."""

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end the answer."""
        return tuple([self.stop] if isinstance(self.stop, str) else self.stop or ())

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the number of tokens."""
        return bool((self.stream_options or {}).get("include_usage"))

    @model_validator(mode="after")
    def _nothing_else(self) -> _Asked:
        """Refuse what would change the answer and is not built; defaults may be said."""
        extra = self.model_extra or {}
        known = {"response_format": {"type": "text"}, "n": 1, "best_of": 1}
        odd = [
            name
            for name, value in extra.items()
            if value not in _IDLE and value != known.get(name) and name not in _HARMLESS
        ]
        if odd:
            raise ValueError(f"not supported: {', '.join(sorted(odd))}")
        return self


_HARMLESS = {"metadata", "store", "service_tier", "parallel_tool_calls", "prompt_cache_key"}


class Turn(_Lenient):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    """Who says it."""
    content: str
    """What they say."""
    name: str | None = None
    """Passed over: chat templates do not write it."""

    @field_validator("content", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        """Join a list of text parts."""
        if isinstance(value, list):
            if any(not isinstance(part, dict) or part.get("type") != "text" for part in value):
                raise ValueError("parts other than text are not supported")
            return "".join(str(part.get("text", "")) for part in value)
        return value


class ChatAsked(_Asked):
    """`/v1/chat/completions`."""

    messages: Annotated[list[Turn], Field(min_length=1)]
    """The conversation."""
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """The newer name of `max_tokens`."""
    logprobs: bool | None = False
    """Whether each token's log-probability is told."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """Likeliest tokens beside each."""


class TextAsked(_Asked):
    """`/v1/completions`."""

    prompt: str | list[int] | Annotated[list[str], Field(min_length=1, max_length=1)]
    """A text, or token ids."""
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    """Likeliest tokens beside each."""
    echo: Literal[False] = False
    """Not built."""


class ClassifyAsked(BaseModel):
    """`/v1/classify`: a row through the run's own template."""

    model_config = ConfigDict(extra="forbid")

    row: dict[str, Any] | None = None
    """The columns of a row."""
    text: str | None = None
    """The input text alone, in place of a row."""
    template: str = ""
    """As in `instil predict`."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    """No label is given below this probability."""
    max_error: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Labels are given only where so small a share of them is wrong, as in `instil predict`."""

    @model_validator(mode="after")
    def _one_of_them(self) -> ClassifyAsked:
        if (self.row is None) == (self.text is None):
            raise ValueError("give either `row` or `text`")
        if self.text is not None and not self.text.strip():
            raise ValueError("`text` is empty: there is nothing to label")
        return self
