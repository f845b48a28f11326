"""Whether answers are right, by a regex or a command of the user's."""

import json
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

Grader = Callable[[Sequence[tuple[dict[str, Any], str]]], list[float]]  # lines and answers -> a grade for each, 0 to 1


class GraderError(RuntimeError):
    """A grader that gives no grades. The message says which, and what it must give."""


def by_regex(pattern: str) -> Grader:
    """Right is an answer in which `pattern` is found. `{name}` in it stands for a line's own field, as it is written:
    `^{want}$`. Raises GraderError for a pattern that is none."""

    def filled(line: dict[str, Any]) -> str:
        def field(match: re.Match[str]) -> str:
            if match[1] not in line:
                raise GraderError(f"the pattern {pattern!r} asks for {match[1]!r}, which a line has not: {line}")
            return re.escape(str(line[match[1]]))

        return re.sub(r"\{([A-Za-z_]\w*)\}", field, pattern)

    def grade(answers: Sequence[tuple[dict[str, Any], str]]) -> list[float]:
        return [float(re.search(filled(line), text, re.DOTALL) is not None) for line, text in answers]

    try:
        re.compile(re.sub(r"\{([A-Za-z_]\w*)\}", "x", pattern))
    except re.error as e:
        raise GraderError(f"{pattern!r} is no regular expression: {e}") from None
    return grade


def by_command(command: str) -> Grader:
    """A program that reads a JSON line for each answer, `{"line": {...}, "answer": "..."}`, and prints its grade on a
    line: a number from 0 to 1, or true or false."""
    program = shlex.split(command)

    def grade(answers: Sequence[tuple[dict[str, Any], str]]) -> list[float]:
        lines = "".join(json.dumps({"line": line, "answer": text}) + "\n" for line, text in answers)
        try:
            done = subprocess.run(program, input=lines, stdout=subprocess.PIPE, text=True)
        except OSError as e:
            raise GraderError(f"the grader {command!r} cannot be run: {e.strerror}") from None
        if done.returncode:
            raise GraderError(f"the grader {command!r} ended with status {done.returncode}")
        printed = done.stdout.split()
        if len(printed) != len(answers):
            raise GraderError(f"the grader {command!r} printed {len(printed)} grades for {len(answers)} answers")
        return [_grade(word, command) for word in printed]

    return grade


def _grade(word: str, command: str) -> float:
    try:
        value = float(json.loads(word.lower()))
    except (ValueError, TypeError):
        value = -1.0
    if not 0 <= value <= 1:
        raise GraderError(
            f"the grader {command!r} printed {word!r}: a grade must be a number from 0 to 1, true or false"
        )
    return value
