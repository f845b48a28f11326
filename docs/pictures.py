"""Pictures of passes, from records of real answers (docs/passes.json).

    python docs/pictures.py            draws docs/canvas.svg, the moving one of README.md
    python docs/pictures.py --record   answers the questions anew first, with every policy, on checkpoints/tiny-llada (or tiny-sdar)

docs/site_pages.py draws one for each policy's page with `passes_svg`.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from vllm_dllm.caching import CachePolicy
from vllm_dllm.caching.registry import OURS

DOCS = Path(__file__).parent
FILE, MOVING = DOCS / "passes.json", DOCS / "canvas.svg"
MODELS = {"full": "tiny-llada", "blocks": "tiny-sdar"}  # by whom its positions see; the second one's weights are random
QUESTION = "count 3 by 4 x16"  # of the policies' pages: two blocks
SHOWN = ("calc 37+38-22+39", ("none", "dual"))  # of the moving picture: many passes
KEPT = ("cache", "prompt_ids", "output_ids", "unmasked", "computed", "full", "end")

Record = dict[str, Any]


def record() -> None:
    """Writes docs/passes.json."""
    full = [(QUESTION, policy) for policy in OURS if "full" in policy.attention]
    full += [(SHOWN[0], policy) for policy in OURS if policy.name in SHOWN[1]]
    blocks = [(QUESTION, policy) for policy in OURS if "full" not in policy.attention]
    lines = _answers(MODELS["full"], full) + _answers(MODELS["blocks"], blocks)
    FILE.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def _answers(model: str, asked: Sequence[tuple[str, type[CachePolicy]]]) -> list[str]:
    """The records of the answers to these questions, a line each."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        str(DOCS.parent / "checkpoints" / model),
        dtype="float32",
        max_model_len=256,
        kv_cache_memory_bytes=1 << 28,
        additional_config={"dllm_hidden_cache": True},
    )
    chats = [[{"role": "user", "content": question}] for question, _ in asked]
    params = [
        SamplingParams(temperature=0, max_tokens=96, extra_args={"dllm_cache": p.name, "dllm_record": True} | p.example)
        for _, p in asked
    ]
    tokenizer = llm.get_tokenizer()
    lines = []
    for (question, _), output in zip(asked, llm.chat(chats, params, use_tqdm=False), strict=True):
        found = output.outputs[0].dllm_record
        ids = [*found["prompt_ids"], *found["output_ids"]]
        tokens = [_glyph(token) for token in tokenizer.convert_ids_to_tokens(ids)]
        lines.append(json.dumps({"question": question, "tokens": tokens} | {key: found[key] for key in KEPT}))
    return lines


def _glyph(token: str) -> str:
    """What stands in a cell: a character; nothing for the mask token, a dot for other special ones."""
    return "" if "mask" in token else "·" if token.startswith("<|") else token


def record_of(policy: str, question: str = QUESTION) -> Record:
    """Raises KeyError, and says what to do, where there is none."""
    for found in json.loads(FILE.read_text()):
        if (found["cache"], found["question"]) == (policy, question):
            return found
    raise KeyError(f"{FILE} has no answer of {policy} to {question!r}: run `python docs/pictures.py --record`")


def computed(record: Record) -> list[int]:
    """How many positions each pass computed."""
    return [sum(stop - begin for begin, stop in ranges) for ranges in record["computed"]]


STYLE = """
text{font:10px ui-monospace,Menlo,Consolas,monospace;fill:#24292f;text-anchor:middle}
.say{font:12px system-ui,sans-serif;text-anchor:start}.say,.given text{fill:#808890}.say tspan{font-weight:600}
.cell{fill:#e6eaef}.given{fill:none}.c{fill:#2f7fd6;fill-opacity:.38}.f{fill:#e8892f}.bar{fill:#2f7fd6}.rim{fill:none;stroke:#8b949e}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.cell{fill:#2b3139}.c{fill-opacity:.55}}
"""


# ---- the moving picture ----

