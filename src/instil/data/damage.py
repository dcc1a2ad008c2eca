"""What may be wrong with a text itself: damaged encoding, HTML left in it, personal data.

Each check takes one text and gives back what it found, as an excerpt, or an empty text. They err on
the side of silence: a check that cries at every third row is not read.

>>> mojibake("a cafÃ© by the sea"), entity("R&amp;D"), tag("good<br />film")
('cafÃ©', '&amp;', '<br />')
>>> card("paid with 4111 1111 1111 1111"), email("write to ada@example.org")
('4111...1111', 'a...@example.org')
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable

_MOJIBAKE = re.compile(
    r"[ÃÂ][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc"
    r"\u2013-\u2122]|â€|â\u201a¬|â[\u0080-\u0082][\u0080-\u00bf]"
)
_FOREIGN = re.compile("[\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u00ff]{5}")
_CONTROL = re.compile("[\u0080-\u0084\u0086-\u009f]")  # U+0085 ends lines in some texts
_ENTITY = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]{1,30}|#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6});")
_TAG = re.compile(
    r"</?(?:a|b|i|u|p|br|hr|em|ul|ol|li|td|tr|th|h[1-6]|div|img|pre|sup|sub|code|span|font|table|"
    r"strong|center|script|style|blockquote)(?:\s[^<>]{0,300})?\s*/?>",
    re.IGNORECASE,
)
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,4}\.[A-Za-z]{2,}")
_DIGITS = re.compile(r"(?<![A-Za-z0-9_.,-])\d(?:[ -]?\d){12,18}(?![A-Za-z0-9_-])")
_PHONE = re.compile(
    r"(?<![A-Za-z0-9_.,/-])(?<!\d )"
    r"(?:\+\d{1,3}[ ./-]?(?:\(0\)[ ]?)?(?:\(?\d{1,5}\)?[ ./-]?){1,5}\d{2,4}"
    r"|\(\d{3}\)[ ]?\d{3}[ .-]\d{4}"
    r"|\d{3}[.-]\d{3}[.-]\d{4}"
    r"|0\d{1,4}-\d{1,4}-\d{4}"
    r"|0\d{2,4}[ /-]\d{3,4}[ -]?\d{3,5})(?![A-Za-z0-9_/-])"
)
_FEWEST_PHONE_DIGITS, _MOST_PHONE_DIGITS = 9, 15


def mojibake(text: str) -> str:
    """Find UTF-8 that was read as Windows-1252 or Latin-1 (`cafÃ©`)."""
    match = _MOJIBAKE.search(text) if any(sign in text for sign in "ÃÂâ") else None
    if match is None:
        return ""
    start, end = match.span()
    before, after = text[max(0, start - 20) : start], text[end : end + 20]
    return re.split(r"\s", before)[-1] + match[0] + re.split(r"\s", after)[0]


def foreign(text: str) -> str:
    """Find another script that was read as Latin: no word has five letters with accents in a row.

    >>> foreign("ïëîõî è äîðîãî"), foreign("déçu, naïve")
    ('ïëîõî', '')
    """
    match = None if text.isascii() else _FOREIGN.search(text)
    return match[0] if match else ""


def control(text: str) -> str:
    """Find Windows-1252 that was read as Latin-1: its quotes and dashes become control codes."""
    match = None if text.isascii() else _CONTROL.search(text)
    if match is None or mojibake(text):
        return ""
    return repr(text[max(0, match.start() - 10) : match.end() + 10].strip())[1:-1]


def replacement(text: str) -> str:
    """Find the sign that stands for a character that was lost."""
    at = text.find("\ufffd")
    return "" if at < 0 else text[max(0, at - 15) : at + 15].strip()


def entity(text: str) -> str:
    """Find an HTML entity that stands for a character; `AT&T;` is none."""
    if "&" not in text:
        return ""
    found = (match[0] for match in _ENTITY.finditer(text) if html.unescape(match[0]) != match[0])
    return next(found, "")


def tag(text: str) -> str:
    """Find an HTML tag; `<3` and `a < b` are none."""
    match = _TAG.search(text) if "<" in text else None
    return match[0][:40] if match else ""


def email(text: str) -> str:
    """Find an e-mail address; its owner is not shown in full."""
    match = _EMAIL.search(text) if "@" in text else None
    return f"{match[0][0]}...@{match[0].partition('@')[2]}" if match else ""


def phone(text: str) -> str:
    """Find a telephone number written as one: `+49 30 1234567`, `(555) 123-4567`."""
    for match in _PHONE.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if _FEWEST_PHONE_DIGITS <= len(digits) <= _MOST_PHONE_DIGITS:
            return f"{match[0].strip()[:4]}...{digits[-2:]}"
    return ""


def card(text: str) -> str:
    """Find a payment card's number: 13 to 19 digits with the right check digit."""
    for match in _DIGITS.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if digits[0] in "23456" and len(set(digits)) > 1 and luhn(digits):
            return f"{digits[:4]}...{digits[-4:]}"
    return ""


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B).

    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


DAMAGE: dict[str, tuple[Callable[[str], str], str]] = {
    "text of a damaged encoding": (mojibake, "mend_encoding"),
    "Windows-1252 that was read as Latin-1 (`encoding: cp1252` reads it right)": (
        control,
        "mend_encoding",
    ),
    "another script that was read as Latin letters (`encoding: cp1251`, say, for Russian)": (
        foreign,
        "",
    ),
    "characters that were lost (\ufffd)": (replacement, ""),
    "HTML entities": (entity, "unescape"),
    "HTML tags": (tag, "strip_tags"),
}
"""What is found -> the check, and the filter that mends it (none where nothing can)."""

PERSONAL: dict[str, Callable[[str], str]] = {
    "an e-mail address": email,
    "a telephone number": phone,
    "a payment card's number": card,
}
"""What is found -> the check."""
