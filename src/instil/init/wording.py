"""The wording of the templates that `instil init` writes, by the kind of the target.

A template here is a mapping with the keys of a task file. Those of role `answer` need neither
target nor choices: the task's own stand in. `$text` and `$answer` below become the row's fields,
`$noun` and `$name` what people call them (a review and its sentiment).

A column with a name for a quality (`sarcastic`, `is_spam`) has no value that is "the sarcastic of a
text". Its questions are of the form that is right for its name: `Is this text sarcastic?`, `Is this
text a duplicate?` or, for whatever else, `Does the label "has refund" fit this text?`.

Tests: `tests/init/test_phrasing.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import Template as Pattern

from instil.data.readers.shapes import Shape
from instil.data.registry import NUMBER
from instil.init.guesses import NOUNS, RATINGS, Kind, name_words
from instil.init.inspect import Guess
from instil.init.labels import Asks, listable
from instil.init.words import VERBS, own_words
from instil.tasks.template import quoted, spelt

Entry = dict[str, object]
"""One entry of a task file's `templates`."""

_LIST = '{{ choices | join(", ") }}'
_OR = '{{ choices | join(" or ") }}'
_LINES = "{% for choice in choices %}\n- {{ choice }}\n{% endfor %}\n"

_CLASSES = (
    ("question", f"What is the $name of this $noun? Answer with one of: {_LIST}.\n\n$text"),
    ("after_text", f"$text\n\nWhich of these fits the $noun above best: {_LIST}?"),
    ("options", f"Choose the $name of the $noun.\n\n$Noun: $text\n\nOptions:\n{_LINES}$Name:"),
)
_UNLISTED = (
    ("question", "What is the $name of this $noun? Answer with the $name alone.\n\n$text"),
    ("after_text", "$text\n\nWhich $name fits the $noun above best?"),
    ("fields", "$Noun: $text\n\n$Name:"),
)
_YES_NO = (
    ("question", f"$Predicate? Answer {_OR}.\n\n$text"),
    ("after_text", f"$text\n\n$Predicate_above, {_OR}?"),
    ("fields", f"$Noun: $text\n\n$Name ({_OR}):"),
)
_ANSWER = (
    ("question", f"Answer {_OR}.\n\n$text"),
    ("after_text", f"$text\n\nWhich is right, {_OR}?"),
    ("fields", f"$Noun: $text\n\nAnswer ({_OR}):"),
)
_LETTER = (
    ("question", f"Which $name does this $noun have, {_OR}?\n\n$text"),
    ("after_text", f"$text\n\nIs the $name of the $noun above {_OR}?"),
    ("fields", f"$Noun: $text\n\n$Name ({_OR}):"),
)
_NUMBER = (
    (
        "question",
        f"Which $thing does this $noun belong to? Answer with its number, one of: {_LIST}."
        "\n\n$text",
    ),
    (
        "after_text",
        f"$text\n\nWhich $thing number fits the $noun above best: {_LIST}?",
    ),
    ("options", f"$Noun: $text\n\nThe $thing number can be one of:\n{_LINES}Number:"),
)
_ASKED = {
    Asks.NAME: _CLASSES,
    Asks.YES_NO: _YES_NO,
    Asks.ANSWER: _ANSWER,
    Asks.LETTER: _LETTER,
    Asks.NUMBER: _NUMBER,
}
_RATING = (
    (
        "scale",
        "$Rate on a scale from $low (lowest) to $high (highest)$end Answer with the number "
        "alone.\n\n$text",
    ),
    ("after_text", f"$text\n\n$Which the $noun above? One of: {_LIST}."),
    ("options", f"$Noun: $text\n\nThe $name can be one of:\n{_LINES}$Name:"),
)
_FREE = {
    "summary": (
        ("question", "Summarise this $noun.\n\n$text"),
        ("after_text", "$text\n\nWrite a short summary of the $noun above."),
        ("fields", "$Noun: $text\n\nSummary:"),
    ),
    "headline": (
        ("question", "Write a headline for this $noun.\n\n$text"),
        ("after_text", "$text\n\nWhat would be a good title for the $noun above?"),
        ("fields", "$Noun: $text\n\nHeadline:"),
    ),
    "answer": (
        ("question", "Answer this question.\n\n$text"),
        ("short", "$text"),
        ("fields", "Question: $text\n\nAnswer:"),
    ),
    "translation": (
        ("question", "Translate this $noun.\n\n$text"),
        ("after_text", "$text\n\nTranslate the $noun above."),
        ("fields", "$Noun: $text\n\nTranslation:"),
    ),
    "correction": (
        ("question", "Correct the mistakes in this $noun.\n\n$text"),
        ("after_text", "$text\n\nWrite the $noun above without its mistakes."),
        ("fields", "$Noun: $text\n\nCorrected:"),
    ),
    "instruction": (
        ("plain", "$text"),
        ("labelled", "Instruction: $text\n\nResponse:"),
        ("polite", "Please do what the following asks for.\n\n$text"),
    ),
    "dialogue": (("turn", "$text"),),
    "entities": (
        (
            "question",
            "List the names in this sentence, each with its kind ($kinds), as KIND: name; KIND: "
            "name. Answer none where there are none.\n\n$text",
        ),
        (
            "after_text",
            "$text\n\nWhich names does the sentence above hold? The kinds are $kinds. Write each "
            "as KIND: name, parted by semicolons, or none.",
        ),
        ("fields", "Sentence: $text\n\nNames (kinds: $kinds; or none):"),
    ),
    "other": (
        ("question", "Read this $noun and write its $name.\n\n$text"),
        ("after_text", "$text\n\nWrite the $name that goes with the $noun above."),
        ("fields", "$Noun: $text\n\n$Name:"),
    ),
}
_INVERTED = {
    "instruction": "Here is a response. Write the instruction that it follows.\n\n$answer",
    "answer": "Here is an answer. Write a question that it answers.\n\n$answer",
    "summary": "Write $a_noun of which this is the summary.\n\n$answer",
    "headline": "Write $a_noun that goes with this headline.\n\n$answer",
    "translation": "This is a translation. Write what it was translated from.\n\n$answer",
    "entities": "Write a sentence that holds these names.\n\n$answer",
}
_TARGET_KINDS = {
    "summary": "summary abstract highlights".split(),
    "headline": "headline title".split(),
    "answer": "answer reply".split(),
    "translation": "translation translated".split(),
    "correction": "correction corrected fixed".split(),
    "instruction": "completion response output".split(),
}

