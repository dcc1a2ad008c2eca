from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.data.columns import Column
from instil.data.damage import (
    card,
    control,
    email,
    entity,
    foreign,
    luhn,
    mojibake,
    phone,
    replacement,
    tag,
)
from instil.tasks.template import evaluate


@pytest.mark.parametrize(
    "text",
    [
        "café",
        "naïve \u2013 yes",
        "it\u2019s \u201cfine\u201d",
        "£5",
        "Ærø",
        "señor",
        "Übergröße",
        "1€",
        "São Paulo",
    ],
)
def test_utf8_read_as_windows_text_is_found_and_mended(text):
    broken = text.encode().decode("cp1252", "replace")
    assert mojibake(text) == ""
    if "\ufffd" not in broken:
        assert mojibake(broken), broken
        assert evaluate("t | mend_encoding", {"t": broken}, where="") == text
    assert mojibake(text.encode().decode("latin-1"))


@pytest.mark.parametrize(
    "text", ["Ã", "Â", "À la carte", "SÃO PAULO", "Â la", "FAÇADE ÂGE", "plain", "MÃE É"]
)
def test_capitals_with_accents_are_no_damage(text):
    assert mojibake(text) == ""


def test_lost_characters():
    assert replacement("a caf\ufffd by the sea") == "a caf\ufffd by the sea"
    assert replacement("a café") == ""


@pytest.mark.parametrize("text", ["R&amp;D", "it&#039;s", "&quot;x&quot;", "&#x27;", "a&nbsp;b"])
def test_entities_are_found(text):
    assert entity(text)
    assert not entity(evaluate("t | unescape", {"t": text}, where=""))


@pytest.mark.parametrize("text", ["R&D", "AT&T; x", "a & b;", "Q&A: yes;", "x &foo; y"])
def test_ampersands_are_no_entities(text):
    assert entity(text) == ""


@pytest.mark.parametrize("text", ["good<br />film", "<b>x</b>", '<a href="x">y</a>', "a<P>b"])
def test_tags_are_found_and_stripped(text):
    assert tag(text)
    assert "<" not in evaluate("t | strip_tags", {"t": text}, where="")


@pytest.mark.parametrize("text", ["I <3 it", "a < b and c > d", "x <- y", "if a<b: c>d", "<unk> x"])
def test_signs_are_no_tags(text):
    assert tag(text) == ""


def test_stripped_tags_part_words():
    text = "good<br /><br />film &amp; <i>plot</i>, 1 < 2"
    assert evaluate("t | strip_tags", {"t": text}, where="") == "good\n\nfilm & plot, 1 < 2"


@pytest.mark.parametrize("text", ["ada.b+c@example.org", "mail: ADA@mail.example.co.uk."])
def test_mail_addresses(text):
    assert "...@" in email(text)
    assert "ada.b" not in email(text)


@pytest.mark.parametrize("text", ["@user hello", "a @ b.com", "5@home", "see foo@bar"])
def test_no_mail_addresses(text):
    assert email(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "call +49 30 1234567",
        "(555) 123-4567",
        "555-123-4567 now",
        "tel: +1-202-555-0143",
        "030 1234 5678",
        "+44 (0)20 7946 0958",
        "电话+86 138 1234 5678",
        "電話03-1234-5678まで",
    ],
)
def test_phone_numbers(text):
    assert phone(text)


@pytest.mark.parametrize(
    "text",
    ["2024-05-06", "10,000,000", "1234567890123", "3.14159265358", "from 1990 to 2005 and 2010",
     "05/06/2024", "192.168.100.200", "page 12-14", "1 000 000 000", "ISBN 978-3-16-148410-0"],
)  # fmt: skip
def test_no_phone_numbers(text):
    assert phone(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1111",
        "card: 5500-0000-0000-0004.",
        "340000000000009",
        "卡号4111 1111 1111 1111",
        "カード4111111111111111です",
    ],
)
def test_card_numbers(text):
    assert card(text)
    assert len(card(text)) == 11


@pytest.mark.parametrize(
    "text",
    ["4111 1111 1111 1112", "0000 0000 0000 0000", "1234567890123456", "order-4111111111111111-x"],
)
def test_no_card_numbers(text):
    assert card(text) == ""


@given(st.text("0123456789", min_size=12, max_size=18))
def test_one_digit_of_ten_completes_a_number(digits):
    assert sum(luhn(digits + last) for last in "0123456789") == 1


@given(st.text(max_size=200))
def test_no_text_breaks_a_check(text):
    for check in (mojibake, control, replacement, entity, tag, email, phone, card):
        assert isinstance(check(text), str)


@given(st.text(st.sampled_from("„“”…€ä é\n"), min_size=1))
def test_windows_1252_that_was_read_as_latin_1_is_found_and_mended(text: str) -> None:
    read = text.encode("cp1252").decode("latin-1")
    found = control(read)
    assert bool(found) == any(sign in text for sign in "„“”€")  # not of an ellipsis alone
    assert not any("\x80" <= sign <= "\x9f" for sign in found), "it is shown escaped"
    if not mojibake(read):
        assert evaluate("t | mend_encoding", {"t": read}, where="") == text


def test_another_script_read_as_latin_letters_is_found():
    assert len(foreign("Отличный товар".encode("cp1251").decode("cp1252"))) == 5
    for plain in ("déçue à l'été, naïve", "Übergrößenträger", "São João", "Отличный товар"):
        assert foreign(plain) == ""


def test_long_cells_without_blanks_are_searched_in_a_moment():
    began = time.process_time()
    for cell in ("a" * 1_000_000 + "@", "字" * 1_000_000 + "château", "a.b+" * 250_000 + "@"):
        assert not email(cell)
        assert not mojibake(cell)
        Column("x").add(cell)
    assert mojibake("字" * 1_000_000 + "cafÃ© by").endswith("cafÃ©")
    assert time.process_time() - began < 5
