"""Caching policies over canvases made by hand: which positions a pass computes, and which pages are stale."""

import numpy as np
import pytest
from common import MASK
from dense import TRAITS, decode

from vllm_dllm.caching import PageLedger
from vllm_dllm.caching.registry import FULL
from vllm_dllm.canvas import Canvas
from vllm_dllm.frontier import Blocks
from vllm_dllm.messages import Observation
from vllm_dllm.options import SettingError
from vllm_dllm.settings import ServerSettings, resolve

# those that the dense model can serve: a pass of theirs reads nothing but tokens
HERE = ("none", "prefix", "dual", "dkv-decode", "dkv-greedy", "dkv-prefill", "dkv-pd", "entropy", "d3")
PROMPT = 5  # tokens
LLADA, DREAM = 0, -1  # row shifts


class Passes:
    """A policy, a canvas of 12 response tokens and pages of 4, pass by pass. Positions are the response's here."""

    def __init__(self, name, row_shift=LLADA, block_length=6, **options):
        policy = FULL[name]
        defaults = {o.name: policy.defaults.get(o.name, o.default) for o in policy.options}
        self.policy = policy(row_shift=row_shift, **(defaults | options))
        self.canvas = Canvas([9] * PROMPT, 12, MASK, Blocks(block_length))
        self.pages = PageLedger(self.canvas.length, 4, reasons=self.policy.reasons)

    def queries(self, coming=()) -> list[int]:
        """The next pass as response positions: the prompt's last one is -1."""
        self.policy.coming = np.asarray(coming, np.int64) + PROMPT
        self.policy.mark(self.canvas, self.pages)
        self.planned = self.pages.queries(self.policy.positions(self.canvas))
        assert (np.diff(self.planned) > 0).all()
        return (self.planned - PROMPT).tolist()

    def finish(self, *unmasked, entropy=()) -> None:
        """The pass unmasks these response positions, read with these entropies."""
        read = self.canvas.candidates
        chosen = np.asarray(unmasked, np.int64) + PROMPT
        entropies = np.zeros(len(read), np.float32)
        entropies[np.searchsorted(read, chosen)] = entropy or 0
        self.canvas.unmask(chosen, np.full(len(chosen), 20, np.int32))
        self.pages.record(self.planned)
        self.policy.observe(self.canvas, self.pages, Observation(read, read, entropies, entropy=entropies), chosen)
        self.pages.check_integrity()

    def after(self, *unmasked, **kwargs) -> "Passes":
        """The next pass planned and finished."""
        self.queries(kwargs.pop("coming", ()))
        self.finish(*unmasked, **kwargs)
        return self


EVERYTHING = list(range(-PROMPT, 12))


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("row_shift", [LLADA, DREAM])
def test_the_first_pass_is_full(name, row_shift):
    assert Passes(name, row_shift).queries() == EVERYTHING


@pytest.mark.parametrize(
    ("name", "row_shift", "second"),
    [
        ("none", LLADA, EVERYTHING),
        ("prefix", LLADA, list(range(0, 12))),
        ("prefix", DREAM, list(range(-1, 11))),
        ("dual", LLADA, list(range(0, 6))),
        ("dual", DREAM, list(range(-1, 5))),
        ("dkv-prefill", LLADA, list(range(0, 12))),
        ("dkv-prefill", DREAM, list(range(-1, 12))),
    ],
)
def test_fixed_regions(name, row_shift, second):
    passes = Passes(name, row_shift).after(0, 3)
    assert passes.queries() == second
    passes.finish(1)
    assert passes.queries() == second


@pytest.mark.parametrize("name", ["prefix", "dual", "dkv-decode", "dkv-greedy"])
def test_a_block_starts_with_a_full_pass(name):
    passes = Passes(name, block_length=4).after(0, 1, 2, 3, coming=[0, 1, 2, 3])
    assert passes.queries([4]) == EVERYTHING and passes.pages.marks["block start"] == 5


def test_prefix_and_dual_in_a_later_block():
    for name, want in [("prefix", list(range(8, 12))), ("dual", list(range(8, 12)))]:
        passes = Passes(name, block_length=8).after(*range(8)).after(8)
        assert passes.queries() == want  # a last, shorter block


def test_dkv_decode_leaves_out_a_token_one_pass_late():
    passes = Passes("dkv-decode", block_length=12, refresh_interval=4).after(3)
    assert passes.queries() == EVERYTHING  # LLaDA's second pass of a block
    passes.finish(5)
    assert passes.queries() == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11]  # 3 is cached, 5 is not yet
    passes.finish(0, 11)
    assert passes.queries() == [0, 1, 2, 4, 6, 7, 8, 9, 10, 11]
    passes.finish(1)
    assert passes.queries() == EVERYTHING and passes.pages.marks["interval"] == 5


