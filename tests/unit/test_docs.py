"""The documents say what the code says."""

import functools
import importlib
import itertools
import re
import sys

import numpy as np
import pytest
from common import ROOT

import vllm_dllm
from vllm_dllm.caching import CachePolicy, PageLedger
from vllm_dllm.caching.registry import POLICIES
from vllm_dllm.canvas import Canvas
from vllm_dllm.catalogue import RULE_OPTIONS, options
from vllm_dllm.frontier import Blocks
from vllm_dllm.options import Option, SettingError
from vllm_dllm.settings import ModelTraits, resolve
from vllm_dllm.unmasking.base import UnmaskingRule, top
from vllm_dllm.unmasking.scores import SCORES

sys.path.append(str(ROOT / "docs"))
import tables  # noqa: E402

DOCUMENTS = [
    file for folder in ("", "docs", "examples", "checkpoints") for file in sorted((ROOT / folder).glob("*.md"))
]
NAMED = [file for file in DOCUMENTS if file.name != "CHANGELOG.md"]  # which tells of names that are gone
TRAITS = [
    ModelTraits(mask_id=1, row_shift=0, steps="llada"),
    ModelTraits(mask_id=1, row_shift=-1, steps="dream"),
    ModelTraits(mask_id=1, row_shift=0, steps="llada", block_length=4, dynamic_threshold=0.85),
]
EXAMPLES = {"dllm_share", "dllm_every", "sliding"}  # of CONTRIBUTING.md and examples/third_party_policy
CHOOSE = {"dllm_cache", "dllm_score", *(o.key for o in RULE_OPTIONS)}


@pytest.mark.parametrize("file", tables.FILES, ids=lambda f: f.name)
def test_tables(file):
    text = file.read_text()
    assert "<!-- table: " in text
    assert text == tables.renewed(text), f"run `python docs/tables.py`: a table of {file.name} is out of date"


@pytest.mark.parametrize("file", NAMED, ids=lambda f: str(f.relative_to(ROOT)))
def test_names(file):
    """Every setting, flag and policy that a document mentions exists."""
    text = file.read_text()
    flags = {o.flag for o in options().values()} | {"--dllm-config"}
    assert set(re.findall(r"\bdllm_[a-z][a-z_]*[a-z]\b(?!\.)", text)) <= {*options(), "dllm_config", *EXAMPLES}
    assert set(re.findall(r"--dllm-[a-z-]*[a-z]", text)) <= flags
    policies = re.findall(r'(?:--dllm-cache |dllm_cache=|dllm_cache` `|dllm_cache": "|CACHE=)([a-z0-9-]+)', text)
    assert set(policies) <= {*POLICIES, *EXAMPLES}


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda f: str(f.relative_to(ROOT)))
def test_links(file):
    links = re.findall(r"\]\((?!http)([^)#]+)", file.read_text())
    missing = [link for link in links if not (file.parent / link).exists()]
    assert not missing


def test_the_newest_version_of_the_changelog_is_this_one():
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == vllm_dllm.__version__


def test_the_example_package_uses_only_what_other_packages_may_use():
    """CONTRIBUTING.md says it module by module, and a module's `__all__` which names."""
    section = (
        (ROOT / "CONTRIBUTING.md").read_text().partition("## What other packages may use")[2].partition("\n## ")[0]
    )
    files = sorted((ROOT / "examples" / "third_party_policy").glob("*.py"))
    imports = [
        found for file in files for found in re.findall(r"^from (vllm_dllm\S*) import (.+)$", file.read_text(), re.M)
    ]
    assert len(imports) > 5
    for module, names in imports:
        assert f"`{module}`" in section
        for name in names.split(", "):
            assert name in importlib.import_module(module).__all__


