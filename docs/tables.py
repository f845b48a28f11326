"""The tables of README.md and of docs/ that are made from the code.

    python docs/tables.py            write them anew, after a setting or a policy has changed

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. tests/unit/test_docs.py compares.
"""

import ast
import inspect
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from vllm_dllm.caching.registry import OURS
from vllm_dllm.catalogue import CACHE, GENERAL, RULE_OPTIONS, options
from vllm_dllm.options import Option
from vllm_dllm.unmasking.registry import ALL_RULES

ROOT = Path(__file__).parent.parent
FILES = (ROOT / "README.md", ROOT / "docs" / "settings.md", ROOT / "docs" / "architecture.md")
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def read_by(option: Option) -> str:
    """Who reads a setting: as it says itself, and the policies that list it."""
    if option.server_only:
        return "the server"
    models = "" if "blocks" in option.attention else "models in which every position sees all"
    own = "; ".join(filter(None, (models, option.read_by)))
    if option.request_only:
        return "; ".join(filter(None, (own, "every request, not the server")))
    if option in RULE_OPTIONS:
        return "the rule it chooses"
    readers = ", ".join(f"`{policy.name}`" for policy in OURS if option in policy.options)
    return ", ".join(filter(None, (readers, own))) or "every request"


def default(option: Option) -> str:
    return "" if option.default is None else f"`{json.dumps(option.default).strip(chr(34))}`"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def settings() -> str:
    """Every setting: the general ones, then the policies' own. Without other packages' policies."""
    found = options() | {CACHE.key: replace(CACHE, choices=tuple(policy.name for policy in OURS))}
    own = [option for kind in (*OURS, *ALL_RULES) for option in kind.options]
    ours = {option.key for option in (*GENERAL, *own)}
    return table(
        ("setting", "default", "allowed", "read by", "what it does"),
        (
            (
                f"`{option.key}`",
                default(option),
                option.allowed,
                read_by(option),
                option.help,
            )
            for option in found.values()
            if option.key in ours
        ),
    )


def first_paragraph(policy: type) -> str:
    """Of its docstring: what a pass computes when nothing calls for a refresh."""
    return " ".join((inspect.getdoc(policy) or "").split("\n\n")[0].split())


def policies() -> str:
    """Every caching policy, from its docstrings."""
    rows = []
    for policy in OURS:
        module = " ".join((inspect.getdoc(sys.modules[policy.__module__]) or "").split())
        what = first_paragraph(policy)
        source = module.partition("Source: ")[2].rstrip(".") or "the authors' own code"
        rows.append((f"`{policy.name}`", what, source, ", ".join(f"`{o.key}`" for o in policy.options)))
    return table(("policy", "what a pass computes", "source", "its settings"), rows)


def patches() -> str:
    """Every change to vLLM's behaviour, from its file's docstring; those of every process come first."""
    rows = []
    for file in (ROOT / "patches").glob("*.py"):
        title, _, parts = (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n\n")
        found = dict(re.findall(r"^(\w[\w ]*): (.*(?:\n .*)*)", parts, re.MULTILINE))
        if "What" in found:
            applied, until = (" ".join(found[part].split()).rstrip(".") for part in ("Applied", "Until"))
            rows.append((f"`{file.name}`", title.rstrip("."), applied, until))
    order = ("in every process", "by server.py")
    rows.sort(key=lambda row: (order.index(row[2]) if row[2] in order else len(order), row[0]))
    return table(("file", "what", "applied", "until"), rows)


def renewed(text: str) -> str:
    """`text` with its tables as they should be."""
    made = {"settings": settings, "policies": policies, "patches": patches}
    return MARKED.sub(lambda match: f"{match[1]}{made[match[2]]()}{match[3]}", text)


if __name__ == "__main__":
    for file in FILES:
        file.write_text(renewed(file.read_text()))