_QUALITIES = frozenset(
    "sarcastic ironic satirical toxic offensive hateful abusive obscene insulting threatening spam "
    "clickbait relevant irrelevant helpful unhelpful useful useless positive negative neutral "
    "urgent funny humorous subjective objective factual true false correct incorrect grammatical "
    "ungrammatical acceptable fluent safe unsafe harmful harmless appropriate inappropriate sexist "
    "racist aggressive political polite impolite rude formal informal fake genuine misleading "
    "biased personal confidential sensitive plausible implausible readable informative "
    "trustworthy credible suspicious fraudulent anonymous".split()
)
"""What a text can be said to be: `Is this text spam?`."""
_KINDS_OF_TEXT = frozenset(
    "duplicate complaint question bug joke scam rumor rumour lie paraphrase insult threat "
    "compliment request hoax advert advertisement recommendation suggestion".split()
)
"""What a text can be called, with an article: `Is this text a complaint?`."""
_ENDINGS = ("ful", "less", "ous", "able", "ible", "ive", "ish", "ing", "ed")
"""How names end that are seldom a noun with values of its own."""
_NOT_QUALITIES = frozenset(
    "table variable cable archive feeling building rating speed feed".split()
)


_KIND = re.compile(r"(?:^|; )([^\s:;{}]+): ")
"""The kind of a name in the completion of a tagged row."""


def free_text_kind(guess: Guess) -> str:
    """Return the kind of a free-text task: summary, headline, answer, translation ... or other."""
    if guess.shape is not Shape.PLAIN and guess.target.name == "completion":
        if guess.shape is Shape.TAGGED:
            return "entities"
        return "dialogue" if guess.history else "instruction"
    words = name_words(guess.target.name)
    return next((kind for kind, names in _TARGET_KINDS.items() if set(words) & set(names)), "other")


def templates(guess: Guess) -> list[Entry]:
    """Word the templates of a task: three or more questions, then the way back."""
    text, answer = _braced(guess.text_field), _braced(guess.target_field)
    words = {"text": text, "answer": answer, **_names(guess)}
    if guess.kind is Kind.FREE_TEXT:
        kind = free_text_kind(guess)
        system = {"system": _braced(guess.system)} if guess.system else {}
        entries = [_entry(id, prompt, words) | system for id, prompt in _FREE[kind]]
        # The one question of a dialogue is the user's; the way back of a correction makes mistakes.
        if kind in ("dialogue", "correction"):
            return entries
        back = _INVERTED.get(kind, "Write $a_noun that this $name goes with.\n\n$answer")
        return [*entries, _inverted(back, words)]
    choices, patterns = guess.labels.choices if guess.labels else (), _UNLISTED
    if guess.kind is Kind.RATING:
        patterns = _RATING
    elif guess.labels and listable(choices):
        patterns = _ASKED[guess.labels.asks]
    # Choices in which Jinja2 would see its own braces are written as texts that it leaves alone.
    safe = [
        f"{{{{ {quoted(choice)} }}}}" if re.search(r"\{[{%#]", choice) else choice
        for choice in choices
    ]
    own: Entry = {"choices": safe} if safe != list(choices) else {}
    entries = [_entry(id, prompt, words) | own for id, prompt in patterns]
    if guess.kind is Kind.RATING and len(choices) > 2:
        entries.append(_rough(guess.target_field, choices, words))
    if guess.labels and guess.labels.asks is not Asks.NAME:
        return entries  # "write a text whose label is: no" is no question to learn from
    label = "with this label" if words["name"] == "label" else "whose $name is"
    return [*entries, _inverted(f"Write $a_noun {label}: $answer", words)]


