r"""Turns to tokens through a model's own chat template, and where an answer begins and ends there.

Terms: the *prompt* of an answer is what the template writes before it in the rendering of the whole
conversation; the *completion* is the answer up to and including the *stop token* that ends the
assistant's turn, with whatever the template writes between the two. The text is tokenized once, as
a whole, and cut at the token that holds the answer's first character::

    <|im_start|>user\nGood?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nyes<|im_end|>
    |------------------------------ prompt -------------------------------------||- completion -|

So an empty think block, a channel's marker or a blank that the template writes belongs to the
prompt, and no token is cut in two: behind `Assistant: ` the completion begins with ` yes`. Blanks
before an answer always go with it, so that one prompt fits answers that take the blank into their
first token and answers that do not.

A reasoning model that is to think (`thinking: on`) writes the thoughts itself: its prompt is the
template's generation prompt, and the thoughts stand in the completion.

An *encoder-decoder* model has no turns: the encoder reads the prompt's text, the decoder writes the
answer's, each with the special tokens that the tokenizer gives it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from instil.encode.chat_marks import Marks, find_marks, special_marks, special_tokens
from instil.encode.chat_proof import (
    MARK,
    Holds,
    SystemHeld,
    call_id,
    call_of,
    content_of,
    prove,
)
from instil.encode.chat_template import (
    PLAIN_TEMPLATE,
    ChatRules,
    ChatTemplateError,
    pick_template,
    render,
    settled,
    with_ending,
)
from instil.encode.chat_turns import fit_turns, parted, without_thoughts
from instil.encode.store import common_start
from instil.encode.tokenized import tokenized
from instil.errors import DataError, ModelError
from instil.types import Example, Message, Thinking, TrainOn

_PROBE = "a"  # stands for an answer where a prompt is tokenized without one
_THOUGHTFUL_PROBE = f"<think>\n{_PROBE}\n</think>\n\n{_PROBE}"
_ANSWER, _THOUGHTS = f"{MARK}Answer", f"{MARK}Thoughts"
_OPENED = re.compile(r"<think>\s*$")
"""A generation prompt that has opened the think block already."""
_FORGET = (
    "name a chat template that writes it, in the recipe: chat_template: FILE.jinja (or the name of "
    "another one of the model's); or take such rows out"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt and the completions of answers to it, as token ids."""

    prompt: tuple[int, ...]
    """What all answers have before them."""
    completions: tuple[tuple[int, ...], ...]
    """One an answer; each of at least one token."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """A conversation as token ids, and the answers in it."""

    ids: tuple[int, ...]
    """The whole conversation, up to and including the last answer's stop token."""
    answers: tuple[tuple[int, int], ...]
    """Begin and end of each answer that was asked for, in order: the last one's end is the end."""


@dataclass(frozen=True, slots=True)
class _Written:
    """The last answer of a conversation, in the text of the whole."""

    text: str
    """Up to and including the stop token."""
    begin: int
    """Where the answer begins: a character's place."""
    end: int
    """Where it ends, before what the template writes between it and the stop token."""
    stopped: bool
    """Whether the template writes the stop token itself."""


