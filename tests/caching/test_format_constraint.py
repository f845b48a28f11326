"""What a guaranteed format admits, against its definition, and that it never gets stuck."""

import itertools
import random
import re

import numpy as np
import pytest
import torch
from common import MASK
from dense import TRAITS, new_decoding
from format_cases import format_cases, small_vocabulary
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vllm_dllm.caching.registry import FULL
from vllm_dllm.canvas import Canvas
from vllm_dllm.constraints.format import Chain, Format
from vllm_dllm.formats.automaton import Automaton
from vllm_dllm.formats.build import Spelling, build, vocabulary
from vllm_dllm.formats.language import Language
from vllm_dllm.frontier import Blocks
from vllm_dllm.messages import Edits
from vllm_dllm.worker.readout import Reader

TOKENS = [b"", b"a", b"b", b"ab", b"ba", b"1", b"11", b""]  # the first is the mask, the last one ends an answer
END = len(TOKENS) - 1
SOME = ["(ab|a1)*", "a*b?1+", "(a|b){2}1?", "ab(1|ba)*", "(11|ab)+b", "a?"]


def automaton(regex: str) -> Automaton:
    built = build(Language(regex, exact=True), Spelling(vocabulary(TOKENS, [END])))
    return Automaton.unpack(built.pack())


def valid(response: tuple[int, ...], words: set[bytes]) -> bool:
    stop = response.index(END) if END in response else len(response)
    return b"".join(TOKENS[t] for t in response[:stop]) in words and all(t == END for t in response[stop:])


@pytest.mark.parametrize("regex", SOME)
@pytest.mark.parametrize("given_text", [{}, {1: 1}, {0: 3, 2: 5}, {3: END}, {2: END}])
def test_a_token_is_admitted_if_some_valid_response_has_it(regex, given_text):
    """By trying all responses of four positions; and after each token that is fixed, of those that remain."""
    found, n = automaton(regex), 4
    texts = {b"".join(t) for k in range(n + 1) for t in itertools.product(TOKENS[1:END], repeat=k)}
    words = {text for text in texts if re.fullmatch(regex, text.decode())}
    left = [r for r in itertools.product(range(1, END + 1), repeat=n) if valid(r, words)]
    last = max(given_text, default=-1)
    left = [r for r in left if all(r[i] == t for i, t in given_text.items())]
    left = [r for r in left if all(r[i] != END for i in range(last) if i not in given_text)]
    canvas = Canvas([9], n, 0, Blocks(n), given={1 + i: t for i, t in given_text.items()})
    constraint = Format(found, "key")
    assert constraint.start(canvas) == bool(left)
    rng = random.Random(0)
    while left and canvas.masked.any():
        edits, reads = Edits(), np.flatnonzero(canvas.masked)
        constraint.edit(canvas, reads, edits)
        admitted = edits.admitted.rows[edits.admitted.which][:, found.class_of]
        for i, line in zip(reads - 1, admitted, strict=True):
            assert set(np.flatnonzero(line)) == {r[i] for r in left}, (i, canvas.tokens)
        at, token = int(rng.choice(reads)), rng.choice(left)
        assert constraint.admits(canvas, at, token[at - 1])
        constraint.fix(canvas, at, token[at - 1])
        left = [r for r in left if r[at - 1] == token[at - 1]]
        canvas.unmask(np.asarray([at]), np.asarray([token[at - 1]]))


def test_the_shortest_word():
    for regex in SOME:
        lengths = [n for n in range(4) if Format(automaton(regex), "").start(Canvas([9], max(n, 1), 0, Blocks(4)))]
        assert max(1, automaton(regex).shortest) == max(1, lengths[0])


def test_a_chain_is_as_if_made_anew():
    """Of small numbers in place of sets: those that are equal are the same. Steps forget what was before, or do not."""
    rng = random.Random(0)
    for _ in range(400):
        n = rng.randint(1, 12)
        steps = [rng.choice("+-01") for _ in range(n)]
        step = {"+": lambda v: (v + 1) % 5, "-": lambda v: v, "0": lambda v: 0, "1": lambda v: min(v, 1)}
        chain = Chain(1, n, lambda value, i, steps=steps, step=step: step[steps[i]](value))
        for _ in range(40):
            i = rng.randrange(n)
            if rng.random() < 0.4:
                steps[i] = rng.choice("+-01")
                chain.changed(i)
            else:
                want = 1
                for kind in steps[: i + 1]:
                    want = step[kind](want)
                assert chain.at(i + 1) == want


HERE = [p for p in FULL.values() if p.probe_class is None]


@given(st.data())
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_invalid_answer_from_random_logits(data):
    """Every policy that needs no attention, every rule, fixed steps too; the logits are drawn anew in each pass."""
    model = data.draw(st.sampled_from(["tiny-llada", "tiny-dream"]))
    case = data.draw(format_cases(model))
    if not case.possible:
        return
    policy = data.draw(st.sampled_from([p for p in HERE if model == "tiny-llada" or not p.example]))
    length, keys = case.max_tokens, {"dllm_cache": policy.name} | policy.example
    if not policy.example:
        rule = data.draw(st.sampled_from(["dllm_steps", "dllm_threshold", "dllm_tokens_per_step"]))
        keys |= {rule: {"dllm_steps": data.draw(st.integers(1, length)), "dllm_threshold": 0.1}.get(rule, 4)}
        keys["dllm_block_length"] = length if rule == "dllm_steps" else 16
        if model == "tiny-dream" and rule == "dllm_steps":
            keys |= data.draw(st.sampled_from([{}, {"dllm_score": "origin"}, {"dllm_alg_temp": 1.0}]))
    constraint = Format(Automaton.unpack(case.built.packed), "key")
    decoding = new_decoding(
        model, [5, 6, 7], length, keys, constraints=[constraint], seed=case.seed, temperature=case.temperature
    )
    sampler = "gumbel" if TRAITS[model].row_shift == 0 else "categorical"
    reader = Reader(sampler, MASK)
    reader.tables["key"] = torch.from_numpy(constraint.automaton.class_of)
    generator = torch.Generator().manual_seed(case.seed)
    passes = 0
    while not decoding.canvas.done:
        planned = decoding.plan()
        count = len(planned.reads)
        logits = 4 * torch.randn(count, 128, generator=generator)
        edits = {} if planned.edits is None else {0: planned.edits}
        seen = reader.read(logits.__getitem__, np.asarray([0, count]), [planned.readout], edits)
        decoding.finish(planned, seen.of_request(0, 0, count, planned.reads))
        passes += 1
        assert passes <= 2 * length + 2, "it is stuck"
    tokens = small_vocabulary(model).tokens
    text = b"".join(tokens[t] for t in decoding.canvas.response).decode()
    assert case.fault(text) is None, case


def test_behind_a_suffix_no_answer_ends_early():
    for regex, length, possible in (
        ("a|b", 1, True),
        ("a|b", 2, False),
        ("ab", 1, True),
        ("ab", 2, True),
        ("ab", 3, False),
    ):
        canvas = Canvas([9], length, 0, Blocks(4), suffix_ids=(5,))
        assert Format(automaton(regex), "").start(canvas) == possible
