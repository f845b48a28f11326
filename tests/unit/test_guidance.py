"""Guided requests: two canvases in the batch and in the scheduler's books, and their logits put together."""

import numpy as np
import pytest
import torch
from decoding_helpers import MASK
from test_scheduler import PAGES, PROMPT, add, answer, config, finish, scheduler  # noqa: F401
from vllm.v1.request import RequestStatus

from vllm_dllm.messages import Guidance, Readout
from vllm_dllm.worker.guide import Guided, guide
from vllm_dllm.worker.readout import LINES, Reader

CANVAS = PROMPT + 32


def test_logits_are_put_together_in_whatever_pieces():
    """Lines 2 to 5 and 7 to 9 are guided; their second canvases' follow behind line 12."""
    logits = torch.randn(18, 30, generator=torch.manual_seed(0))
    guided = [Guided(2, 5, 12, 0.5), Guided(7, 9, 15, 3.0)]
    want = logits[:12].clone()
    for g in guided:
        u = logits[g.second : g.second + g.stop - g.start]
        want[g.start : g.stop] = u + (g.scale + 1) * (want[g.start : g.stop] - u)
    asked = []

    def head(lines: slice) -> torch.Tensor:
        asked.append(lines)
        return logits[lines].clone()

    for size in (1, 2, 3, 5, 12):
        found = [
            guide(head(slice(i, min(i + size, 12))), i, min(i + size, 12), head, guided) for i in range(0, 12, size)
        ]
        assert torch.equal(torch.cat(found), want)
    assert asked[-1] == slice(12, 17), "the head is asked once for all second canvases"
    assert guide(None, 0, 12, head, guided) is None


def test_a_reader_reads_what_was_put_together():
    count = LINES  # four pieces of guided lines
    logits = torch.randn(2 * count + 3, 20, generator=torch.manual_seed(1)).bfloat16()
    starts = np.asarray([0, 3, 3 + count, 3 + 2 * count])
    readouts = [Readout(margin=True), Readout(0.8, seed=2, margin=True)]
    seen = Reader("gumbel", MASK).read(
        lambda lines: logits[lines].clone(), starts, readouts, None, {1: Guidance(2, 1.5)}
    )
    own, other = logits[3 : 3 + count].float(), logits[3 + count :].float()
    both = torch.cat((logits[:3].float(), other + 2.5 * (own - other)))
    want = Reader("gumbel", MASK).read(both.__getitem__, starts[:3], readouts)
    assert seen.tokens.tolist() == want.tokens.tolist() and seen.margin.tolist() == want.margin.tolist()


def test_a_guided_request_is_two_canvases(scheduler):  # noqa: F811
    add(scheduler, "a", dllm_cfg_scale=1.0)
    add(scheduler, "b")
    step = scheduler.schedule()
    assert step.num_scheduled_tokens == {"a": 2 * CANVAS, "b": CANVAS}
    batch = step.batch
    assert batch.guidance == {0: Guidance(2, 1.0)} and len(batch.ends) == 3 and len(batch.readouts) == 2
    pages = [set(line.tolist()) for line in batch.block_table]
    assert len(set.union(*pages)) == 6, "two pages each"
    assert batch.token_ids[batch.query_starts[2] :].tolist() == [MASK] * CANVAS
    assert scheduler.check_integrity() == 2
    finish(scheduler, step)
    counts = scheduler.listeners.counts.counts
    assert counts["passes"] == 2 and counts["computed_tokens"] == counts["cacheless_tokens"] == 3 * CANVAS
    partial = scheduler.schedule()
    assert partial.num_scheduled_tokens == {"a": 32, "b": 16}
    scheduler.finish_requests("a", RequestStatus.FINISHED_ABORTED)
    assert scheduler.check_integrity() == 1 and not scheduler.slots.seconds
    finish(scheduler, partial, broken=("a",))
    assert set(scheduler.wipe) >= pages[0] | pages[2]


def test_it_waits_for_two_canvases_pages_and_takes_none_before(scheduler):  # noqa: F811
    scheduler.max_num_scheduled_tokens = 4096
    held = [add(scheduler, f"{i}", max_tokens=250) for i in range(6)]  # 8 pages each, of 63
    add(scheduler, "guided", max_tokens=250, dllm_cfg_scale=1.0)  # 8 pages, and 8 more
    for _ in range(12):
        finish(scheduler, scheduler.schedule())
    assert len(scheduler.running) == len(held) and scheduler.check_integrity() == 7
    assert scheduler.kv_cache_manager.block_pool.get_num_free_blocks() == PAGES - 1 - 6 * 8 < 16
    scheduler.finish_requests("0", RequestStatus.FINISHED_ABORTED)
    for _ in range(12):
        finish(scheduler, scheduler.schedule())
    assert "guided" in scheduler.active and scheduler.check_integrity() == 6


def test_sequences_and_budget_count_both(scheduler):  # noqa: F811
    scheduler.max_num_active_reqs = 3
    for i in range(3):
        add(scheduler, f"{i}", dllm_cfg_scale=1.0)
    assert list(scheduler.schedule().num_scheduled_tokens) == ["0"], "of three places it takes two"
    scheduler.max_num_active_reqs = 16
    scheduler.max_num_scheduled_tokens = 3 * CANVAS
    assert list(scheduler.schedule().num_scheduled_tokens) == ["1"]


@pytest.mark.parametrize("reset", [False, True])
def test_a_refresh_is_of_both(scheduler, reset):  # noqa: F811
    add(scheduler, "a", dllm_cfg_scale=1.0)
    finish(scheduler, scheduler.schedule())
    if reset:
        scheduler.reset_prefix_cache(reset_running_requests=True)
    assert scheduler.schedule().num_scheduled_tokens == {"a": 2 * (CANVAS if reset else 16)}


def test_numbers_that_are_none_wipe_both(scheduler):  # noqa: F811
    add(scheduler, "a", dllm_cfg_scale=1.0)
    step = scheduler.schedule()
    scheduler.update_from_output(step, answer(step, broken=("a",)))
    assert sorted(scheduler.wipe) == sorted(set(step.batch.block_table.ravel().tolist()))
    assert scheduler.check_integrity() == 0
