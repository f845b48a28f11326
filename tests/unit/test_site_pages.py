"""The documentation's pictures and made pages: from real passes, for every policy and setting of the registry."""

import json
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from common import ROOT

from vllm_dllm.caching.registry import OURS

sys.path.append(str(ROOT / "docs"))
import pictures  # noqa: E402
import tables  # noqa: E402

RECORDS = json.loads(pictures.FILE.read_text())


@pytest.mark.parametrize("policy", [policy.name for policy in OURS])
def test_every_policy_has_a_real_answers_passes(policy):
    """Of which each unmasks what it computed, but for what a policy unmasks without, and the first is full."""
    record = pictures.record_of(policy)
    assert record["full"][0] and pictures.computed(record)[0] == record["end"][0]
    assert policy == "block" or record["end"][0] == len(record["tokens"])
    unmasked = [i for places in record["unmasked"] for i in places]
    assert len(set(unmasked)) == len(unmasked)
    assert policy == "block" or "".join(record["tokens"][19:22]) == "3 7"  # that model's weights are random
    assert all(stop <= end for ranges, end in zip(record["computed"], record["end"], strict=True) for _, stop in ranges)
    drawn = ElementTree.fromstring(pictures.passes_svg(record))
    rows = {rect.get("y") for rect in drawn.iter("{http://www.w3.org/2000/svg}rect") if rect.get("class") == "cell"}
    assert len(rows) == len(record["computed"])


def test_the_moving_picture_is_made_from_the_records_and_small():
    text = pictures.MOVING.read_text()
    question, policies = pictures.SHOWN
    assert text == pictures.moving_svg([pictures.record_of(p, question) for p in policies]), "run docs/pictures.py"
    assert len(text.encode()) < 300_000
    moving = [a for a in ElementTree.fromstring(text).iter() if a.tag.endswith("animate")]
    assert len(moving) > 40 and {a.get("repeatCount") for a in moving} == {"indefinite"}
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")  # it loads nothing


def test_a_page_for_each_policy_and_each_setting():
    pytest.importorskip("mkdocs", reason="the site needs mkdocs, which the extra `test` has")
    import site_pages

    for policy in OURS:
        page = site_pages.policy_page(policy)
        assert page.startswith(f"# `{policy.name}`") and "<svg" in page
        assert all(f"(../settings/{option.key}.md)" in page for option in policy.options)
    assert {f"`{o.key}`" for o in site_pages.own_options()} == {
        line.split(" | ")[0].removeprefix("| ") for line in tables.settings().splitlines()[2:]
    }
    tau = site_pages.setting_page(next(o for o in site_pages.own_options() if o.key == "dllm_tau"))
    assert "vllm serve MODEL --dllm-tau 0.3" in tau and "(../policies/entropy.md)" in tau and "fidelity.md#" in tau