def test_dkv_decode_for_dream_computes_the_rows():
    passes = Passes("dkv-decode", DREAM, block_length=12, refresh_interval=4).after(3)
    assert passes.queries() == list(range(-1, 12))  # every row, and the last position
    passes.finish(5)
    assert passes.queries() == [-1, 0, 1, 3, 4, 5, 6, 7, 8, 9, 10]  # the row of 3 is cached


def test_un_right_recomputes_a_token_unmasked_after_its_right_neighbour():
    def fourth_pass(shift):
        passes = Passes("dkv-decode", DREAM, block_length=12, refresh_interval=9, shift=shift).after(6).after(11)
        return passes.after(5).queries()

    masked = [0, 1, 2, 3, 4, 7, 8, 9, 10]
    rows = [-1, 0, 1, 2, 3, 4, 6, 7, 8, 9]  # of those and of 5
    assert fourth_pass("un") == rows
    assert fourth_pass("un_right") == sorted({*rows, *masked, 5, 11})  # 11, the last, with 10


@pytest.mark.parametrize("name", ["dkv-decode", "dkv-pd"])
def test_shift_is_refused_where_rows_are_not_shifted(name):
    settings = {"dllm_cache": name, "dllm_shift": "un"}
    assert resolve({}, settings, TRAITS["tiny-dream"]).policy_options["shift"] == "un"
    with pytest.raises(SettingError, match="dllm_shift='un' is not read"):
        resolve({}, settings, TRAITS["tiny-llada"])


def test_dkv_pd_recomputes_the_response_and_rarely_the_prompt():
    passes = Passes("dkv-pd", DREAM, block_length=12, refresh_interval=2, prompt_interval=4).after(3).after(4)
    assert passes.queries() == list(range(-1, 12))
    passes.finish(5)
    assert passes.queries() == [-1, 0, 1, 4, 5, 6, 7, 8, 9, 10]  # the rows of 3 and 4 are cached
    passes.finish(6)
    assert passes.queries() == EVERYTHING
    never = (
        Passes("dkv-pd", DREAM, block_length=12, refresh_interval=2, prompt_interval=0)
        .after(3)
        .after(4)
        .after(5)
        .after(6)
    )
    assert never.queries() == list(range(-1, 12))


def test_dkv_greedy_computes_what_comes_and_its_masked_neighbours():
    passes = Passes("dkv-greedy", block_length=12, refresh_interval=9, window_size=3)
    passes.after(5, 6, coming=[5, 6])
    # 5 and 6 were just unmasked; the masked positions nearest to 7 are 8, 9 and 4
    assert passes.queries([7]) == [4, 5, 6, 7, 8, 9]
    passes.finish(7)
    assert passes.queries([0, 2]) == [0, 1, 2, 3, 4, 7, 8, 9, 10]
    passes.policy.window_size = 0
    assert passes.queries([2, 0]) == [0, 2, 7]


def test_entropy_computes_masked_and_recent_positions():
    passes = Passes("entropy", block_length=6, recent_k=2, tau=1.0).after(0, 1, 2, entropy=[0.9, 1.0, 0.1])
    assert passes.queries() == [1, 2, 3, 4, 5]  # the two rightmost of the last pass
    passes.finish(3, 4, 5)
    assert passes.queries() == [4, 5, 6, 7, 8, 9, 10, 11]  # nothing is refreshed for a block's start
    dream = Passes("entropy", DREAM, block_length=6, recent_k=0).after(0, 1, 3)
    assert dream.queries() == [1, 2, 3, 4, 5]  # rows 1, 3 and 4 and the masked 2, 4, 5


def test_entropy_above_tau_refreshes_the_canvas():
    passes = Passes("entropy", tau=1.0).after(0, 1, entropy=[0.2, 1.001])
    assert passes.queries() == EVERYTHING and passes.pages.marks["entropy"] == 5
    passes.finish(2, entropy=[0.5])
    assert passes.queries() != EVERYTHING


