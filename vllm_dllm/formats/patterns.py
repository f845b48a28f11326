"""JSON schema's `pattern`: what a string must match, as a regex of the string's text in JSON."""

import re
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

# what may stand in a string as it is: nothing that JSON escapes, nor controls
PLAIN = r'[^"\\\x00-\x1F\x7F-\x9F]'
CHARACTER = rf'(?:{PLAIN}|\\["\\/bfnrt])'
UNSAFE = r'"\\\x00-\x1F\x7F-\x9F'
# dialects differ in what a digit is: what is in is in in all of them, what is out is out in all
OUT = {"CATEGORY_DIGIT": r"\d", "CATEGORY_WORD": r"\w", "CATEGORY_SPACE": r"\s"}
IN = {
    "CATEGORY_DIGIT": "0-9",
    "CATEGORY_WORD": "A-Za-z0-9_",
    "CATEGORY_SPACE": " ",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_NOT_WORD": r"\W",
    "CATEGORY_NOT_SPACE": r"\S",
}


def literal(text: str) -> str:
    """A regex of this text alone."""
    return re.sub(r"([\\.+*?()|\[\]{}^$#&~-])", r"\\\1", text)


def in_json(pattern: str) -> str:
    """The regex of all strings that `pattern` is found in, between their quotes. Raises ValueError for what it cannot.

    As in JSON schema a pattern may be found anywhere, unless it begins with ^ or ends with $. What would have to be
    escaped matches a literal alone.
    """
    try:
        tree = list(_parser.parse(pattern))
    except (re.error, RecursionError, OverflowError) as e:
        raise ValueError(f"it is no regex ({e})") from None
    front = back = f"{CHARACTER}*"
    if tree and tree[0] == (_constants.AT, _constants.AT_BEGINNING):
        front, tree = "", tree[1:]
    if tree and tree[-1] == (_constants.AT, _constants.AT_END):
        back, tree = "", tree[:-1]
    return f"{front}{_sequence(tree)}{back}"


def _sequence(tree: Any) -> str:
    return "".join(_part(kind, value) for kind, value in tree)


def _part(kind: Any, value: Any) -> str:
    if kind is _constants.LITERAL:
        return _literal(chr(value))
    if kind is _constants.NOT_LITERAL:
        return f"[^{_escaped(chr(value))}{UNSAFE}]"
    if kind is _constants.ANY:
        return PLAIN
    if kind is _constants.IN:
        return _class(value)
    if kind in (_constants.MAX_REPEAT, _constants.MIN_REPEAT):
        low, high, what = value
        return f"(?:{_sequence(what)}){{{low},{'' if high is _constants.MAXREPEAT else high}}}"
    if kind is _constants.SUBPATTERN and not value[1] and not value[2]:  # no flags
        return f"(?:{_sequence(value[3])})"
    if kind is _constants.BRANCH:
        return f"(?:{'|'.join(map(_sequence, value[1]))})"
    raise ValueError(f"{str(kind).lower()} is not supported inside it")


def _literal(character: str) -> str:
    if character in '"\\':
        return "\\\\" + literal(character)
    if character in "\n\t\r\b\f":
        return "\\\\" + {"\n": "n", "\t": "t", "\r": "r", "\b": "b", "\f": "f"}[character]
    if ord(character) < 32 or 127 <= ord(character) < 160:
        raise ValueError("a control character is not supported inside it")
    return literal(character)


def _escaped(character: str) -> str:
    return f"\\x{{{ord(character):X}}}"


def _class(items: Any) -> str:
    negated = items[0][0] is _constants.NEGATE
    text = ""
    for kind, value in items[negated:]:
        if kind is _constants.LITERAL:
            text += _escaped(chr(value))
        elif kind is _constants.RANGE:
            text += f"{_escaped(chr(value[0]))}-{_escaped(chr(value[1]))}"
        elif kind is _constants.CATEGORY and str(value) in (OUT if negated else IN):
            text += (OUT if negated else IN)[str(value)]
        else:
            raise ValueError(f"{str(kind).lower()} is not supported inside it")
    return f"[^{text}{UNSAFE}]" if negated else f"[{text}&&{PLAIN}]"
