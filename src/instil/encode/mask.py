r"""Examples to tokens, and which of the tokens are trained on.

Terms: the *prompt* is everything up to where the assistant starts to speak; the *completion* is
the target plus the *stop token* with which the model's own chat template ends a turn. Only the
completion is trained on::

    <|im_start|>user\nIs this positive? ...<|im_end|>\n<|im_start|>assistant\npositive<|im_end|>
    |------------------------------ prompt: mask False ----------------------||-- mask True --|

In a conversation every turn of the assistant can be trained on, each with its stop token::

    user ... assistant\nHello.<|im_end|>\n<|im_start|>user\nAnd now? ... assistant\nBye.<|im_end|>
    |--- False ------||-- mask True --||-------------- False -----------------||-- True ------|

Prompt and completion are tokenized apart, so the prompt's tokens are always a prefix of the whole;
an earlier answer in the prompt is tokenized apart too, as it was when the model said it;
the text is rendered from the chat template first and tokenized with no added special tokens, so no
BOS is doubled; and the mask goes by position, so a padding token that equals EOS changes nothing.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from instil.errors import DataError, Problem
from instil.types import Encoded, Example, Fate, Message, Piece, TooLong, TrainOn

# A base model has no chat template. This one keeps worked examples apart by an empty line, and ends
# the last answer with EOS. It is saved with the tuned model, so serving renders as training did.
PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "{% if message.role == 'assistant' %}{{ message.content }}"
    "{% if loop.last %}{{ eos_token }}{% else %}{{ '\\n\\n' }}{% endif %}"
    "{% else %}{{ message.content + '\\n' }}{% endif %}{% endfor %}"
)
_MARK = "instil-sentinel"


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """A tokenizer with its chat template, and the token that ends a turn."""

    tokenizer: Any
    """A transformers tokenizer."""
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

    def harmless(self, text: str) -> str:
        """Break special tokens that stand literally in data, so that no row can forge a turn.

        `<|im_end|>` in a review becomes `< |im_end|>`; all other text stays as it is.
        """
        return self.special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """Render turns up to where the assistant starts to speak."""
        turns = [{"role": m.role, "content": self.harmless(m.content)} for m in messages]
        return str(
            self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        )

    def tokens(self, text: str) -> list[int]:
        """Tokenize rendered text; the template has written all special tokens already."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the prompt."""
        return [token for ids, _ in self.turns(messages) for token in ids]

    def turns(self, messages: Sequence[Message]) -> list[tuple[list[int], bool]]:
        """Token ids of the prompt in pieces, and whether a piece is an answer with its stop token.

        It is one piece where the chat template writes an answer otherwise once turns follow it
        (without the stop token, say, or without the thoughts before it).
        """
        text, pieces, at = self.prompt_text(messages), list[tuple[list[int], bool]](), 0
        for number, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before = self.prompt_text(messages[:number])
            said = before + self.harmless(message.content) + self.stop_text
            if not text.startswith(said):
                return [(self.tokens(text), False)]
            pieces += [
                (self.tokens(text[at : len(before)]), False),
                (self.completion(message.content), True),
            ]
            at = len(said)
        return [*pieces, (self.tokens(text[at:]), False)]

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
    def text_ends(self) -> tuple[int, ...]:
        """Tokens that end a text: EOS, unless it ends a turn, after which a dialogue goes on."""
        eos = self.tokenizer.eos_token_id
        return () if eos is None or (eos == self.stop_id and not self.plain) else (int(eos),)

    def completion(self, target: str, *, stop: bool = True) -> list[int]:
        """Token ids of the completion, with the stop token unless `stop` is False."""
        return self.tokens(self.harmless(target)) + ([self.stop_id] if stop else [])

    def answer_tokens(self, example: Example, *, max_new_tokens: int) -> int:
        """Tokens that an answer can take: the longest choice, or what may be generated."""
        choices = (len(self.completion(choice)) for choice in example.choices)
        return max(choices, default=max_new_tokens)


def chat_format(tokenizer: Any) -> ChatFormat:
    """Find out how this tokenizer ends an assistant's turn; a base model's gets a plain template.

    Raises:
        DataError: the tokenizer has neither a turn-ending special token nor an EOS token.
    """
    plain = not tokenizer.chat_template
    if plain:
        tokenizer.chat_template = PLAIN_TEMPLATE
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": _MARK}]
    after = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(_MARK)[2]
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    tail = tokenizer(after, add_special_tokens=False)["input_ids"]
    stop = next((token for token in tail if token in special), tokenizer.eos_token_id)
    if stop is None:
        raise DataError(
            Problem("the tokenizer has no end-of-sequence token", fix="set eos_token in its config")
        )
    eos = tokenizer.eos_token_id
    stops = (stop,) if eos in (None, stop) else (stop, eos)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stop
    return ChatFormat(tokenizer, stop, stops, pad, plain, _special_pattern(tokenizer))