def test_entropy_with_page_scope_refreshes_pages_near_the_token_and_old_ones():
    #  pages of 4 over prompt and response: -5..-2, -1..2, 3..6, 7..10, 11
    def passes(**options):
        return Passes("entropy", scope="page", tau=1.0, recent_k=0, block_length=12, **options)

    near = passes(reach=0, max_age=99).after(4, 9, entropy=[1.5, 0.1])
    assert near.pages.stale.tolist() == [False, False, True, False, False]
    assert near.queries() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11]
    assert passes(reach=1, max_age=99).after(4, entropy=[1.5]).pages.stale.tolist() == [False, True, True, True, False]
    assert passes(reach=9, max_age=99).after(4, entropy=[1.5]).queries() == EVERYTHING

    old = passes(reach=0, max_age=2).after(0).after(1)
    assert not old.pages.stale.any()  # only a trigger asks how old they are
    old.after(11, entropy=[1.5])
    # the third and fourth page are masked throughout, so each pass recomputes them whole
    assert old.pages.stale.tolist() == [True, True, False, False, True]
    assert old.pages.marks["age"] == 2 and old.pages.marks["entropy"] == 1
    old.after(2).after(10, entropy=[1.5])
    assert old.pages.stale.tolist() == [False, False, False, True, False]


def random_settings(rng, name: str, dream: bool) -> dict:
    keys = {"dllm_cache": name, "dllm_block_length": int(rng.integers(1, 40))}
    keys |= FULL[name].example
    if FULL[name].example or rng.random() < 0.5:
        keys |= {"dllm_tokens_per_step": int(rng.integers(1, 5))}
    else:
        keys |= {"dllm_threshold": float(rng.random())}
    if rng.random() < 0.5:
        keys["dllm_block_add_threshold"] = float(rng.random())
    for option in FULL[name].options:
        if option.key == "dllm_shift" and not dream:
            continue
        if option.choices:
            keys[option.key] = str(rng.choice(option.choices))
        elif option.type is int:
            keys[option.key] = int(rng.integers(option.low, 9))
        else:
            keys[option.key] = float(rng.random())
    return keys


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("model", TRAITS)
def test_random_requests_decode_to_their_end(model, name):
    """Every row read is computed, nothing uncomputed is attended to, and each pass unmasks something."""
    if name == "dkv-greedy" and model == "tiny-dream":
        pytest.skip("dkv-greedy is for LLaDA models only")
    rng = np.random.default_rng(list(name.encode()))
    for _ in range(6):
        keys = random_settings(rng, name, model == "tiny-dream")
        prompt = rng.integers(8, 100, int(rng.integers(1, 50))).tolist()
        decoding = decode(model, prompt, int(rng.integers(1, 50)), keys, seed=1)  # its own checks
        assert decoding.canvas.done and MASK not in decoding.canvas.response
        assert all(p.unmasked for p in decoding.record)
        assert decoding.record[0].stale_pages == decoding.pages.num_pages


@pytest.mark.parametrize("model", TRAITS)
def test_prefix_with_an_interval(model):
    keys = {"dllm_cache": "prefix", "dllm_refresh_interval": 3, "dllm_tokens_per_step": 2, "dllm_block_length": 14}
    record = decode(model, [9, 10, 11], 28, keys).record
    want = [31 if i % 3 == 0 else 31 - 3 - start for start in (0, 14) for i in range(7)]
    assert [p.query_tokens for p in record] == want


def test_dkv_greedy_without_scores_draws_them_by_the_seed():
    keys = {"dllm_cache": "dkv-greedy", "dllm_score": "random", "dllm_steps": 8, "dllm_block_length": 16}
    orders = [[p.unmasked for p in decode("tiny-llada", [9, 10, 11], 16, keys, seed=seed).record] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dllm_threshold": 0.9, "dllm_score": "confidence"}, "dllm_score='confidence' is not allowed"),
        ({"dllm_entropy_bound": 0.1, "dllm_score": "random"}, "dllm_entropy_bound is not allowed"),
    ],
)
def test_dkv_greedy_refuses_what_hangs_on_a_pass(settings, words):
    with pytest.raises(SettingError, match=words):
        resolve({}, {"dllm_cache": "dkv-greedy"} | settings, TRAITS["tiny-llada"])


def test_dkv_greedy_is_refused_for_dream_by_server_and_request():
    keys = {"dllm_cache": "dkv-greedy", "dllm_steps": 8, "dllm_score": "random"}
    with pytest.raises(SettingError, match="LLaDA models only"):
        ServerSettings(keys, TRAITS["tiny-dream"])
    with pytest.raises(SettingError, match="LLaDA models only"):
        resolve({}, keys, TRAITS["tiny-dream"])


def test_entropy_is_read_for_the_policy_that_needs_it_alone():
    names = [name for name in HERE if name != "dkv-greedy"]
    needs = {name: resolve({}, {"dllm_cache": name}, TRAITS["tiny-llada"]).needs_entropy for name in names}
    assert [name for name, needed in needs.items() if needed] == ["entropy"]