def test_example_classes():
    """The rule and the policy of CONTRIBUTING.md work: every pass unmasks half, every third is full."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    names = {"CachePolicy": CachePolicy, "Option": Option, "UnmaskingRule": UnmaskingRule, "top": top}
    for block in blocks:
        exec(block, names)
    rule, policy = names["Share"](names["Share"].option.check(0.5)), names["Masked"](row_shift=0, every=3)
    canvas = Canvas([2, 3], 16, 1, Blocks(8))
    pages = PageLedger(canvas.length, 6, reasons=policy.reasons)
    queries, unmasked = [], []
    while not canvas.done:
        policy.mark(canvas, pages)
        plan = pages.queries(policy.positions(canvas))
        pages.record(plan)
        queries.append(len(plan))
        scores = np.full(canvas.length, -np.inf, np.float32)
        scores[canvas.candidates] = 0.5
        chosen = rule.select(canvas, scores, None, None)
        unmasked.append(len(chosen))
        canvas.unmask(chosen, np.full(len(chosen), 9))
    assert unmasked == [4, 2, 1, 1] * 2
    assert queries == [18, 4, 2, 18, 8, 4, 18, 1]


@pytest.mark.parametrize("key", sorted(set(options()) - CHOOSE))
def test_read_by(key):
    """A setting is accepted with exactly those policies, rules, scores and models that the table says read it."""
    option = options()[key]
    for cache, rule, score, traits in combinations():
        chosen = choose(cache, rule, score)
        reads = table_says(option, cache, rule, score, traits)
        assert accepted(chosen | {key: sample(option)}, traits) == reads, (key, chosen, traits)


@functools.cache
def combinations() -> list[tuple[str, Option, str, ModelTraits]]:
    """Every policy, rule, score and kind of model that go together."""
    everything = itertools.product(POLICIES, RULE_OPTIONS, SCORES, TRAITS)
    return [(c, r, s, t) for c, r, s, t in everything if accepted(choose(c, r, s), t)]


def choose(cache: str, rule: Option, score: str) -> dict:
    return {"dllm_cache": cache, rule.key: sample(rule), "dllm_score": score}


def accepted(settings: dict, traits: ModelTraits) -> bool:
    """Whether a request may have them; the server's own are the server's."""
    own = {key: value for key, value in settings.items() if not options()[key].server_only}
    server = {"dllm_hidden_cache": True} | {key: value for key, value in settings.items() if key not in own}
    try:
        resolve(server, own, traits)
    except SettingError:
        return False
    return True


def sample(option: Option):
    """A value that is allowed."""
    if option.default is not None:
        return option.default
    return {int: 4, float: 0.5, str: "x", bool: True, list: [0.5]}[option.type]


def table_says(option: Option, cache: str, rule: Option, score: str, traits: ModelTraits) -> bool:
    """The words of the table, read by hand."""
    by, dream = tables.read_by(option), traits.steps == "dream"
    if by.startswith("models in which every position sees all"):
        if traits.attention != "full":
            return False
        by = by.removeprefix("models in which every position sees all").removeprefix("; ") or "every request"
    special = {
        "every request": True,
        "the server": True,
        "every request, not the server": True,
        "blocks, not a window": cache != "elastic",
        "every policy but `prefix`, `dual`, `d2`, `d3`; every rule but `dllm_steps`, `dllm_denoising_steps`": cache
        not in ("prefix", "dual", "d2", "d3")
        and rule.key not in ("dllm_steps", "dllm_denoising_steps"),
        "every policy but `dkv-greedy`; every score but `origin`": cache != "dkv-greedy" and score != "origin",
        "every policy but `elastic`, which always does it": cache != "elastic",
        "every policy but `elastic`": cache != "elastic",
        "blocks, not a window; every policy but `d2`; every rule but `dllm_steps`, `dllm_denoising_steps`": cache
        not in ("elastic", "d2")
        and rule.key not in ("dllm_steps", "dllm_denoising_steps"),
        "every policy but `none`": cache != "none",
        "`dllm_denoising_steps`": rule.key == "dllm_denoising_steps",
        "`dllm_score=random`": score == "random",
        "`dllm_score` of `confidence`, `margin` or `entropy`": score in ("confidence", "margin", "entropy"),
        "`dllm_steps` of a Dream model, unless `dllm_score=origin`": dream
        and rule.key == "dllm_steps"
        and score != "origin",
    }
    return special[by] if by in special else f"`{cache}`" in by and (dream or "with a Dream model" not in by)
