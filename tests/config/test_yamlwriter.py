from __future__ import annotations

import string

from hypothesis import example, given, settings
from hypothesis import strategies as st

from instil.config.yamlfile import parse_yaml
from instil.config.yamlwriter import comment, dump_yaml
from instil.errors import RecipeError

SPECIAL = [
    "{{ x }}",
    "{% if",
    "yes",
    "null",
    "1e-4",
    "- a",
    "a: b",
    "# no",
    "a\nb",
    " a\nb ",
    "'\"",
    "",
]
TEXTS = st.one_of(
    st.sampled_from(SPECIAL),
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.text(alphabet=string.printable, max_size=30),
)
VALUES = st.recursive(
    st.one_of(TEXTS, st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, width=32)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(TEXTS.filter(bool), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)  # a hundred take seconds, in which nothing new is met
@given(st.dictionaries(st.sampled_from(["a", "b c", "yes"]), VALUES, min_size=1))
@example({"a": ["?x", "x"], "b": {"?k": "?v"}})
def test_what_is_written_reads_back_the_same(data: dict[str, object]) -> None:
    text = dump_yaml(data, header="A file.")
    assert parse_yaml(text, where="f", error=RecipeError).data == data


def test_comments_stand_above_their_keys() -> None:
    from ruamel.yaml.comments import CommentedMap

    mapping = CommentedMap(a=1, b=[1, 2])
    comment(mapping, "b", "two\nlines")
    assert dump_yaml(mapping) == "a: 1\n# two\n# lines\nb: [1, 2]\n"