def _names(guess: Guess) -> dict[str, str]:
    """Find words for the text and the answer, and the ends of a scale."""
    noun = next((word for word in name_words(guess.text.name) if word in NOUNS), "text")
    asks = guess.labels.asks if guess.labels else Asks.NAME
    choices = guess.labels.choices if guess.labels else ("", "")
    name = _called(guess.target.name, choices, asks=asks)
    if guess.kind is Kind.RATING and name.endswith("label"):
        name = "rating"
    asked, above = _predicate(guess.target.name, noun=noun)
    kinds = sorted({kind for value in guess.target.values for kind in _KIND.findall(value)})
    return {
        "noun": noun,
        "a_noun": f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}",
        "Noun": noun.capitalize(),
        "name": name,
        "Name": name[:1].upper() + name[1:],
        "thing": name if name != "label" else "class",
        "Predicate": asked,
        "Predicate_above": above,
        **_rating_question(guess, noun=noun, name=name),
        "kinds": ", ".join(kinds) or "as you see fit",
        "low": choices[0],
        "high": choices[-1],
    }


def _called(column: str, choices: Sequence[str], *, asks: Asks) -> str:
    """Return what stands for the answer in "the ... of this text"."""
    words = [word for word in name_words(column) if not word.isdigit()]
    own = own_words(column)
    if asks is Asks.YES_NO:
        return " ".join(_quality(own)) or "target class"
    if own in (["stars"], ["star"]):
        return "number of stars" if all(map(NUMBER.fullmatch, choices)) else "rating"
    if own and own[-1] not in [choice.lower() for choice in choices]:
        # What a text is, and not what of it: sarcastic, and not sentiment.
        ends = len(own[-1]) > 4 and own[-1].endswith(_ENDINGS) and own[-1] not in _NOT_QUALITIES
        quality = own[0] in VERBS or ends or own[-1] in _QUALITIES | _KINDS_OF_TEXT
        return f'"{" ".join(_quality(own))}" label' if quality else " ".join(own)
    return next((word for word in words if word in ("label", "class")), "label")


def _quality(words: list[str]) -> list[str]:
    """Return what a yes-or-no name says without its verb: `is spam` says `spam`."""
    return words[1:] if words[:1] and words[0] in ("is", "was", "are", "were") else words


def _predicate(column: str, *, noun: str) -> tuple[str, str]:
    """Word the question of a yes-or-no column, before the text and after it.

    >>> _predicate("is_spam", noun="email")
    ('Is this email spam', 'Is the email above spam')
    >>> _predicate("has_refund", noun="ticket")[0]
    'Does the label "has refund" fit this ticket'
    """
    quality = _quality(own_words(column))
    said = " ".join(quality)
    if not quality:
        question = "Does $it belong to the target class"
    elif said in _QUALITIES:
        question = f"Is $it {said}"
    elif said in _KINDS_OF_TEXT:
        question = f"Is $it {'an' if said[0] in 'aeiou' else 'a'} {said}"
    else:
        question = f'Does the label "{said}" fit $it'
    asked = Pattern(question)
    return asked.substitute(it=f"this {noun}"), asked.substitute(it=f"the {noun} above")


def _rating_question(guess: Guess, *, noun: str, name: str) -> dict[str, str]:
    """Word the question of a rating: its end differs as it asks, or tells."""
    own = own_words(guess.target.name)
    if len(own) == 1 and own[0] in _QUALITIES:
        return {"Rate": f"How {own[0]} is this {noun},", "end": "?", "Which": f"How {own[0]} is"}
    if set(name.split()) & RATINGS:
        return {"Rate": f"Rate this {noun}", "end": ".", "Which": f"Which {name} goes with"}
    return {
        "Rate": f"Rate the {name} of this {noun}",
        "end": ".",
        "Which": f"What is the {name} of",
    }


def _entry(id: str, prompt: str, words: dict[str, str]) -> Entry:
    return {"id": id, "prompt": Pattern(prompt).substitute(words)}


def _inverted(prompt: str, words: dict[str, str]) -> Entry:
    entry = _entry("write_it", prompt, words)
    return {**entry, "role": "inverted", "target": words["text"]}


def _rough(field: str, choices: Sequence[str], words: dict[str, str]) -> Entry:
    """Ask for the rough place on the scale: being off by one there matters less."""
    third = (len(choices) + 1) // 3
    ends = (choices[:third], choices[-third:])
    low, high = (f"[{', '.join(map(quoted, part))}]" for part in ends)
    name = spelt(field)
    middle = "'high' if " + f"{name} in {high} else 'middle'"
    prompt = f"$text\n\nIs the $name of the $noun above low, middle or high? One of: {_LIST}."
    return {
        **_entry("roughly", prompt, words),
        "role": "auxiliary",
        "target": f"{{{{ 'low' if {name} in {low} else {middle} }}}}",
        "choices": ["low", "middle", "high"],
    }


def _braced(name: str) -> str:
    return f"{{{{ {spelt(name)} }}}}"
