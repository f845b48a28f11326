"""What is known of a pair once its passes are read."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Likelihood:
    """The log probability (natural logarithm) of a target behind its prompt."""

    logprob: float
    token_logprobs: list[float] | None = None  # `chain`: each token's, given those before it
    stderr: float | None = None  # `mc`: of `logprob`; None where one batch of draws says nothing of it
    each: list[float] | None = None  # `mc`: each mask's estimate
    greedy: bool | None = None  # where asked for: whether greedy decoding gives the target


def of_chain(scores: np.ndarray, greedy: bool | None) -> Likelihood:
    """Of each token's log probability."""
    return Likelihood(float(scores.sum()), token_logprobs=scores.tolist(), greedy=greedy)


def of_draws(scores: np.ndarray, weights: np.ndarray, strata: int, greedy: bool | None) -> Likelihood:
    """Of the sums of log probabilities over what each mask masks. Draws of one batch depend on each other: it is the
    batches, of `strata` draws each, whose spread says how exact the mean is."""
    each = scores * weights
    batches = each.reshape(-1, strata).mean(1)
    stderr = float(batches.std(ddof=1) / np.sqrt(len(batches))) if len(batches) > 1 else None
    return Likelihood(float(each.mean()), stderr=stderr, each=each.tolist(), greedy=greedy)
