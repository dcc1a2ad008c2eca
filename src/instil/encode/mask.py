r"""Examples to tokens, and which of the tokens are trained on.

Terms: the *prompt* is everything up to where the assistant starts to speak; the *completion* is
the target plus the *stop token* with which the model's own chat template ends a turn. Only the
completion is trained on::

    <|im_start|>user\nIs this positive? ...<|im_end|>\n<|im_start|>assistant\npositive<|im_end|>
    |------------------------------ prompt: mask False ----------------------||-- mask True --|

In a conversation every turn of the assistant can be trained on, each with its stop token::

    user ... assistant\nHello.<|im_end|>\n<|im_start|>user\nAnd now? ... assistant\nBye.<|im_end|>
    |--- False ------||-- mask True --||-------------- False -----------------||-- True ------|

The whole is tokenized once, and cut where an answer begins (see `chat_format`); it is rendered from
the chat template first and tokenized with no added special tokens, so no BOS is doubled; and the
mask goes by position, so a padding token that equals EOS changes nothing.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import replace

from instil.encode.chat_format import ChatFormat
from instil.errors import DataError
from instil.types import Encoded, Example, Fate, Piece, TooLong, TrainOn

_TRIES = 3
"""Times that an example is shortened; what is left of it may tokenize into a token more."""


def encode(
    example: Example, chat: ChatFormat, *, max_length: int, too_long: TooLong = TooLong.ERROR
) -> Encoded:
    """Turn an example into token ids and a loss mask, both of one length <= `max_length`.

    Raises:
        DataError: the example is longer than `max_length` and the policy is `ERROR`.
    """
    encoded = _encoded(example, chat)
    if len(encoded.ids) <= max_length:
        return encoded
    why = f"{len(encoded.ids)} tokens, {max_length} allowed"
    if too_long is TooLong.ERROR:
        raise DataError(
            f"example {example.id} is too long: {why}",
            fix="raise train.max_length, or set train.too_long to shorten or drop",
        )
    if too_long is TooLong.SHORTEN:
        shorter = _shortened(example, chat, encoded, max_length=max_length)
        if shorter is not None:
            return replace(shorter, fate=Fate.TRUNCATED, why=f"input shortened ({why})")
    return Encoded(example.id, (), (), Fate.DROPPED, f"too long ({why})")


def _shortened(
    example: Example, chat: ChatFormat, made: Encoded, *, max_length: int
) -> Encoded | None:
    """Shorten an example until it fits with its answer; None where that cannot be done."""
    prompt = len(chat.prompt(example.messages, tools=example.tools))
    for _ in range(_TRIES):
        room = prompt - (len(made.ids) - max_length)
        shorter = shorten(example, chat, max_tokens=room)
        if shorter is None:
            return None
        made = _encoded(shorter, chat)
        if len(made.ids) <= max_length:
            return made
        prompt = room
    return None


def _encoded(example: Example, chat: ChatFormat) -> Encoded:
    spoken = chat.spoken(example)
    mask = [False] * len(spoken.ids)
    for begin, end in spoken.answers:
        assert begin < end, "a completion has at least its stop token"
        mask[begin:end] = [True] * (end - begin)
    return Encoded(example.id, spoken.ids, tuple(mask))


def by_turn(example: Example, chat: ChatFormat) -> tuple[Example, ...]:
    """Part a conversation into one example a turn where the chat template asks for it.

    A template may write an answer otherwise once turns follow it: one that drops the thoughts
    before it, or a base model's, which has no token for the end of a turn. There every answer is
    trained on as the last of a conversation of its own, so that it ends as it will in use.
    """
    places = chat.trained(example)
    if not places or chat.in_place(example):
        return (example,)
    turns = chat.fitted(example.messages)
    earlier = (
        replace(
            example,
            id=f"{example.id}#{number}",
            messages=turns[:place],
            target=turns[place].content,
            target_calls=turns[place].tool_calls,
            references=(),
            choices=(),
            text=turns[place - 1].content,
            train_on=TrainOn.LAST,
        )
        for number, place in enumerate(places, start=1)
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
    if len(chat.prompt(example.messages, tools=example.tools)) <= max_tokens:
        return example
    if not example.text or example.text not in last.content:
        return None
    keep = chat.tokens(example.text)
    while keep:
        over = len(chat.prompt(example.messages, tools=example.tools)) - max_tokens
        if over <= 0:
            return example
        keep = keep[: max(0, len(keep) - over)]
        # Between two tokens of one character it would end in half of it.
        text = chat.tokenizer.decode(keep).strip().rstrip("\ufffd")
        # The last time: the wording before it may use the same words.
        front, _, behind = last.content.rpartition(example.text)
        content = f"{front}{text}{behind}"
        example = replace(
            example,
            messages=(*example.messages[:-1], replace(last, content=content)),
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
        kept = [*system, *turns[start:]]
        return len(chat.prompt(kept, tools=example.tools)) <= max_tokens

    # Fewer turns are fewer tokens, so the first start that fits can be searched for by halves.
    first = bisect.bisect_left(starts, True, key=fits)
    kept = turns[starts[min(first, len(starts) - 1)] :]
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
