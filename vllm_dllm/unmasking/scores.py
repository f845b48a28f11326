"""The score that ranks candidates: a confidence, a margin, a negative entropy, a random number."""

import functools
from collections.abc import Sequence

import numpy as np
import torch

from vllm_dllm.canvas import Canvas
from vllm_dllm.messages import Observation

SCORES = ("confidence", "margin", "entropy", "random", "origin")
# the confidence of a softmax in float64, by which some sources rank (`CachePolicy.steps_rank_by`)
CONFIDENCE64 = "confidence64"


def raw_scores(kind: str, seen: Observation) -> np.ndarray:
    """Scores of the positions read, before any prior: float32, but for `confidence64`. `origin` draws and does not
    look at them."""
    if kind == CONFIDENCE64:
        assert seen.confidence64 is not None
        return seen.confidence64
    if kind == "margin":
        assert seen.margin is not None
        return seen.margin
    if kind == "entropy":
        assert seen.entropy is not None
        return -seen.entropy
    return seen.confidence


def score(
    kind: str,
    canvas: Canvas,
    seen: Observation | None,
    rng: np.random.Generator | None,
    fixed: np.ndarray | None = None,
    sigma: float | None = None,
) -> np.ndarray:
    """One for each canvas position, of `raw_scores`'s type; -inf where it is no candidate or was not read.

    `seen` may be None for `random`, which is then known before the pass.

    `fixed` are the scores of `random` where the request brings its own, one for each response position; `sigma` in
    tokens is the certainty prior's width (d2Cache, arXiv:2509.23094), which multiplies the score.
    """
    at = canvas.candidates
    if kind == "random":
        scores = np.full(canvas.length, -np.inf, np.float32)
        if fixed is None:
            assert rng is not None
            scores[at] = rng.random(len(at))
        else:
            scores[at] = fixed[at - canvas.prompt_len]
        return scores
    assert seen is not None
    raw = raw_scores(kind, seen)
    scores = np.full(canvas.length, -np.inf, raw.dtype)
    if len(at) == len(seen.positions):  # what most policies read: the candidates
        scores[at] = raw
    else:
        at, _, read = np.intersect1d(at, seen.positions, assume_unique=True, return_indices=True)
        scores[at] = raw[read]
    if sigma:
        scores[at] *= response_certainty(canvas, sigma)[at - canvas.prompt_len]
    return scores


def defer(scores: np.ndarray, seen: Observation, tokens: np.ndarray) -> None:
    """Give the candidates for which one of `tokens` was chosen a score below all others', in place.

    Where all candidates are such, there is nothing to wait for, and they keep theirs.
    """
    ranked = np.isfinite(scores)
    late = seen.positions[np.isin(seen.tokens, tokens)]
    late = late[ranked[late]]
    if len(late) and len(late) < np.count_nonzero(ranked):
        lowest = scores[ranked].min()
        scores[late] = lowest - 1e6 * (1 + abs(lowest))  # so far below that a draw by softmax does not take them either


def response_certainty(canvas: Canvas, sigma: float) -> np.ndarray:
    """`certainty_densities` of the one canvas."""
    return certainty_densities(_known(canvas)[None], sigma)[0]


def response_certainties(canvases: Sequence[Canvas], sigmas: Sequence[float]) -> list[np.ndarray]:
    """`response_certainty` of each canvas, with its sigma.

    Those that are as long are computed at once: one transform of many lines takes little more time than one of one line.
    """
    known = [_known(canvas) for canvas in canvases]
    alike: dict[tuple[int, float], list[int]] = {}
    for i, (line, sigma) in enumerate(zip(known, sigmas, strict=True)):
        alike.setdefault((len(line), sigma), []).append(i)
    found = [np.empty(0, np.float32)] * len(known)
    for (_, sigma), group in alike.items():
        for i, density in zip(group, certainty_densities(np.stack([known[i] for i in group]), sigma), strict=True):
            found[i] = density
    return found


def _known(canvas: Canvas) -> np.ndarray:
    return ~canvas.masked[canvas.prompt_len : canvas.decoded_end]


def certainty_densities(known: np.ndarray, sigma: float) -> np.ndarray:
    """For each line of `known` [lines, response], how much of each position's neighbourhood is known: float32, 0 to 1.

    For position i: sum_j known(j) g(i - j) / sum_j g(i - j), g(d) = exp(-d^2 / (2 sigma^2)), over a line
    three responses long: all left of the response is known, all right of it if its last position is.
    Source: arXiv:2509.23094, Kamichanw/d2Cache. Equal densities are common (a gap's two ends), so their
    order hangs on the rounding of the source's float32 Fourier transform, whose sizes are kept here.
    """
    count, n = known.shape
    line = torch.ones(count, 3 * n)
    line[:, n : 2 * n] = torch.from_numpy(known)
    line[:, 2 * n :].masked_fill_(~torch.from_numpy(known[:, -1:].copy()), 0)
    kernel, weight = _kernel(n, sigma)
    return (_smooth(line, kernel) / weight).numpy()


@functools.lru_cache(maxsize=64)
def _kernel(n: int, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The Gaussian's Fourier transform for a response of n tokens, and its sum around each position."""
    distance = torch.arange(6 * n)
    distance[3 * n :] -= 6 * n  # wrapped around
    kernel = torch.fft.fft(torch.exp(-(distance**2) / (2 * sigma**2)))
    return kernel, _smooth(torch.ones(6 * n), kernel).clamp_min(1e-8)


def _smooth(signal: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    n = len(kernel) // 6
    transformed = torch.fft.fft(signal, n=6 * n)
    # a line at a time where threads would share out the product, whose last bits depend on how they do
    for part in transformed.view(-1, 6 * n) if torch.get_num_threads() > 1 else [transformed]:
        part *= kernel
    return torch.fft.ifft(transformed).real[..., n : 2 * n]
