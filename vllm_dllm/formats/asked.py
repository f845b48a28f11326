"""What a request asks its answer to be, as it crosses to the process that builds formats."""

from typing import Any, NamedTuple

import numpy as np

from vllm_dllm.formats.language import DEAD, Language, byte_automaton
from vllm_dllm.formats.patterns import literal
from vllm_dllm.formats.schema import regex_of
from vllm_dllm.options import SettingError


class Asked(NamedTuple):
    """`kind` is regex, choice or json. Strings and tuples alone, so that equal ones are found again."""

    kind: str
    value: Any  # the regex; a tuple of choices; the schema's JSON text
    whitespace: str = "[ ]?"  # json: a regex of what may stand between two tokens of JSON

    def language(self) -> Language:
        """Raises SettingError for what is no regular language, or no format at all."""
        if self.kind == "regex":
            return Language(self.value)
        if self.kind == "choice":
            return Language("|".join(map(literal, self.value)), exact=True)
        return Language(regex_of(self.value, f"(?:{self._whitespace()})"), exact=True)

    def _whitespace(self) -> str:
        steps = byte_automaton(Language(self.whitespace, exact=True)).steps
        if set(np.flatnonzero((steps != DEAD).any(0)).tolist()) - set(b" \t\n\r"):
            raise SettingError(
                f"whitespace_pattern={self.whitespace!r} is not allowed: it must match nothing but spaces, tabs and line "
                "breaks"
            )
        return self.whitespace
