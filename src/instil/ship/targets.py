"""Where a model can be asked: a folder of transformers, or a server over HTTP.

A target answers a conversation as its users would be answered, greedily. What else it tells is
used where it is told: the tokens that it makes of a conversation, and the probabilities of the
next token. llama.cpp's server tells both, an OpenAI-compatible one the number of prompt tokens.

Tests: `tests/ship/test_verify.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import requests

from instil.encode.chat_template import render
from instil.errors import RunError

if TYPE_CHECKING:
    import numpy as np

Turns = Sequence[Mapping[str, object]]
"""A conversation: mappings of `role` and `content`."""
T = TypeVar("T")
_SECONDS = 300
"""Longest time for one answer."""
_OTHER_FORM = (ValueError, LookupError, TypeError, AttributeError)
"""What reading a reply raises that is not as it should be."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a target answered."""

    text: str
    """Without the stop token."""
    stopped: bool
    """Whether it ended by itself."""
    prompt_tokens: int | None = None
    """What the target counted; None: it did not say."""


class Target(Protocol):
    """Something that answers."""

    def answer(self, turns: Turns, *, max_tokens: int) -> Answer:
        """Answer greedily, through the target's own chat template."""

    def tokens(self, turns: Turns) -> tuple[int, ...] | None:
        """Return the token ids that the target makes of a prompt; None where it does not tell."""

    def log_probs(self, ids: Sequence[int]) -> np.ndarray[Any, Any] | None:
        """Return the log-probability of every next token; None where it does not tell."""


@dataclass(frozen=True, slots=True)
class FolderTarget:
    """A folder of transformers or PEFT, run by these alone."""

    model: Any
    """In float32."""
    tokenizer: Any
    """With its chat template."""
    generation: Any
    """The folder's generation config."""

    def answer(self, turns: Turns, *, max_tokens: int) -> Answer:
        """Answer with `generate`, by the folder's generation config."""
        import torch

        ids, config = self.tokens(turns), copy.deepcopy(self.generation)
        config.max_new_tokens = max_tokens
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                generation_config=config,
            )
        new = out[0, len(ids) :].tolist()
        stops = self.generation.eos_token_id
        stopped = bool(new) and new[-1] in (stops if isinstance(stops, list) else [stops])
        text = self.tokenizer.decode(new, skip_special_tokens=True)
        return Answer(text.strip(), stopped, len(ids))

    def tokens(self, turns: Turns) -> tuple[int, ...]:
        """Tokenize by the folder's chat template.

        Raises:
            ModelError: The template does not render the conversation.
        """
        text = render(self.tokenizer, turns, generation=True)
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def log_probs(self, ids: Sequence[int]) -> np.ndarray[Any, Any]:
        """Compute them in float32."""
        return next_log_probs(self.model, ids)


def folder_target(folder: Path, *, base: Path) -> FolderTarget:
    """Load a folder.

    Args:
        folder: Holds weights or an adapter, tokenizer, chat template and generation config.
        base: The base model's folder, which an adapter is put on.

    Raises:
        RunError: transformers cannot load it.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    from instil.model.load import quiet

    adapted = (folder / "adapter_config.json").is_file()
    try:
        with quiet():
            where = base if adapted else folder
            model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32)
            if adapted:
                model = PeftModel.from_pretrained(model, str(folder))
            tokenizer = AutoTokenizer.from_pretrained(folder)
            generation = GenerationConfig.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise RunError(
            "transformers cannot load this folder",
            where=str(folder),
            found=" ".join(str(error).split()),
            fix="name an exported folder, a .gguf file, or a server's address",
        ) from error
    return FolderTarget(model.eval(), tokenizer, generation)


def next_log_probs(model: Any, ids: Sequence[int]) -> np.ndarray[Any, Any]:
    """Return the log-probability of every token behind `ids`, in float32."""
    import torch

    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([list(ids)], device=model.device)).logits[0, -1]
    log_probs: np.ndarray[Any, Any] = logits.float().log_softmax(-1).cpu().numpy()
    return log_probs


@dataclass(frozen=True, slots=True)
class ServerTarget:
    """An OpenAI-compatible server; where it is llama.cpp's own, it tells tokens too."""

    address: str
    """`http://host:port`, or that with a path that ends in `/v1`."""
    model: str = ""
    """Which of its models; empty: its only one."""
    key: str = ""
    """A token that it asks for."""
    vocabulary: int = 0
    """How many log-probabilities to ask llama.cpp for; 0: it is none."""

    def answer(self, turns: Turns, *, max_tokens: int) -> Answer:
        """Answer through `/v1/chat/completions`."""
        asked = {
            "messages": list(turns),
            "temperature": 0,
            "max_tokens": max_tokens,
            **({"model": self.model} if self.model else {}),
            **({"cache_prompt": False} if self.vocabulary else {}),
        }

        def read(reply: Any) -> Answer:
            (choice,) = reply["choices"]
            text = choice["message"].get("content") or ""
            stopped = choice.get("finish_reason") != "length"
            usage = reply.get("usage") or {}
            return Answer(text.strip(), stopped, usage.get("prompt_tokens"))

        return self._post("/v1/chat/completions", asked, read)

    def tokens(self, turns: Turns) -> tuple[int, ...] | None:
        """Ask llama.cpp for its rendering, and for the tokens of that, as its chat does."""
        if not self.vocabulary:
            return None
        messages = {"messages": list(turns)}
        text = self._post("/apply-template", messages, lambda reply: reply["prompt"])
        asked = {"content": text, "add_special": True, "parse_special": True}
        return self._post("/tokenize", asked, lambda reply: tuple(reply["tokens"]))

    def log_probs(self, ids: Sequence[int]) -> np.ndarray[Any, Any] | None:
        """Ask llama.cpp for all of them; None where half a character holds them back."""
        import numpy as np

        if not self.vocabulary:
            return None
        asked = {
            "prompt": list(ids),
            "n_predict": 1,
            "n_probs": self.vocabulary,
            "temperature": 0,
            "cache_prompt": False,
        }

        def read(reply: Any) -> np.ndarray[Any, Any] | None:
            said = reply.get("completion_probabilities")
            if not said:
                return None
            log_probs = np.full(self.vocabulary, -np.inf)
            for token in said[0]["top_logprobs"]:
                if token["id"] < self.vocabulary:  # another model may have more
                    log_probs[token["id"]] = token["logprob"]
            return log_probs

        return self._post("/completion", asked, read)

    def _post(self, path: str, body: Mapping[str, object], read: Callable[[Any], T]) -> T:
        """Ask, and read what it wants of the reply.

        Raises:
            RunError: There is no reply, or one of another form.
        """
        root = self.address.rstrip("/").removesuffix("/v1")
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            said = requests.post(f"{root}{path}", json=body, headers=headers, timeout=_SECONDS)
            said.raise_for_status()
            return read(said.json())
        except (requests.RequestException, *_OTHER_FORM) as error:
            from instil.data.sources.index import reason

            known = isinstance(error, requests.RequestException)
            raise RunError(
                "the server does not answer as an OpenAI-compatible one",
                where=f"{root}{path}",
                found=reason(error) if known else "a reply of another form",
                fix="check the address, the model's name and the key",
            ) from error