def _special_pattern(tokenizer: Any) -> re.Pattern[str]:
    added = tokenizer.added_tokens_decoder.values()
    names = {t.content for t in added if t.special} | set(tokenizer.all_special_tokens)
    longest_first = sorted((n for n in names if len(n) > 1), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def encode(
    example: Example, chat: ChatFormat, *, max_length: int, too_long: TooLong = TooLong.ERROR
) -> Encoded:
    """Turn an example into token ids and a loss mask, both of one length <= `max_length`.

    Raises:
        DataError: the example is longer than `max_length` and the policy is `ERROR`.
    """
    completion = chat.completion(example.target)
    turns = chat.turns(example.messages)
    prompt = [token for ids, _ in turns for token in ids]
    if len(prompt) + len(completion) <= max_length:
        return _encoded(example, turns, completion)
    why = f"{len(prompt) + len(completion)} tokens, {max_length} allowed"
    if too_long is TooLong.ERROR:
        raise DataError(
            Problem(
                f"example {example.id} is too long: {why}",
                fix="raise train.max_length, or set train.too_long to shorten or drop",
            )
        )
    if too_long is TooLong.SHORTEN:
        shorter = shorten(example, chat, max_tokens=max_length - len(completion))
        if shorter is not None:
            done = _encoded(shorter, chat.turns(shorter.messages), completion)
            return replace(done, fate=Fate.TRUNCATED, why=f"input shortened ({why})")
    return Encoded(example.id, (), (), Fate.DROPPED, f"too long ({why})")


def _encoded(
    example: Example, turns: Sequence[tuple[list[int], bool]], completion: Sequence[int]
) -> Encoded:
    ids, mask = list[int](), list[bool]()
    for piece, answer in turns:
        ids += piece
        mask += [answer and example.train_on is TrainOn.ALL] * len(piece)
    assert completion, "a completion has at least its stop token"
    return Encoded(example.id, (*ids, *completion), (*mask, *[True] * len(completion)))


def by_turn(example: Example, chat: ChatFormat) -> tuple[Example, ...]:
    """Part a conversation into one example a turn where the chat template asks for it.

    A template may write an answer otherwise once turns follow it: one that drops the thoughts
    before it, or a base model's, which has no token for the end of a turn. There every answer is
    trained on as the last of a conversation of its own, so that it ends as it will in use.
    """
    answers = [n for n, m in enumerate(example.messages) if m.role == "assistant"]
    if example.train_on is TrainOn.LAST or not answers or len(chat.turns(example.messages)) > 1:
        return (example,)
    earlier = (
        replace(
            example,
            id=f"{example.id}#{turn}",
            messages=example.messages[:number],
            target=example.messages[number].content,
            references=(),
            choices=(),
            text=example.messages[number - 1].content,
            train_on=TrainOn.LAST,
        )
        for turn, number in enumerate(answers, start=1)
        if number and example.messages[number - 1].role == "user"
    )
    return (*earlier, replace(example, train_on=TrainOn.LAST))


def shorten(example: Example, chat: ChatFormat, *, max_tokens: int) -> Example | None:
    """Cut the end of the row's input text until the prompt fits into `max_tokens`.

    Of a conversation the oldest turns go first: what was said last matters most. The
    wording around the text, and the answer, stay whole. Returns None where that cannot be done: the
    prompt does not hold the text, or the wording alone is too long.
    """
    example = _without_oldest_turns(example, chat, max_tokens=max_tokens)
    last = example.messages[-1]
    if len(chat.prompt(example.messages)) <= max_tokens:
        return example
    if not example.text or example.text not in last.content:
        return None
    keep = chat.tokens(example.text)
    while keep:
        over = len(chat.prompt(example.messages)) - max_tokens
        if over <= 0:
            return example
        keep = keep[: max(0, len(keep) - over)]
        text = chat.tokenizer.decode(keep).strip()
        content = last.content.replace(example.text, text)
        example = replace(
            example,
            messages=(*example.messages[:-1], Message(last.role, content)),
            text=text,
        )
        last = example.messages[-1]
        if not text:
            return None
    return None


def _without_oldest_turns(example: Example, chat: ChatFormat, *, max_tokens: int) -> Example:
    """Take out turns from the front, up to the next of the user, while the prompt is too long.

    The system message stays; so do worked examples, which are turns as well.
    """
    if example.shots:
        return example
    system = [m for m in example.messages[:1] if m.role == "system"]
    turns = list(example.messages[len(system) :])
    starts = [n for n, turn in enumerate(turns) if n == 0 or turn.role == "user"]

    def fits(start: int) -> bool:
        return len(chat.prompt([*system, *turns[start:]])) <= max_tokens

    # Fewer turns are fewer tokens, so the first start that fits can be searched for by halves.
    found = bisect.bisect_left(starts, True, key=fits)
    kept = turns[starts[min(found, len(starts) - 1)] :]
    return replace(example, messages=(*system, *kept))


def encode_all(
    examples: Iterable[Example],
    chat: ChatFormat,
    *,
    max_length: int,
    too_long: TooLong = TooLong.ERROR,
) -> tuple[Encoded, ...]:
    """Encode every example; dropped ones stay in the result with empty ids and a reason."""
    return tuple(
        item
        for example in examples
        for item in encode_turns(example, chat, max_length=max_length, too_long=too_long)
    )


def encode_turns(
    example: Example, chat: ChatFormat, *, max_length: int, too_long: TooLong = TooLong.ERROR
) -> Iterator[Encoded]:
    """Encode one example; a conversation may become one example a turn (`by_turn`)."""
    for part in by_turn(example, chat):
        yield encode(part, chat, max_length=max_length, too_long=too_long)


def token_view(encoded: Encoded, chat: ChatFormat) -> tuple[Piece, ...]:
    """Return the example token by token, each with its text and whether it is trained on.

    Tokens that only together spell a character make one piece.
    """
    pieces: list[Piece] = []
    waiting: list[int] = []
    for number, (token, trained) in enumerate(zip(encoded.ids, encoded.mask, strict=True)):
        waiting.append(token)
        text = chat.tokenizer.decode(waiting)
        last = number + 1 == len(encoded.ids) or encoded.mask[number + 1] != trained
        if last or not text.endswith("\ufffd"):
            pieces.append(Piece(text, trained))
            waiting = []
    return tuple(pieces)
