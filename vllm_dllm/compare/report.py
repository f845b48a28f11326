"""What was measured as a table, and as one sentence: what to write on the command line."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vllm_dllm.compare.answers import Answer
from vllm_dllm.compare.grader import Grader
from vllm_dllm.compare.measured import Measured
from vllm_dllm.compare.prompts import Prompt
from vllm_dllm.compare.variants import BASELINE, Variant

AGREEMENT = 0.9  # share of answers that must be the baseline's, where no grader says what is right
LOSS = 0.01  # of the grade that may be lost
GAIN = 1.05  # what counts as faster: times scatter

HEAD = ("policy", "tokens/s", "of none", "passes", "computed", "answers equal", "tokens equal")


@dataclass(frozen=True)
class Row:
    """One variant, over the prompts that it and the baseline have answered."""

    variant: Variant
    prompts: int
    rate: float  # response tokens a second
    speed: float  # the baseline's time over this one's, for the same prompts
    passes: float  # of a request
    share: float  # positions computed, of the baseline's
    answers_equal: float  # share of answers that are the baseline's, token for token
    tokens_equal: float  # share of response positions at which both have the same token
    grade: float | None  # mean over the prompts; None: no grader


def rows(
    measured: Measured, variants: Iterable[Variant], prompts: Sequence[Prompt | None], grader: Grader | None
) -> list[Row]:
    """Of all variants that have answered something, the baseline's first."""
    chosen = [v for v in variants if measured.of(v)]
    grades = _grades(measured, chosen, prompts, grader) if grader else {}
    base = measured.of(chosen[0]) if chosen else {}
    found = []
    for variant in chosen:
        runs = measured.of(variant)
        common = sorted(base.keys() & runs.keys())
        if not common:
            continue
        pairs = [pair for r in common for pair in zip(runs[r].answers, base[r].answers, strict=True)]
        same = [sum(a == b for a, b in zip(own.token_ids, other.token_ids, strict=False)) for own, other in pairs]
        length = sum(max(len(own.token_ids), len(other.token_ids)) for own, other in pairs)
        seconds = sum(runs[r].seconds for r in common)
        marks = [
            grades[number, answer.text]
            for begin, stop in common
            for number, answer in zip(range(begin, stop), runs[begin, stop].answers, strict=True)
            if grades
        ]
        found.append(
            Row(
                variant,
                len(pairs),
                rate=sum(runs[r].tokens for r in common) / seconds,
                speed=sum(base[r].seconds for r in common) / seconds,
                passes=sum(runs[r].passes for r in common) / len(pairs),
                share=sum(runs[r].computed for r in common) / sum(base[r].computed for r in common),
                answers_equal=sum(own.token_ids == other.token_ids for own, other in pairs) / len(pairs),
                tokens_equal=sum(same) / max(length, 1),
                grade=sum(marks) / len(marks) if marks else None,
            )
        )
    return found


def _grades(
    measured: Measured, variants: Iterable[Variant], prompts: Sequence[Prompt | None], grader: Grader
) -> dict[tuple[int, str], float]:
    """By the prompt's number and the answer, each asked once."""
    answers: dict[tuple[int, str], Answer] = {}
    for variant in variants:
        for (begin, stop), run in measured.of(variant).items():
            answers |= {(n, a.text): a for n, a in zip(range(begin, stop), run.answers, strict=True)}
    asked = [(prompt.line, text) for number, text in answers if (prompt := prompts[number]) is not None]
    return dict(zip(answers, grader(asked), strict=True))


def best(found: Sequence[Row], graded: bool) -> Row:
    """The fastest of those that answer as well as the baseline; the baseline, where none is faster."""
    base = found[0]

    def good(row: Row) -> bool:
        if row.speed < GAIN:
            return False
        if graded:
            assert row.grade is not None and base.grade is not None
            return row.grade >= base.grade - LOSS - 1e-9
        return row.answers_equal >= AGREEMENT

    return max(filter(good, found[1:]), key=lambda row: row.speed, default=base)


def sentence(found: Sequence[Row], command: str, prompts: int, random: bool = False) -> str:
    """What to write on the command line, and why. `command` starts the server, without a policy."""
    base, graded = found[0], found[0].grade is not None
    chosen = max(found, key=lambda row: row.speed) if random else best(found, graded)
    of = "" if base.prompts == prompts else f" (after {base.prompts} of {prompts} prompts)"
    if chosen is base and random:
        return f"Write `{command}`{of}: nothing is faster than `{BASELINE}`."
    if chosen is base:
        good = "loses at most a point" if graded else f"gives {AGREEMENT:.0%} of its answers"
        return f"Write `{command}`{of}: no policy that {good} is {GAIN - 1:.0%} faster than `{BASELINE}`."
    why = [f"{chosen.speed:.1f} times as fast as `{BASELINE}`"]
    if random:
        why.append("what it does to answers, random weights cannot say")
    else:
        why.append(f"{_percent(chosen.answers_equal)} of the answers the same")
    if graded:
        why.append(f"{_percent(chosen.grade)} right and `{BASELINE}` {_percent(base.grade)}")
    from shlex import join

    return f"Write `{command} {join(chosen.variant.flags)}`{of}: {', '.join(why)}."


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def table(found: Sequence[Row]) -> str:
    """In Markdown."""
    graded = found[0].grade is not None
    lines = [[*HEAD, "right"] if graded else list(HEAD)]
    lines.append(["---", *["---:"] * (len(lines[0]) - 1)])
    most = max(row.prompts for row in found)
    for row in found:
        part = "" if row.prompts == most else f" ({row.prompts} prompts)"
        cells = [f"`{row.variant.name}`{part}", f"{row.rate:.1f}", f"{row.speed:.2f}", f"{row.passes:.1f}"]
        shares = (row.share, row.answers_equal, row.tokens_equal, *([row.grade] if graded else []))
        lines.append(cells + [_percent(share) for share in shares])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
