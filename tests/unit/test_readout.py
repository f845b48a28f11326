"""From logits to tokens: greedy, Gumbel and categorical draws, top-k and top-p, confidences, seeds."""

import numpy as np
import pytest
import torch
from decoding_helpers import MASK

from vllm_dllm.messages import Readout
from vllm_dllm.worker.host_copy import HostCopy
from vllm_dllm.worker.readout import CHUNK, LINES, Reader, keep_top

GUMBEL, CATEGORICAL = Reader("gumbel", MASK), Reader("categorical", MASK)
BOTH = pytest.mark.parametrize("reader", [GUMBEL, CATEGORICAL], ids=["gumbel", "categorical"])


def random_logits(rows: int, vocabulary: int = 20, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 2


def read_one(reader: Reader, logits: torch.Tensor, readout: Readout):
    return reader.read(logits.clone().__getitem__, np.asarray([0, len(logits)]), [readout])


def softmax(logits: torch.Tensor) -> np.ndarray:
    return torch.softmax(logits.double(), -1).numpy()


# ---- greedy ----


@BOTH
def test_greedy(reader):
    logits = random_logits(200)
    logits[3, MASK] = 50.0  # the mask token is the most likely one, and is not chosen
    seen = read_one(reader, logits, Readout(margin=True, entropy=True))
    probs = softmax(logits)
    no_mask = logits.clone()
    no_mask[:, MASK] = -torch.inf
    assert seen.tokens.tolist() == no_mask.argmax(-1).tolist() and seen.tokens.dtype == np.int32
    assert seen.tokens[3] != MASK
    np.testing.assert_allclose(seen.confidence, probs[np.arange(200), seen.tokens], atol=1e-6)
    best = np.sort(probs, -1)
    np.testing.assert_allclose(seen.margin, best[:, -1] - best[:, -2], atol=1e-6)
    np.testing.assert_allclose(seen.entropy, -(probs * np.log(probs)).sum(-1), atol=1e-5)


def test_what_nobody_asked_for_is_not_read():
    seen = read_one(GUMBEL, random_logits(3), Readout())
    assert seen.margin is None and seen.entropy is None and seen.confidence64 is None and seen.logprobs == {}


def test_confidence_in_float64_of_those_who_ask():
    logits = random_logits(6)
    logits[:, 3] += 25  # so sure that float32 cannot tell the rows apart
    seen = GUMBEL.read(logits.clone().__getitem__, np.asarray([0, 2, 6]), [Readout(), Readout(confidence64=True)])
    want = softmax(logits)[:, 3]
    assert seen.confidence64.dtype == np.float64 and len(set(want[2:])) == 4 > len(set(seen.confidence[2:]))
    assert seen.confidence64[2:].tolist() == want[2:].tolist()


def test_a_step_that_reads_nothing():
    """There is nothing of what anybody can ask for, and the size of the vocabulary."""
    reader = Reader("gumbel", MASK, vocab_size=99)
    seen = reader.read(None, np.asarray([0, 0]), [Readout(margin=True, confidence64=True)])  # the head is not asked
    part = seen.of_request(0, 0, 0, np.empty(0, np.int64))
    arrays = (part.tokens, part.confidence, part.margin, part.entropy, part.confidence64)
    assert [len(array) for array in arrays] == [0] * 5 and part.finite and part.vocab_size == 99


def test_half_precision_logits_are_read_in_float32():
    logits = random_logits(50).bfloat16()
    seen = read_one(GUMBEL, logits, Readout())
    np.testing.assert_allclose(seen.confidence, softmax(logits)[np.arange(50), seen.tokens], atol=1e-6)


# ---- draws ----


def frequencies(reader: Reader, row: torch.Tensor, readout: Readout, draws: int = 6000) -> np.ndarray:
    seen = read_one(reader, row.expand(draws, -1), readout)
    return np.bincount(seen.tokens, minlength=len(row)) / draws


def check_frequencies(got: np.ndarray, want: np.ndarray, draws: int = 6000) -> None:
    """Each count within 4.5 standard deviations; with fixed seeds it holds or it does not."""
    assert (np.abs(got - want) <= 4.5 * np.sqrt(want * (1 - want) / draws)).all(), f"{got} for {want}"


ROW = torch.tensor([0.0, 1.2, 1.0, 2.0, 1.5, -1.0])  # token 1 is the mask


def tempered(row: torch.Tensor, temperature: float, keep=None) -> np.ndarray:
    """The distribution without the mask token (and with those of `keep` alone) at a temperature."""
    scaled = (row / temperature).double()
    scaled[[i for i in range(len(row)) if i == MASK or keep is not None and i not in keep]] = -torch.inf
    return torch.softmax(scaled, -1).numpy()


@BOTH
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_draws_follow_the_tempered_distribution(reader, temperature):
    got = frequencies(reader, ROW, Readout(temperature, seed=11))
    assert got[MASK] == 0
    check_frequencies(got, tempered(ROW, temperature))


@BOTH
def test_draws_of_one_row_over_many_seeds(reader):
    """Neighbouring seeds are independent draws too."""
    tokens = [read_one(reader, ROW[None], Readout(1.0, seed=seed)).tokens[0] for seed in range(3000)]
    check_frequencies(np.bincount(tokens, minlength=6) / 3000, tempered(ROW, 1.0), 3000)


@BOTH
def test_a_low_temperature_is_nearly_greedy(reader):
    logits = random_logits(300)
    drawn = read_one(reader, logits, Readout(0.01, seed=4)).tokens
    greedy = read_one(reader, logits, Readout()).tokens
    assert (drawn == greedy).mean() > 0.97


@BOTH
def test_top_k(reader):
    got = frequencies(reader, ROW, Readout(1.0, top_k=2, seed=5))
    check_frequencies(got, tempered(ROW, 1.0, keep=(3, 4)))
    assert set(np.flatnonzero(got)) == {3, 4}
    got = frequencies(reader, ROW, Readout(1.0, top_k=1, seed=5))
    assert set(np.flatnonzero(got)) == {3}
    for everything in (0, -1, 6, 100):
        got = frequencies(reader, ROW, Readout(1.0, top_k=everything, seed=5))
        check_frequencies(got, tempered(ROW, 1.0))


@BOTH
def test_top_p(reader):
    # without the mask: .45 (3), .27 (4), .17 (2), .06 (0), .02 (5)
    p = np.sort(tempered(ROW, 1.0))[::-1]
    assert p[0] < 0.6 < p[:2].sum() < 0.8 < p[:3].sum()
    check_frequencies(frequencies(reader, ROW, Readout(1.0, top_p=0.6, seed=6)), tempered(ROW, 1.0, keep=(3, 4)))
    check_frequencies(frequencies(reader, ROW, Readout(1.0, top_p=0.8, seed=6)), tempered(ROW, 1.0, keep=(2, 3, 4)))
    assert set(np.flatnonzero(frequencies(reader, ROW, Readout(1.0, top_p=1e-9, seed=6)))) == {3}


@BOTH
def test_top_k_and_top_p_together(reader):
    got = frequencies(reader, ROW, Readout(1.0, top_k=3, top_p=0.6, seed=7))
    check_frequencies(got, tempered(ROW, 1.0, keep=(3, 4)))


@pytest.mark.parametrize("seed", range(20))
def test_kept_tokens_by_their_statement(seed):
    """top-p: the most likely tokens until their sum exceeds it; top-k: the k most likely."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(8, 12)) * 2)
    top_k, top_p = int(rng.integers(0, 14)), float(rng.random())
    kept = torch.isfinite(keep_top(logits, top_k, top_p)).numpy()
    for row, probs in zip(kept, softmax(logits), strict=True):
        order = np.argsort(-probs)
        want, total = [], 0.0
        for token in order:
            if want and total > top_p or 0 < top_k <= len(want):
                break
            want.append(token)
            total += probs[token]
        assert sorted(want) == np.flatnonzero(row).tolist()


@BOTH
def test_the_mask_token_is_never_drawn(reader):
    row = ROW.clone()
    row[MASK] = 30.0
    for readout in (Readout(2.0, seed=1), Readout(1.0, top_k=1, seed=1), Readout(1.0, top_p=0.1, seed=1), Readout()):
        assert frequencies(reader, row, readout, 500)[MASK] == 0


# ---- what the confidence is read from ----


def test_gumbel_confidence_is_of_the_noise_free_distribution():
    logits = random_logits(100)
    seen = read_one(GUMBEL, logits, Readout(1.5, top_k=5, seed=3, margin=True, entropy=True))
    probs = softmax(logits)
    np.testing.assert_allclose(seen.confidence, probs[np.arange(100), seen.tokens], atol=1e-6)
    best = np.sort(probs, -1)
    np.testing.assert_allclose(seen.margin, best[:, -1] - best[:, -2], atol=1e-6)
    np.testing.assert_allclose(seen.entropy, -(probs * np.log(probs)).sum(-1), atol=1e-5)


def test_categorical_confidence_is_of_the_tempered_and_filtered_distribution():
    logits = random_logits(100)
    seen = read_one(CATEGORICAL, logits, Readout(1.5, top_k=5, seed=3, margin=True, entropy=True))
    probs = np.stack([tempered(row, 1.5) for row in logits])
    for row in probs:
        row[np.argsort(row)[:-5]] = 0
        row /= row.sum()
    np.testing.assert_allclose(seen.confidence, probs[np.arange(100), seen.tokens], atol=1e-6)
    best = np.sort(probs, -1)
    np.testing.assert_allclose(seen.margin, best[:, -1] - best[:, -2], atol=1e-6)
    np.testing.assert_allclose(seen.entropy, -(probs * np.log(probs + 1e-30)).sum(-1), atol=1e-5)


# ---- seeds ----


@BOTH
def test_a_draw_depends_on_nothing_else_in_the_batch(reader):
    own = random_logits(2 * CHUNK + 9, seed=1)
    readout = Readout(1.0, seed=123)
    alone = read_one(reader, own, readout)
    for before, after in ((0, 5), (1, 0), (CHUNK, 3), (77, 77)):
        logits = torch.cat((random_logits(before, seed=2), own, random_logits(after, seed=3)))
        starts = np.cumsum([0, before, len(own), after])
        readouts = [Readout(0.7, seed=9), readout, Readout()]
        seen = reader.read(logits.__getitem__, starts, readouts)
        part = seen.of_request(1, starts[1], starts[2], np.arange(len(own)))
        assert (part.tokens == alone.tokens).all()
        np.testing.assert_allclose(part.confidence, alone.confidence, rtol=1e-6)


@BOTH
def test_seeds(reader):
    logits = random_logits(100) / 4
    a, b, c = (read_one(reader, logits, Readout(1.0, seed=seed)).tokens for seed in (1, 1, 2))
    assert (a == b).all() and (a != c).any()


@BOTH
def test_rows_draw_apart_from_each_other(reader):
    """Rows and chunks of rows with equal logits do not repeat each other's draws."""
    tokens = read_one(reader, torch.zeros(4 * CHUNK, 1000), Readout(1.0, seed=1)).tokens
    assert len(set(tokens.tolist())) > 150
    assert (tokens[:CHUNK] != tokens[CHUNK : 2 * CHUNK]).mean() > 0.9


# ---- requests of all kinds in one read ----


@BOTH
def test_each_request_is_read_as_it_asks(reader):
    """Greedy neighbours are read together: what they get is what they get alone."""
    readouts = [
        Readout(),
        Readout(),
        Readout(margin=True),
        Readout(1.0, seed=5),
        Readout(entropy=True),
        Readout(entropy=True),
        Readout(logprobs=2),
        Readout(),
    ]
    sizes = [3, 1, 4, 70, 5, 2, 6, 1]
    starts = np.cumsum([0, *sizes])
    logits = random_logits(int(starts[-1]), seed=8)
    seen = reader.read(logits.clone().__getitem__, starts, readouts)
    assert set(seen.logprobs) == {6}
    for i, readout in enumerate(readouts):
        part = slice(starts[i], starts[i + 1])
        alone = read_one(reader, logits[part], readout)
        assert (seen.tokens[part] == alone.tokens).all()
        np.testing.assert_allclose(seen.confidence[part], alone.confidence, rtol=1e-6)
        if readout.margin:
            np.testing.assert_allclose(seen.margin[part], alone.margin, rtol=1e-5)
        if readout.entropy:
            np.testing.assert_allclose(seen.entropy[part], alone.entropy, rtol=1e-5)


# ---- log probabilities ----


@BOTH
@pytest.mark.parametrize("count", [0, 1, 3, -1])
def test_logprobs(reader, count):
    logits = random_logits(30)
    logits[2, MASK] = 40.0
    ids, values, ranks = read_one(reader, logits, Readout(1.0, seed=2, logprobs=count)).logprobs[0]
    tokens = read_one(reader, logits, Readout(1.0, seed=2)).tokens
    want = np.log(softmax(logits))
    width = 1 + (20 if count < 0 else count)
    assert ids.shape == values.shape == (30, width) and ranks.shape == (30,)
    assert (ids[:, 0] == tokens).all(), "the chosen token comes first"
    np.testing.assert_allclose(values, np.take_along_axis(want, ids.astype(np.int64), -1), atol=1e-5)
    best = np.argsort(-want, -1)[:, : width - 1]
    assert (ids[:, 1:] == best).all()
    for row, token, rank in zip(want, tokens, ranks, strict=True):
        assert rank == 1 + (row > row[token]).sum()
    assert ranks[2] > 1, "the mask token is the most likely one, and is not chosen"


# ---- lines that are no numbers ----


@BOTH
def test_lines_without_a_finite_best_token_are_named(reader):
    logits = random_logits(9).bfloat16()
    logits[1, 5], logits[3, 5], logits[4], logits[6, MASK] = torch.nan, torch.inf, -torch.inf, torch.nan
    logits[7], logits[7, MASK] = -torch.inf, 2.0
    logits[8], logits[8, 3] = -torch.inf, -5.0
    starts, readouts = np.asarray([0, 4, 9]), [Readout(1.0, seed=2, logprobs=1), Readout(margin=True, entropy=True)]
    seen = reader.read(logits.clone().__getitem__, starts, readouts)
    assert seen.broken.tolist() == [1, 3, 4, 6, 7]
    assert np.isfinite(seen.confidence).all() and np.isfinite(seen.entropy).all()
    assert seen.tokens[8] == 3 and seen.confidence[8] == 1


# ---- more lines than are read at once ----


@BOTH
def test_lines_are_read_in_pieces_and_draw_the_same(reader):
    sizes = [30, LINES - 10, 1, 3 * LINES + 7, 65]
    readouts = [
        Readout(),
        Readout(1.0, seed=3),
        Readout(entropy=True, confidence64=True),
        Readout(1.0, seed=4, logprobs=1, margin=True),
        Readout(),
    ]
    starts = np.cumsum([0, *sizes])
    logits = random_logits(int(starts[-1]), seed=9)
    logits[2 * LINES, 0] = torch.nan
    asked = []

    def head(lines: slice) -> torch.Tensor:
        asked.append(lines)
        return logits[lines].clone()

    seen = reader.read(head, starts, readouts)
    assert [s.start for s in asked] == [0, *(s.stop for s in asked[:-1])] and asked[-1].stop == len(logits)
    assert max(s.stop - s.start for s in asked) <= LINES and len(asked) <= 6
    assert seen.broken.tolist() == [2 * LINES]
    for i, readout in enumerate(readouts):
        part = slice(starts[i], starts[i + 1])
        own = reader.read(logits[part].clone().__getitem__, np.asarray([0, sizes[i]]), [readout])
        assert (seen.tokens[part] == own.tokens).all()
        np.testing.assert_allclose(seen.confidence[part], own.confidence, rtol=1e-6)
        if readout.confidence64:
            assert seen.confidence64[part].tolist() == own.confidence64.tolist()
        if readout.logprobs:
            for a, b in zip(seen.logprobs[i], own.logprobs[0], strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_rank_without_logits_reads_nothing():
    asked = []
    assert GUMBEL.read(asked.append, np.asarray([0, LINES + 1]), [Readout()]) is None
    assert len(asked) == 2, "the head's other ranks wait for it"


# ---- to the host ----


def test_one_copy_holds_tensors_of_all_kinds():
    generator = torch.Generator().manual_seed(1)
    tensors = [
        torch.arange(15, dtype=torch.int32).view(5, 3),
        torch.rand(7, generator=generator, dtype=torch.float64),
        torch.tensor([True, False, True]),
        torch.rand(4, 6, generator=generator)[:, ::2],
        torch.empty(0, 4),
        torch.arange(3),
    ]
    for kept in (tensors, tensors[:1], tensors[2:]):
        for tensor, array in zip(kept, HostCopy(kept).arrays(), strict=True):
            assert array.dtype == tensor.numpy().dtype and array.flags.aligned
            np.testing.assert_array_equal(array, tensor.numpy())


@pytest.mark.parametrize("mask", [0, 1, 19])
def test_a_line_whose_mask_token_alone_is_possible_is_broken(mask):
    logits = torch.full((3, 20), -torch.inf)
    logits[:, mask] = 4.0
    logits[1, 7] = -9.0
    seen = read_one(Reader("gumbel", mask), logits, Readout())
    assert seen.broken.tolist() == [0, 2] and seen.tokens[1] == 7
