"""Golden cases of likelihood: as pairs, and what is to be read of them."""

import random
from collections.abc import Sequence

import numpy as np
from common import Engine, golden
from golden_cases import Case, differences_of
from sampling import Sampling

from vllm_dllm.likelihood.asked import Asked
from vllm_dllm.likelihood.result import Likelihood
from vllm_dllm.likelihood_requests import Likelihoods

ESTIMATORS = ("chain", "mc")
CLOSE = 1e-4  # natural logarithm: the files have six digits, of float32 sums


def sample(model: str, sampling: Sampling, count: int) -> list[dict]:
    """So many of the model's cases, or all."""
    return sampling.take(golden(model, "likelihood"), lambda case: 0, least=count)


def pairs(cases: Sequence[dict]) -> list[tuple[list[int], list[int]]]:
    return [(case["prompt_ids"], case["target_ids"]) for case in cases]


def asked(cases: Sequence[dict], estimator: str) -> Asked:
    return Asked(estimator, [case["masks"] for case in cases] if estimator == "mc" else None)


def difference(case: dict, estimator: str, logprob: float, token_logprobs: list[float] | None) -> str | None:
    """What is not as it should be."""
    if estimator == "mc":
        found = abs(logprob - case["mc"])
    else:
        found = float(np.abs(np.subtract(token_logprobs, case["chain"])).max())
    return None if found < CLOSE else f"{case['model']}, {estimator} of {case['prompt']!r}: {found:.1e} beside"


def together(engine: Engine, scored: Sequence[dict], decoded: Sequence[Case], seed: int) -> list[str | None]:
    """The differences of cases that are scored and others that are decoded, all in the engine at once."""
    config = engine.llm.llm_engine.vllm_config
    asking = {e: Likelihoods(config, pairs(scored), asked(scored, e)) for e in ESTIMATORS if scored}
    requests = [(r.prompt, r.params) for one in asking.values() for r in one.requests]
    requests += [(case.prompt, case.params) for case in decoded]
    order = random.Random(seed).sample(range(len(requests)), len(requests))
    answers = engine.run([requests[i][0] for i in order], [requests[i][1] for i in order])
    results = dict(zip(order, answers, strict=True))
    found, start = [], 0
    for estimator, one in asking.items():
        outputs = [results[start + i][0] for i in range(len(one.requests))]
        start += len(outputs)
        read: list[Likelihood] = one.results(outputs)
        found += [difference(c, estimator, r.logprob, r.token_logprobs) for c, r in zip(scored, read, strict=True)]
    return found + differences_of(decoded, [results[start + i] for i in range(len(decoded))])
