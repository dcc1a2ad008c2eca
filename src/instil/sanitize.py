r"""Text from outside, made harmless before it is shown: on a terminal, in a page, in a message.

Names of columns, labels, rows, paths and whatever a library says may hold what a terminal obeys
(`\x1b[31m` colours, `\x1b]0;...` sets a window's title, `\a` rings) or what turns text around::

    >>> visible("good\x1b[31m")
    'good␛[31m'
    >>> visible("abc\u202ecba")
    'abc⟨U+202E⟩cba'
    >>> shortened("word " * 100, most=20)
    'word word word wo...'
"""

from __future__ import annotations

import re

LONGEST_QUOTED = 200
"""Characters of a value that a message quotes."""

# Controls but for tab and line feed; what has no width; direction marks; halves of pairs; tags.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffe"
    "\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """Return `text` with what cannot be seen written out.

    Control characters become their pictures, direction marks and the like their code point, so
    that no text changes how the text around it reads, and all of it is legal in XML.
    """

    def picture(unseen: re.Match[str]) -> str:
        code = ord(unseen.group())
        if code < 0x20:
            return chr(0x2400 + code)
        return "\u2421" if code == 0x7F else f"\u27e8U+{code:04X}\u27e9"

    return _UNSEEN.sub(picture, text)


def shortened(text: str, *, most: int = LONGEST_QUOTED) -> str:
    """Return at most `most` characters of a text, with dots where there are more."""
    return text if len(text) <= most else text[: most - 3] + "..."