@dataclass(frozen=True, slots=True)
class _Cut:
    """A conversation's tokens, the stop token last."""

    ids: list[int]
    """All of them."""
    begin: int
    """The last answer's first token."""
    end: int
    """Behind the last answer's last token, before what ends the turn."""


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """A tokenizer with its chat template, and the token that ends a turn."""

    tokenizer: Any
    """A transformers tokenizer; its chat template renders as this run does, without arguments."""
    stop_id: int
    """Ends a completion; the model is trained to say it."""
    stop_ids: tuple[int, ...]
    """Every token at which generation stops: `stop_id` and the tokenizer's EOS."""
    pad_id: int
    """For padding in batches; masked by position, so it may equal `stop_id`."""
    plain: bool
    """Whether the tokenizer had no chat template and got `PLAIN_TEMPLATE`."""
    special: re.Pattern[str]
    """Matches the literal text of every special token."""
    marks: Marks
    """What data could forge a turn with."""
    holds: Holds = field(default_factory=Holds)
    """What the template can hold."""
    rules: ChatRules = field(default_factory=ChatRules)
    """What the recipe decides about it."""
    encoder_decoder: bool = False
    """Whether the model reads the prompt with an encoder and answers with a decoder."""
    decoder_start: int | None = None
    """The token that such a decoder begins with by itself; never part of a completion."""
    anchors: tuple[str, ...] = ()
    """Special tokens that the template writes before an answer; tokenizing starts anew there."""
    by_line: bool = False
    """Whether tokenizing starts anew at a line's first letter: a byte-level tokenizer's does."""
    ending: int = 1
    """Tokens that end a turn: the stop token, and what the template writes before it."""
    findings: tuple[str, ...] = ()
    """What the template cannot do, and nothing in this run makes good."""

    # --- turns ----------------------------------------------------------------------------------

    def harmless(self, text: str) -> str:
        """Break marks of turns that stand literally in data, so that no row can forge a turn.

        `<|im_end|>` in a review becomes `< |im_end|>`; all other text stays as it is.
        """
        return self.marks.broken(text)

    def fitted(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Return the turns as the template can hold them; the same again for what it returns.

        Raises:
            ModelError: The template takes no system message.
        """
        if self.encoder_decoder:
            return tuple(messages)
        return fit_turns(messages, holds=self.holds, system=self.rules.system)

    def conversation(self, messages: Sequence[Message]) -> tuple[dict[str, object], ...]:
        """Return a prompt's turns as they are told to whoever renders the template elsewhere.

        Raises:
            ModelError: The template takes no system message.
        """
        return tuple(self._turns(self.fitted(messages)))

    def _cannot(self, what: str, *, found: str = "") -> ModelError:
        said = f"the model's chat template leaves out {what}"
        return ModelError(said, where="chat_template", found=found, fix=_FORGET)

    def _turns(self, messages: Sequence[Message]) -> list[dict[str, object]]:
        """Return turns as chat templates read them; calls and their answers share an id."""
        turns, made, open_calls = list[dict[str, object]](), 0, list[tuple[str, str]]()
        for message in messages:
            turn = self._turn(message)
            if message.tool_calls:
                ids = [call_id(made + n) for n in range(len(message.tool_calls))]
                made += len(ids)
                calls = list(zip(ids, message.tool_calls, strict=True))
                turn["tool_calls"] = [
                    call_of(id, self.harmless(call.name), self._harmless_json(call.arguments))
                    for id, call in calls
                ]
                open_calls += [(call.name, id) for id, call in calls]
            if message.role == "tool":
                own = [n for n, (name, _) in enumerate(open_calls) if name == message.name]
                name, number = open_calls.pop(own[0] if own else 0) if open_calls else ("", "")
                turn |= {"name": self.harmless(message.name or name), "tool_call_id": number}
            turns.append(turn)
        return turns

    def _turn(self, message: Message) -> dict[str, object]:
        text, turn = self.harmless(message.content), dict[str, object](role=message.role)
        thoughts = parted(message.content) if message.role == "assistant" else None
        if thoughts:  # parted first: the tags may be special tokens
            before, inner, after, between, text = map(self.harmless, thoughts.groups())
            if self.rules.thinking is Thinking.ON and self.holds.split_thoughts:
                turn["reasoning_content"] = inner
            elif self.rules.thinking is Thinking.ON:
                text = f"<think>{before}{inner}{after}</think>{between}{text}"
        return {**turn, "content": content_of(text, parts=self.holds.parts)}

    def _harmless_json(self, text: str) -> object:
        return self._harmless_value(json.loads(text))

    def _harmless_value(self, value: object) -> object:
        if isinstance(value, str):
            return self.harmless(value)
        if isinstance(value, Mapping):
            return {self.harmless(k): self._harmless_value(v) for k, v in value.items()}
        return [self._harmless_value(v) for v in value] if isinstance(value, list) else value

    # --- turns to text --------------------------------------------------------------------------

    def _rendered(
        self,
        turns: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[str],
        generation: bool = False,
    ) -> str:
        """Render turns as chat templates read them.

        Raises:
            ModelError: The template raises, or leaves functions or calls of them out.
        """
        known = [self._harmless_json(tool) for tool in tools]
        try:
            text = render(self.tokenizer, turns, tools=known, generation=generation)
        except ChatTemplateError as error:
            why = error.problems[0].what
            raise ModelError(
                f"the model's chat template refuses a conversation: {why}",
                where="chat_template",
                found=", ".join(str(turn["role"]) for turn in turns),
                fix="take such rows out, or name another template: chat_template: FILE.jinja",
            ) from error
        if not all(name in text for name in _names(known)):
            raise self._cannot("the functions that a row lets the model call")
        calls = [turn["tool_calls"] for turn in turns if "tool_calls" in turn]
        if not all(name in text for made in calls for name in _names(made)):
            raise self._cannot("calls of functions")
        return text

    def require_shown(self, example: Example) -> None:
        """Make sure that the template writes an example's question, and behind it the answer.

        Blanks and capitals may be written otherwise. Answers of tools and calls of functions are
        not looked for: templates write them in forms of their own.

        Raises:
            ModelError: The template raises, or leaves some of the two out.
        """
        if self.encoder_decoder:
            return
        asked, answer = self.fitted(example.messages), example.answer
        text = self._rendered(self._turns([*asked, answer]), tools=example.tools)
        rest, last = _letters(text), asked[-1]
        for whose, turn, said in (
            ("the user's text", last, last.content),
            ("the answer", answer, without_thoughts(answer.content)),
        ):
            if turn.role != "tool" and not turn.tool_calls:
                _, shown, rest = rest.partition(_letters(self.harmless(said)))
                if not shown and said.strip():
                    raise self._cannot(f"some of {whose} in a row", found=said)

    def _written(
        self, messages: Sequence[Message], answer: Message, *, tools: Sequence[str]
    ) -> _Written:
        """Write a fitted conversation that ends in `answer`."""
        *before, last = self._turns([*messages, answer])
        marked = {**last, "content": content_of(_ANSWER, parts=self.holds.parts)}
        marked.pop("tool_calls", None)
        marked.pop("reasoning_content", None)
        head, found, tail = self._rendered([*before, marked], tools=tools).rpartition(_ANSWER)
        if not found:
            raise self._cannot("the answer")
        generation = ""
        if self.rules.thinking is Thinking.ON:
            generation = self._rendered(before, tools=tools, generation=True)
        if answer.tool_calls:
            text = self._rendered([*before, last], tools=tools)
            # A turn that calls functions begins where it parts from one that answers in words.
            begin = common_start(head, text, limit=min(len(head), len(text)))
            if generation and text.startswith(generation):
                begin = len(generation)
            elif beyond := head[begin:].strip():  # gpt-oss: `final` stands before words alone
                raise ModelError(
                    "the model's chat template begins a call of functions elsewhere than an answer "
                    "in words, where the model is asked to begin",
                    where="chat_template",
                    found=beyond,
                    fix=_FORGET,
                )
            text, special = text.rstrip(), list(self.special.finditer(text, begin))
            stopped = bool(special) and special[-1].end() == len(text)
            return _Written(text, begin, special[-1].start() if stopped else len(text), stopped)
        tail, stopped = self._up_to_stop(tail)
        thoughts = parted(answer.content)
        if generation and thoughts:
            if self.holds.split_thoughts:
                marked["reasoning_content"] = _THOUGHTS
            else:
                blanks, _, after, between, _ = thoughts.groups()
                shown = f"<think>{blanks}{_THOUGHTS}{after}</think>{between}{_ANSWER}"
                marked["content"] = content_of(shown, parts=self.holds.parts)
            text = self._rendered([*before, marked], tools=tools)
            return self._thinking(text, thoughts, generation=generation, tail=tail)
        said = self.said(answer.content)
        begin = len(generation) if generation and head.startswith(generation) else len(head)
        end = len(head) + len(said)
        return _Written(head + said + tail, begin, end, stopped)

    def said(self, text: str) -> str:
        """Return an answer's text as it stands in the rendering, without its thoughts."""
        text = self.harmless(without_thoughts(text))
        return text.strip() if self.holds.strips else text

    def _up_to_stop(self, tail: str) -> tuple[str, bool]:
        """Cut what stands behind an answer after the stop token; nothing stands without one."""
        at = tail.find(self.stop_text)
        return (tail[: at + len(self.stop_text)], True) if at >= 0 else ("", False)

    def _thinking(
        self, text: str, thoughts: re.Match[str], *, generation: str, tail: str
    ) -> _Written:
        """An answer with its thoughts: as the template writes it, if it writes them, and once."""
        before, inner, after, between, said = map(self.harmless, thoughts.groups())
        head, _, rest = text.partition(_THOUGHTS)
        middle, found, end = rest.rpartition(_ANSWER)
        if not (
            found and head.startswith(generation) and "</think>" not in head[len(generation) :]
        ):
            opened = _OPENED.search(generation)
            head = generation + ("" if opened else "<think>")
            head += "" if opened and opened[0] != "<think>" else before
            middle, end = f"{after}</think>{between}", tail
        tail, stopped = self._up_to_stop(end)
        whole = head + inner + middle + said
        return _Written(whole + tail, len(generation), len(whole), stopped)

    @property
    def _probe_answer(self) -> str:
        return _THOUGHTFUL_PROBE if self.rules.thinking is Thinking.ON else _PROBE

    def _generation_prompt(self, messages: Sequence[Message]) -> str:
        return self._rendered(self._turns(messages), tools=(), generation=True)

    def _same_prompt(self, messages: Sequence[Message]) -> bool:
        return self.tokens(self._generation_prompt(messages)) == self.prompt(messages)

    # --- text to tokens -------------------------------------------------------------------------

    def tokens(self, text: str) -> list[int]:
        """Tokenize rendered text; the template has written all special tokens already."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _cut(self, written: _Written) -> _Cut:
        """Tokenize a written conversation as a whole, and cut it where the last answer begins."""
        tokens = tokenized(self.tokenizer, written.text)
        end = tokens.end(written.end)
        ids = tokens.ids if written.stopped else [*tokens.ids, self.stop_id]
        return _Cut(ids, tokens.begin(written.begin), end)

    def prompt(self, messages: Sequence[Message], *, tools: Sequence[str] = ()) -> list[int]:
        """Token ids of what stands before an answer: the same that training has there.

        Raises:
            ModelError: The chat template cannot hold the turns.
        """
        if self.encoder_decoder:
            return self._read(messages, tools)
        probe, turns = Message("assistant", self._probe_answer), self.fitted(messages)
        cut = self._cut(self._written(turns, probe, tools=tools))
        return cut.ids[: cut.begin]

    def answered(
        self,
        messages: Sequence[Message],
        answers: Sequence[str],
        *,
        stop: bool = True,
        tools: Sequence[str] = (),
    ) -> Asked:
        """Tokenize a prompt with several answers to it.

        Args:
            messages: The turns before the answer.
            answers: At least one.
            stop: Whether the completions end in the stop token.
            tools: JSON text of each function that the model may call.

        Raises:
            ModelError: The chat template cannot hold the turns.
        """
        if self.encoder_decoder:
            said = tuple(self._decoded(answer, stop=stop) for answer in answers)
            return Asked(tuple(self._read(messages, tools)), said)
        turns = self.fitted(messages)
        first = self._written(turns, Message("assistant", answers[0]), tools=tools)
        cut = self._cut(first)
        cuts = [cut, *self._others(first, cut, answers)]
        prompt = min(cut.begin for cut in cuts)
        prompt = min(prompt, *(common_start(cut.ids, c.ids, limit=prompt) for c in cuts))
        said = tuple(tuple(c.ids[prompt : None if stop else c.end]) for c in cuts)
        return Asked(tuple(cut.ids[:prompt]), said)

    def _others(self, first: _Written, cut: _Cut, answers: Sequence[str]) -> Iterator[_Cut]:
        """Tokenize the answers but for the first, whose tokens are there already.

        A tokenizer starts anew at a special token, and one that parts words by a pattern at a line.
        So the tokens from the prompt's last one on will do, where those of the first answer are the
        same alone as in the whole text.
        """
        if len(answers) == 1:
            return
        head = first.text[: first.end - len(self.said(answers[0]))]
        tail = first.text[first.end :]
        at, known = max((head.rfind(token, 0, first.begin) for token in self.anchors), default=0), 0
        if at <= 0 and self.by_line:
            at = head.rfind("\n", 0, len(head[: first.begin].rstrip())) + 1
        if at > 0:
            alone = tokenized(self.tokenizer, first.text[at:]).ids
            alone = alone if first.stopped else [*alone, self.stop_id]
            known = len(cut.ids) - len(alone)
        if at <= 0 or cut.ids[known:] != alone:
            at, known = 0, 0
        for answer in answers[1:]:
            own = self.said(answer)
            text, end = head[at:] + own + tail, len(head) - at + len(own)
            other = self._cut(_Written(text, first.begin - at, end, first.stopped))
            yield _Cut([*cut.ids[:known], *other.ids], known + other.begin, known + other.end)

    def target(self, example: Example) -> Asked:
        """Tokenize an example with its right answer, calls of functions included."""
        if self.encoder_decoder:
            return self.answered(example.messages, [example.target], tools=example.tools)
        spoken = self.spoken(replace(example, train_on=TrainOn.LAST))
        begin, _ = spoken.answers[-1]
        return Asked(spoken.ids[:begin], (spoken.ids[begin:],))

    def spoken(self, example: Example) -> Spoken:
        """Tokenize an example with its right answer, and find the answers that are trained on.

        Where the template writes an earlier answer otherwise once turns follow it, that is the last
        one alone: see `mask.by_turn`.

        Raises:
            ModelError: The chat template cannot hold the turns.
        """
        if self.encoder_decoder:
            asked = self.target(example)
            whole = (*asked.prompt, *asked.completions[0])
            return Spoken(whole, ((len(asked.prompt), len(whole)),))
        turns = self.fitted(example.messages)
        written = self._written(turns, example.answer, tools=example.tools)
        earlier = self._earlier(turns, written.text, example) or ()
        tokens = tokenized(self.tokenizer, written.text)
        ids = tokens.ids if written.stopped else [*tokens.ids, self.stop_id]
        answers = [(tokens.begin(part.begin), tokens.end(len(part.text))) for part in earlier]
        return Spoken(tuple(ids), (*answers, (tokens.begin(written.begin), len(ids))))

    def in_place(self, example: Example) -> bool:
        """Whether every answer stands in the whole conversation as it does when it is the last."""
        turns = self.fitted(example.messages)
        if self.encoder_decoder or not self.trained(example):
            return not self.encoder_decoder
        text = self._written(turns, example.answer, tools=example.tools).text
        return self._earlier(turns, text, example) is not None

    def trained(self, example: Example) -> tuple[int, ...]:
        """Return the places, in the fitted turns, of earlier answers that are trained on.

        Not one without a prompt before it, nor an empty one, nor one that is context alone.
        """
        if example.train_on is TrainOn.LAST:
            return ()
        return tuple(
            place
            for place, turn in enumerate(self.fitted(example.messages))
            if (turn.role == "assistant" and place and turn.trained)
            and (turn.tool_calls or self.said(turn.content).strip())
        )

    def _earlier(
        self, turns: Sequence[Message], text: str, example: Example
    ) -> list[_Written] | None:
        """Write each earlier answer as the last; None where one stands otherwise in the whole."""
        parts = list[_Written]()
        for place in self.trained(example):
            part = self._written(turns[:place], turns[place], tools=example.tools)
            if not part.stopped or not text.startswith(part.text):
                return None
            parts.append(part)
        return parts

    def answer_room(self, example: Example, *, max_new_tokens: int) -> tuple[int, int]:
        """Return how many tokens an example's prompt takes, and how many an answer can take.

        That is the longest choice, or what may be generated.
        """
        if not example.choices:
            return len(self.prompt(example.messages, tools=example.tools)), max_new_tokens
        asked = self.answered(example.messages, example.choices, tools=example.tools)
        return len(asked.prompt), max(map(len, asked.completions))

    # --- encoder-decoder ------------------------------------------------------------------------

    def _read(self, messages: Sequence[Message], tools: Sequence[str]) -> list[int]:
        """Token ids that the encoder reads: the turns' texts, an empty line behind an answer."""
        if tools or any(turn.tool_calls for turn in messages):
            raise ModelError(
                "an encoder-decoder model is given functions to call, which it has no form for",
                fix="leave the tools out of the task, or take a model with a chat template",
            )
        ends = ("\n\n" if turn.role == "assistant" else "\n" for turn in messages)
        texts = (
            self.harmless(turn.content) + end for turn, end in zip(messages, ends, strict=True)
        )
        return list(self.tokenizer("".join(texts).strip())["input_ids"])

    def _decoded(self, answer: str, *, stop: bool) -> tuple[int, ...]:
        """Token ids that the decoder writes, the stop token last or left out."""
        ids = list(self.tokenizer(text_target=self.harmless(answer))["input_ids"])
        if ids[:1] == [self.decoder_start]:
            del ids[0]
        if ids[-1:] == [self.stop_id]:
            del ids[-1]
        return (*ids, self.stop_id) if stop else tuple(ids)

    # --- special tokens -------------------------------------------------------------------------

    @property
    def stop_text(self) -> str:
        """The stop token as the chat template writes it."""
        return str(self.tokenizer.convert_ids_to_tokens(self.stop_id))

    @property
    def text_start(self) -> int:
        """The token before a text: the tokenizer's BOS, or its EOS where it has none."""
        bos = self.tokenizer.bos_token_id
        return int(self.stop_id if bos is None else bos)

    @property
    def text_opening(self) -> tuple[int, ...]:
        """What the tokenizer itself writes before a text: BOS, or nothing as with Qwen's."""
        bos = self.tokenizer.bos_token_id
        first = list(self.tokenizer("")["input_ids"])[:1]
        return (int(bos),) if bos is not None and first == [bos] else ()

    @property
    def text_ends(self) -> tuple[int, ...]:
        """Tokens that end a text: EOS, unless it ends a turn, after which a dialogue goes on."""
        eos = self.tokenizer.eos_token_id
        return () if eos is None or (eos == self.stop_id and not self.plain) else (int(eos),)


def _names(functions: object) -> Iterator[str]:
    """The names of functions, or of calls of them, as chat templates take both."""
    for each in functions if isinstance(functions, list) else ():
        inner = each.get("function", each) if isinstance(each, Mapping) else {}
        if isinstance(inner, Mapping) and "name" in inner:
            yield str(inner["name"])


def _letters(text: str) -> str:
    """Return a text without blanks, in small letters."""
    return "".join(text.split()).casefold()


def chat_format(
    tokenizer: Any,
    rules: ChatRules | None = None,
    *,
    encoder_decoder: bool = False,
    decoder_start: int | None = None,
) -> ChatFormat:
    """Make a tokenizer's chat format, and prove on marks what its chat template can hold.

    Args:
        tokenizer: Its chat template is replaced by one that renders as this run does. A base
            model's gets a plain one.
        rules: What the recipe decides; None: nothing.
        encoder_decoder: Whether the model reads the prompt with an encoder.
        decoder_start: The token that its decoder begins with.

    Raises:
        ModelError: The chat template cannot be used, or there is none of the name asked for.
        DataError: The tokenizer has neither a turn-ending special token nor an EOS token.
    """
    rules, own = rules or ChatRules(), tokenizer.chat_template
    tokenizer.chat_template = None  # an encoder-decoder model has no turns, and exports none
    holds, marks, anchors = Holds(), special_marks(tokenizer), list[str]()
    stop = eos = tokenizer.eos_token_id
    if not encoder_decoder:
        tokenizer.chat_template = settled(pick_template(own, rules.template), rules)
        holds = prove(tokenizer)
        marks = find_marks(tokenizer, holds)
        turns = [
            {"role": role, "content": content_of(text, parts=holds.parts)}
            for role, text in (("user", "Hi"), ("assistant", _ANSWER))
        ]
        before, _, after = render(tokenizer, turns).rpartition(_ANSWER)
        added = tokenizer.added_tokens_decoder
        special = added.keys() | set(tokenizer.all_special_ids)
        behind = tokenizer(after, add_special_tokens=False)["input_ids"]
        stop = next((id for id in behind if id in special), eos)
        for token in added.values():
            takes_blanks = token.lstrip or token.rstrip or token.normalized
            if token.special and not takes_blanks and token.content and token.content in before:
                anchors.append(token.content)
    if stop is None:
        what, fix = "the tokenizer has no end-of-sequence token", "set eos_token in its config"
        raise DataError(what, fix=fix)
    texts = (text for text in special_tokens(tokenizer) if len(text) > 1)
    longest_first = sorted(texts, key=lambda text: (-len(text), text))
    # A byte-level tokenizer that parts words by a pattern first.
    pre = repr(tokenizer.backend_tokenizer.pre_tokenizer) if tokenizer.is_fast else ""
    by_line = "ByteLevel" in pre and ("use_regex=True" in pre or "Split" in pre)
    chat = ChatFormat(
        tokenizer,
        int(stop),
        (stop,) if eos in (None, stop) else (stop, eos),
        tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stop,
        tokenizer.chat_template == PLAIN_TEMPLATE,
        re.compile("|".join(map(re.escape, longest_first)) or r"(?!)"),
        marks,
        holds=holds,
        rules=rules,
        encoder_decoder=encoder_decoder,
        decoder_start=decoder_start,
        anchors=tuple(anchors),
        by_line=by_line,
    )
    if encoder_decoder:
        return chat
    probe = [Message("user", "Hi")]
    whole, bare = (chat.answered(probe, [_PROBE], stop=ended) for ended in (True, False))
    ending = len(whole.completions[0]) - len(bare.completions[0])
    return _ending_as_trained(replace(chat, ending=ending))


def _ending_as_trained(chat: ChatFormat) -> ChatFormat:
    """Let the template's generation prompt be the prompt that is trained, for all who serve it.

    A template may open a think block there and write an empty one in a conversation.
    """
    turns = [Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "So")]
    asked = [turns[:1], turns] if chat.holds.earlier else [turns[:1]]
    if chat.holds.system is SystemHeld.KEPT:
        asked.append([Message("system", "Be kind."), *turns[:1]])
    if all(map(chat._same_prompt, asked)):
        return chat
    tokenizer, before = chat.tokenizer, chat.tokenizer.chat_template
    whole = chat._written(turns[:1], Message("assistant", chat._probe_answer), tools=())
    wanted, written = whole.text[: whole.begin], chat._generation_prompt(turns[:1])
    if chat.tokens(wanted) != chat.prompt(turns[:1]):
        wanted = wanted.rstrip(" ")  # a token takes the blank in
    same = common_start(wanted, written, limit=min(len(wanted), len(written)))
    tokenizer.chat_template = with_ending(before, written=written[same:], trained=wanted[same:])
    if all(map(chat._same_prompt, asked)):
        return chat
    tokenizer.chat_template = before
    what = (
        "the chat template's generation prompt is not what stands before an answer in a "
        "conversation: serve the model with prompts that end as `instil preview` shows"
    )
    return replace(chat, findings=(*chat.findings, what))