CELL, HIGH, WIDE = 12.5, 17, 32  # pixels of a cell; cells in a row
SECONDS, REST = 11.0, 3.0  # of the longest answer; until it begins again


def moving_svg(records: Sequence[Record]) -> str:
    """The canvases of the same question side by side. A pass lasts as long as it has positions to compute."""
    whole = max(sum(computed(r)) for r in records)
    gap, panel = 24, WIDE * CELL
    width = len(records) * panel + (len(records) - 1) * gap + 2
    parts = [_panel(r, 1 + i * (panel + gap), whole) for i, r in enumerate(records)]
    height = 62 + HIGH * max(_rows(r) for r in records)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" width="{width:g}" height="{height}" '
        f'role="img"><title>{escape(records[0]["question"])}, unmasked pass by pass</title><style>{STYLE}</style>'
        + "".join(parts)
        + "</svg>\n"
    )


def _rows(record: Record) -> int:
    return -(-len(record["prompt_ids"]) // WIDE) - (-len(record["output_ids"]) // WIDE)


def _panel(record: Record, x: float, whole: int) -> str:
    counts, prompt = computed(record), len(record["prompt_ids"])
    spans, at = [], 0.0
    for count in counts:
        spans.append((at, at := at + count / whole * SECONDS))
    show = _Show(SECONDS + REST)
    policy = next(p for p in OURS if p.name == record["cache"])
    first = " ".join((policy.__doc__ or "").split()).partition(".")[0].partition(";")[0]
    parts = [f'<text class="say" y="14"><tspan>{policy.name}</tspan>  {escape(first[0].lower() + first[1:])}</text>']
    parts += [_cells(range(prompt), record, "given"), _cells(range(prompt, len(record["tokens"])), record, "cell")]
    done, over = 0, []  # what is drawn over all passes' computed positions
    for number, ((begin, end), ranges) in enumerate(zip(spans, record["computed"], strict=True)):
        last = number == len(spans) - 1
        parts.append(show(_runs(ranges, record), begin, end))
        fresh = [prompt + i for i in record["unmasked"][number]]
        stop = spans[number + 1][1] if not last else end + 0.6
        over.append(show(_cells(fresh, record, "f"), end, stop))
        over.append(show(_letters(fresh, record), end, None))
        text = f"pass {number + 1}: {counts[number]} of {record['end'][number]} positions computed"
        over.append(show(_say(text, record), begin, end))
        done += counts[number]
    parts += [*over, f'<g class="given">{_letters(range(prompt), record)}</g>']
    text = f"{len(counts)} passes, {done} positions computed"
    parts.append(show(_say(text, record), spans[-1][1], None))
    y, panel = 44 + HIGH * _rows(record), WIDE * CELL
    width = panel * done / whole
    keys = ";".join(f"{t / show.seconds:.4f}" for t in (0, spans[-1][1], show.seconds))
    parts.append(
        f'<rect class="rim" x=".5" y="{y}" width="{panel - 1:g}" height="6"/><rect class="bar" y="{y}" width="{width:.1f}" height="6">'
        f'<animate attributeName="width" dur="{show.seconds}s" repeatCount="indefinite" keyTimes="{keys}" values="0;{width:.1f};{width:.1f}"/></rect>'
    )
    return f'<g transform="translate({x:g} 0)">{"".join(parts)}</g>'


class _Show:
    """A group that is seen from one time to another (None: to the end), each time round."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def __call__(self, inside: str, begin: float, end: float | None) -> str:
        times = [0.0, begin, self.seconds if end is None else end]
        values = [0, 1, 0]
        if end is None:
            times, values = times[:2], values[:2]
        if begin == 0:
            times, values = times[1:], values[1:]
        keys = ";".join(f"{t / self.seconds:.4f}" for t in times)
        # without animation it is as it is at the end
        return (
            f'<g opacity="{int(end is None)}"><animate attributeName="opacity" calcMode="discrete" dur="{self.seconds}s" '
            f'repeatCount="indefinite" keyTimes="{keys}" values="{";".join(map(str, values))}"/>{inside}</g>'
        )


def _place(position: int, record: Record) -> tuple[float, float]:
    """The upper left corner of a position's cell. The prompt has rows of its own, and so has the response."""
    prompt = len(record["prompt_ids"])
    first = position < prompt
    row, column = divmod(position if first else position - prompt, WIDE)
    return column * CELL, 24 + HIGH * (row if first else row - (-prompt // WIDE))


def _cells(positions: Iterable[int], record: Record, kind: str) -> str:
    size = f'width="{CELL - 1.5:g}" height="{HIGH - 2}" rx="2"'
    places = (_place(p, record) for p in positions)
    return "".join(f'<rect class="{kind}" x="{x:g}" y="{y:g}" {size}/>' for x, y in places)


def _runs(ranges: Iterable[Sequence[int]], record: Record) -> str:
    """The computed positions, one shape for each run in a row."""
    found: list[list[float]] = []
    for begin, stop in ranges:
        for position in range(begin, stop):
            x, y = _place(position, record)
            if found and found[-1][1] == y and abs(found[-1][0] + found[-1][2] - x) < 0.1:
                found[-1][2] += CELL
            else:
                found.append([x, y, CELL])
    return "".join(f'<rect class="c" x="{x:g}" y="{y - 1:g}" width="{w:g}" height="{HIGH}"/>' for x, y, w in found)


def _letters(positions: Iterable[int], record: Record) -> str:
    found = []
    for position in positions:
        x, y = _place(position, record)
        if record["tokens"][position].strip():
            found.append(
                f'<text x="{x + CELL / 2 - 0.75:g}" y="{y + 11:g}">{escape(record["tokens"][position])}</text>'
            )
    return "".join(found)


def _say(text: str, record: Record) -> str:
    return f'<text class="say" y="{38 + HIGH * _rows(record)}">{escape(text)}</text>'


# ---- a policy's page: all its passes ----

NARROW, LOW = 7, 9  # pixels of a position, and of a pass


def passes_svg(record: Record) -> str:
    """A line for each pass, a column for each position: what was computed, and what was unmasked."""
    length, counts = len(record["tokens"]), computed(record)
    left, top = 30, 18
    width, height = left + NARROW * length + 70, top + LOW * len(counts) + 6
    parts = [f'<text class="say" x="{left}" y="12">prompt</text>']
    prompt = len(record["prompt_ids"])
    parts.append(f'<text class="say" x="{left + NARROW * prompt}" y="12">response</text>')
    for number, ranges in enumerate(record["computed"]):
        y = top + LOW * number
        parts += _line(y, [(0, record["end"][number])], left, "cell") + _line(y, ranges, left, "c")
        parts += _line(y, [(prompt + i, prompt + i + 1) for i in record["unmasked"][number]], left, "f")
        parts.append(f'<text class="say" x="{left + NARROW * length + 6}" y="{y + 8}">{counts[number]}</text>')
        if number % 5 == 4 or number == 0:
            parts.append(f'<text class="say" x="4" y="{y + 8}">{number + 1}</text>')
    x = left + NARROW * prompt
    parts.append(f'<rect class="rim" x="{x}" y="{top - 2}" width=".1" height="{height - top}"/>')
    style = STYLE.replace("12px", "9px").replace("\ntext{", "\n.passes text{").replace("\n.say{", "\n.passes .say{")
    return (
        f'<svg class="passes" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" style="max-width:100%" '
        f'role="img"><title>Passes of {record["cache"]}</title><style>{style}</style>{"".join(parts)}</svg>'
    )


def _line(y: int, ranges: Iterable[Sequence[int]], left: int, kind: str) -> list[str]:
    return [
        f'<rect class="{kind}" x="{left + NARROW * begin}" y="{y}" width="{NARROW * (stop - begin) - 1}" height="{LOW - 2}"/>'
        for begin, stop in ranges
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    if parser.parse_args().record:
        record()
    MOVING.write_text(moving_svg([record_of(policy, SHOWN[0]) for policy in SHOWN[1]]))


if __name__ == "__main__":
    main()
