"""The tables of README.md and docs/settings.md that are made from the code.

    python docs/tables.py            write them anew, after a setting or a policy has changed

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. tests/unit/test_docs.py compares.
"""

import inspect
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from vllm_dllm.caching.registry import OURS
from vllm_dllm.options import Option
from vllm_dllm.settings import CACHE, GENERAL, RULE_OPTIONS, options

ROOT = Path(__file__).parent.parent
FILES = (ROOT / "README.md", ROOT / "docs" / "settings.md")
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

# who reads a general setting; a policy's own settings are read by the policies that list them
ALWAYS = "every request"
SERVER = "the server"
SHIFTED_ONLY = ", with a Dream model"
READ_BY = {
    "dllm_block_length": "every policy but `elastic`, which has a window",
    "dllm_max_delay": "every policy but `none`",
    "dllm_scores": "`dllm_score=random`",
    "dllm_certainty_sigma": "`dllm_score` of `confidence`, `margin` or `entropy`",
    "dllm_alg_temp": "`dllm_steps` of a Dream model, unless `dllm_score=origin`",
}


def read_by(option: Option) -> str:
    if option.server_only:
        return SERVER
    if option in GENERAL:
        return "the rule it chooses" if option in RULE_OPTIONS else READ_BY.get(option.key, ALWAYS)
    readers = ", ".join(f"`{policy.name}`" for policy in OURS if option in policy.options)
    return readers + (SHIFTED_ONLY if option.row_shift_only else "")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def settings() -> str:
    """Every setting: the general ones, then the policies' own. Without other packages' policies."""
    found = options() | {CACHE.key: replace(CACHE, choices=tuple(policy.name for policy in OURS))}
    ours = {option.key for policy in OURS for option in policy.options} | {option.key for option in GENERAL}
    return table(
        ("setting", "default", "allowed", "read by", "what it does"),
        (
            (
                f"`{option.key}`",
                "" if option.default is None else f"`{json.dumps(option.default).strip(chr(34))}`",
                option.allowed,
                read_by(option),
                option.help,
            )
            for option in found.values()
            if option.key in ours
        ),
    )


def policies() -> str:
    """Every caching policy, from its docstrings."""
    rows = []
    for policy in OURS:
        module = " ".join((inspect.getdoc(sys.modules[policy.__module__]) or "").split())
        what = " ".join((inspect.getdoc(policy) or "").split("\n\n")[0].split())
        source = module.partition("Source: ")[2].rstrip(".") or "the authors' own code"
        rows.append((f"`{policy.name}`", what, source, ", ".join(f"`{o.key}`" for o in policy.options)))
    return table(("policy", "what a pass computes", "source", "its settings"), rows)


def renewed(text: str) -> str:
    """`text` with its tables as they should be."""
    made = {"settings": settings, "policies": policies}
    return MARKED.sub(lambda match: f"{match[1]}{made[match[2]]()}{match[3]}", text)


if __name__ == "__main__":
    for file in FILES:
        file.write_text(renewed(file.read_text()))
