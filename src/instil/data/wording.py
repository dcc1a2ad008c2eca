"""The wording of the templates that `instil init` writes, by the kind of the target.

A template here is a mapping with the keys of a task file. Those of role `answer` need neither
target nor choices: the task's own stand in. `$text` and `$answer` below become the row's fields,
`$noun` and `$name` what people call them (a review and its sentiment).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import Template as Pattern

from instil.data.guesses import Kind, name_words
from instil.data.inspect import Guess
from instil.data.labels import quoted, spelt
from instil.data.shapes import Shape

Entry = dict[str, object]
"""One entry of a task file's `templates`."""

_LIST = '{{ choices | join(", ") }}'
_LINES = "{% for choice in choices %}\n- {{ choice }}\n{% endfor %}\n"

_CLASSES = (
    ("question", f"What is the $name of this $noun? Answer with one of: {_LIST}.\n\n$text"),
    ("after_text", f"$text\n\nWhich of these fits the $noun above best: {_LIST}?"),
    ("options", f"Choose the $name of the $noun.\n\n$Noun: $text\n\nOptions:\n{_LINES}$Name:"),
)
_RATING = (
    (
        "scale",
        "Rate this $noun on a scale from $low (lowest) to $high (highest). Answer with the number "
        "alone.\n\n$text",
    ),
    ("after_text", f"$text\n\nWhich $name goes with the $noun above? One of: {_LIST}."),
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
    "translation": "translation".split(),
    "instruction": "completion response output".split(),
}
_NOUNS = frozenset(
    "review sentence message comment document question article tweet post email ticket dialogue "
    "conversation paragraph abstract note letter report story product".split()
)

_VERBS = frozenset("is has was are can does should".split())
"""What the name of a yes-or-no column begins with: `is_spam`."""


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
        if kind == "dialogue":  # its one question is the user's own, and there is no way back
            return entries
        back = _INVERTED.get(kind, "Write $a_noun that this $name goes with.\n\n$answer")
        return [*entries, _inverted(back, words)]
    patterns = _RATING if guess.kind is Kind.RATING else _CLASSES
    choices = guess.labels.choices if guess.labels else ()
    entries = [_entry(id, prompt, words) | _escaped(choices) for id, prompt in patterns]
    if guess.kind is Kind.RATING and len(choices) > 2:
        entries.append(_rough(guess.target_field, choices, words))
    return [*entries, _inverted("Write $a_noun whose $name is: $answer", words)]


def _names(guess: Guess) -> dict[str, str]:
    """Find words for the text and the answer, and the ends of a scale."""
    noun = next((word for word in name_words(guess.text.name) if word in _NOUNS), "text")
    words = [word for word in name_words(guess.target.name) if not word.isdigit()]
    name = " ".join(words) or "label"
    if name in ("stars", "star"):
        name = "number of stars"
    elif words[:-1] and words[0] in _VERBS:
        name = f'"{name}" label'  # "the is spam of this text" is no English
    choices = guess.labels.choices if guess.labels else ("", "")
    ends = {"low": choices[0], "high": choices[-1]}
    kinds = sorted({kind for value in guess.target.values for kind in _KIND.findall(value)})
    return {
        "noun": noun,
        "a_noun": f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}",
        "Noun": noun.capitalize(),
        "name": name,
        "Name": name.capitalize(),
        "kinds": ", ".join(kinds) or "as you see fit",
        **ends,
    }


def _entry(id: str, prompt: str, words: dict[str, str]) -> Entry:
    return {"id": id, "prompt": Pattern(prompt).substitute(words)}


def _escaped(choices: Sequence[str]) -> Entry:
    """Write out choices in which Jinja2 would see its own braces, as texts that it leaves alone."""
    unsafe = [any(brace in choice for brace in ("{{", "{%", "{#")) for choice in choices]
    if not any(unsafe):
        return {}
    pairs = zip(choices, unsafe, strict=True)
    return {"choices": [f"{{{{ {quoted(text)} }}}}" if risky else text for text, risky in pairs]}


def _inverted(prompt: str, words: dict[str, str]) -> Entry:
    entry = _entry("write_it", prompt, words)
    return {**entry, "role": "inverted", "target": words["text"]}


def _rough(field: str, choices: Sequence[str], words: dict[str, str]) -> Entry:
    """Ask for the rough place on the scale: being off by one there matters less."""
    third = (len(choices) + 1) // 3
    low, high = (_literal_list(part) for part in (choices[:third], choices[-third:]))
    name = spelt(field)
    middle = "'high' if " + f"{name} in {high} else 'middle'"
    prompt = f"$text\n\nIs the $name of the $noun above low, middle or high? One of: {_LIST}."
    return {
        **_entry("roughly", prompt, words),
        "role": "auxiliary",
        "target": f"{{{{ 'low' if {name} in {low} else {middle} }}}}",
        "choices": ["low", "middle", "high"],
    }


def _literal_list(values: Sequence[str]) -> str:
    return f"[{', '.join(quoted(value) for value in values)}]"


def _braced(name: str) -> str:
    return f"{{{{ {spelt(name)} }}}}"
