"""JSON without Python's leniencies: what one program reads, every other reads too."""

import json

import pytest
from hypothesis import given, strategies as st

from app.strict_json import MAX_DEPTH, parse, parse_accepted

# No NUL and no half of a surrogate pair, which are refused below.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(values, st.booleans())
def test_json_is_read_as_it_was_written(value, escaped):
    text = json.dumps(value, ensure_ascii=escaped)
    assert parse(text) == value
    assert parse(text.encode()) == value


@given(st.binary(max_size=30))
def test_parsing_raises_nothing_but_value_errors(raw):
    try:
        parse(raw)
    except ValueError as error:
        assert str(error)  # noqa: PT017


REFUSED = {
    "not JSON": [
        *("", "{", "{'a': 1}", '{"a": 1,}', "[1] 2", "01", "// x\n1", '"\t"'),
        *("\ufeff1", b"\xef\xbb\xbf1", "NaN", "[Infinity]", '{"a": -Infinity}'),
    ],
    # UTF-16, a byte alone, a surrogate as CESU-8 writes it, and an overlong NUL
    "not UTF-8": [b"\xff\xfe1\x00", b'"\xff"', b'"\xed\xa0\x80"', b'"\xc0\x80"'],
    "same key twice": [
        '{"a": 1, "a": 1}',
        '{"a": 1, "\\u0061": 2}',
        '[{"b": {"a": 1, "c": 2, "a": 3}}]',
    ],
    "too large": ["1e999", "-1e999"],
    "NUL": ['"\\u0000"', '{"\\u0000": 1}', '[["a\\u0000b"]]'],
    "surrogate": ['"\\ud800"', '"\\udc00\\ud800"', '{"\\udfff": 1}', '"\ud800"'],
}


def both_forms(text):
    """The text and its UTF-8, where it has both: Deputy parses them in different ways."""
    if isinstance(text, bytes) or "\ud800" in text:
        return [text]
    return [text, text.encode()]


@pytest.mark.parametrize("reason", REFUSED)
def test_json_that_only_some_programs_read_is_refused(reason):
    for text in REFUSED[reason]:
        for form in both_forms(text):
            with pytest.raises(ValueError, match=reason):
                pytest.fail(repr((form, parse(form))))
    assert parse('"\\ud83d\\ude00"') == "😀", "a whole surrogate pair is a character"


@pytest.mark.parametrize(
    ("before", "after"), [("[", "]"), ('{"a":', "}")], ids=["lists", "objects"]
)
def test_nesting_ends_at_32(before, after):
    assert MAX_DEPTH == 32
    for form in both_forms(before * 32 + "1" + after * 32):
        parse(form)
    for form in both_forms(before * 33 + "1" + after * 33):
        with pytest.raises(ValueError, match="deeper than 32"):
            parse(form)


@pytest.mark.parametrize("depth", [1_000, 100_000])
@pytest.mark.parametrize("text", ["[", '{"a":', '[{"a":'])
def test_nesting_without_end_is_no_crash(text, depth):
    with pytest.raises(ValueError, match=r"deeper than 32|not JSON|more than 20000 values"):
        parse(text * depth)


def test_a_number_of_many_digits_is_refused_in_our_words():
    with pytest.raises(ValueError) as caught:
        parse("1" * 5_000)
    assert "sys." not in str(caught.value)


MANY_KEYS, MANY_VALUES = dict.fromkeys(map(str, range(2_000)), 1), [1] * 30_000
ACCEPTED = {
    "long key": (json.dumps({"k" * 300: 1}), {"k" * 300: 1}),
    "many keys": (json.dumps(MANY_KEYS), MANY_KEYS),
    "many values": (json.dumps(MANY_VALUES), MANY_VALUES),
    "characters": (r'["a\u0000b", "\ud83d\ude00"]', ["a\ufffdb", "\U0001f600"]),
    "keys that become equal": (
        r'{"\ud800": 1, "\u0000": 2, "\ufffd": 3, "a": 4}',
        {"\ufffd": 1, "\ufffd1": 2, "\ufffd2": 3, "a": 4},
    ),
    "digits": ("9" * 5_000, "9" * 5_000),
    "large": ("[1e999, -1, 1.5]", ["1e999", -1, 1.5]),
}


@pytest.mark.parametrize("reason", ACCEPTED)
def test_what_another_service_accepted_hides_nothing_beside_it(reason):
    padding, read = ACCEPTED[reason]
    with pytest.raises(ValueError, match=r"\w"):
        parse(padding)
    assert parse_accepted(padding) == read


@pytest.mark.parametrize(
    "text", ["", "{", "NaN", '{"a": 1, "a": 2}', "[" * 100_000, "[" * 40 + "]" * 40]
)
def test_what_cannot_be_read_at_all_stays_a_value_error(text):
    with pytest.raises(ValueError, match=r"\w"):
        parse_accepted(text)
