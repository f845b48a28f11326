"""The read-out kernel against the reference. Run by test_step_kernels.py: on a GPU, or else in Triton's interpreter."""

import numpy as np
import pytest
import torch

from vllm_dllm.messages import Adjustment, Edits, Readout
from vllm_dllm.worker.readout import Reader
from vllm_dllm.worker.readout_kernel import read_greedily

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
INF = torch.inf
BROKEN = range(1, 7)  # of some_lines


def some_lines(vocabulary: int, mask: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Logits [16, vocabulary]: ordinary ones, and all that makes a line hard or none at all."""
    x = torch.randn(16, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3
    last, other = vocabulary - 1, (mask + 1) % vocabulary
    x[1, last] = INF
    x[2, other] = torch.nan
    x[3] = -INF
    x[4], x[4, mask] = -INF, 4.0
    x[5, mask] = torch.nan
    x[6, mask] = INF
    x[7, mask] = -INF
    x[8, mask] = 40.0
    x[9], x[9, other] = -INF, -1000.0
    x[10, ::2] = -INF
    x[11] = 0
    x[12] = x[12].round()  # many equal ones
    x[13, other] = x[13, last] = x[13, mask] = 20.0
    x[14] *= 300
    x[15] += 1000
    return x.to(dtype)


def statement(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Confidence, margin and entropy [3, N] in float64, of lines that are not broken."""
    logp = logits.double().log_softmax(-1)
    probs = logp.exp()
    best = probs.topk(2, -1).values
    entropy = -(probs * logp.clamp_min(-1e4)).sum(-1)
    return torch.stack((probs.gather(-1, tokens[:, None])[:, 0], best[:, 0] - best[:, 1], entropy))


def check(vocabulary: int, mask: int, dtype: torch.dtype, seed: int = 0, lines=range(16)):
    logits = some_lines(vocabulary, mask, dtype, seed)[list(lines)].to(DEVICE)
    sound = [i for i, line in enumerate(lines) if line not in BROKEN]
    before = logits.clone()
    packed = torch.empty((5, len(logits) + 3), dtype=torch.int32, device=DEVICE)[:, 1:-2]
    doubles = torch.full((len(logits) + 1,), torch.nan, dtype=torch.float64, device=DEVICE)[1:]
    read_greedily(logits, mask, packed, doubles)
    assert logits.view(torch.uint8).equal(before.view(torch.uint8))
    alone = torch.empty((5, len(logits)), dtype=torch.int32, device=DEVICE)
    read_greedily(logits, mask, alone)
    assert alone.equal(packed)
    cpu = before.cpu()
    reference = Reader("gumbel", mask)
    readout = Readout(margin=True, entropy=True, confidence64=True)
    want = reference.read(lambda _: cpu.clone(), np.asarray([0, len(logits)]), [readout])
    # on CPUs, PyTorch's softmax in float64 is off by 2e-13
    np.testing.assert_allclose(doubles.cpu().numpy(), want.confidence64, rtol=1e-12)
    packed = packed.cpu().contiguous()
    assert packed[0].tolist() == want.tokens.tolist()
    assert np.flatnonzero(packed[4] == 0).tolist() == np.setdiff1d(range(len(logits)), want.broken).tolist() == sound
    values = packed[1:4].view(torch.float32)
    # the reference adds up a vocabulary of softmax in float32, and has 1e-10 beside each probability
    near = torch.from_numpy(np.stack((want.confidence, want.margin, want.entropy)))
    torch.testing.assert_close(values, near, rtol=1e-5, atol=5e-6 + 2e-9 * vocabulary)
    exact = statement(cpu[sound], packed[0, sound].long()).float()
    torch.testing.assert_close(values[:, sound], exact, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vocabulary, mask", [(20, 0), (8192, 8191), (8193, 8192)])
def test_vocabularies_of_one_or_two_tiles(vocabulary, mask, dtype):
    check(vocabulary, mask, dtype)


@pytest.mark.parametrize("seed", range(3))
def test_vocabularies_of_any_size(seed):
    rng = np.random.default_rng(seed)
    vocabulary = int(rng.integers(3, 30_000))
    check(vocabulary, int(rng.integers(vocabulary)), DTYPES[seed], seed)


@pytest.mark.parametrize("vocabulary, mask, dtype", [(126_464, 126_336, DTYPES[1]), (160_000, 7, DTYPES[0])])
def test_large_vocabularies(vocabulary, mask, dtype):
    check(vocabulary, mask, dtype, lines=[0, 2, 4, 8, 11, 13])


def test_equal_logits_in_different_tiles():
    """The lowest index, wherever the tiles' borders are and whichever of them the mask token is."""
    for mask in (5, 8191, 8192, 20_000):
        logits = torch.zeros(3, 30_000, device=DEVICE)
        logits[0, [5, 8191, 8192, 20_000]] = 2.0
        logits[1, [8191, 20_000]] = 2.0
        logits[2, [8192, 8193, 20_000]] = 2.0
        packed = torch.empty((5, 3), dtype=torch.int32, device=DEVICE)
        read_greedily(logits, mask, packed)
        logits[:, mask] = -1
        assert packed[0].tolist() == [int(np.flatnonzero(line == 2)[0]) for line in logits.cpu().numpy()]


def test_lines_cut_out_of_a_wider_tensor_and_none_at_all():
    wide = torch.full((5, 130), torch.nan, device=DEVICE)
    wide[:, :100] = torch.arange(500.0).view(5, 100).sin()
    packed = torch.empty((5, 5), dtype=torch.int32, device=DEVICE)
    read_greedily(wide[:, :100], 1, packed)
    assert packed[0].tolist() == wide[:, :100].argmax(-1).tolist() and not packed[4].any()
    read_greedily(wide[:0, :100], 1, packed[:, :0])


@pytest.mark.parametrize("sampler", ["gumbel", "categorical"])
def test_a_reader_with_the_kernel_reads_what_one_without_it_reads(sampler):
    readouts = [
        Readout(margin=True),
        Readout(0.7, seed=3, entropy=True),
        Readout(entropy=True, confidence64=True),
        Readout(logprobs=3),
        Readout(),
        Readout(1.0, top_p=0.8, seed=4, logprobs=2, margin=True),
    ]
    starts = np.cumsum([0, 5, 70, 2, 3, 1, 2])
    scaled = Adjustment(np.arange(50, 90, dtype=np.int32), np.full(40, 1.3, np.float32), np.full(40, 0.1, np.float32))
    bans = [np.arange(200, 260, dtype=np.int32)]
    edits = {
        0: Edits([scaled], banned=bans),
        1: Edits([scaled]),
        2: Edits(banned=bans),
        3: Edits([scaled], banned=bans),
    }
    edits[4] = Edits(allowed=np.asarray([1], np.int32))  # leaves nothing
    logits = torch.randn(int(starts[-1]), 300, generator=torch.Generator().manual_seed(5)).mul(2).bfloat16().to(DEVICE)
    logits[2, 7] = logits[30, 7] = logits[76, 7] = torch.nan
    reader = Reader(sampler, 1, DEVICE)
    reader.kernel = read_greedily
    seen = reader.read(logits.clone().__getitem__, starts, readouts, edits)
    want = Reader(sampler, 1).read(logits.cpu().clone().__getitem__, starts, readouts, edits)
    assert seen.broken.tolist() == want.broken.tolist() == [2, 30, 76, 80]
    same = np.ones(starts[-1], bool)
    if DEVICE != "cpu":  # which draws other numbers
        same[5:75] = same[81:] = False
    assert seen.tokens[same].tolist() == want.tokens[same].tolist()
    np.testing.assert_allclose(seen.confidence[same], want.confidence[same], atol=1e-6)
    np.testing.assert_allclose(seen.margin[:5], want.margin[:5], atol=1e-6)
    np.testing.assert_allclose(seen.entropy[75:77], want.entropy[75:77], atol=1e-5)
    np.testing.assert_allclose(seen.confidence64[75:77], want.confidence64[75:77], rtol=1e-12)
    assert set(seen.logprobs) == set(want.logprobs) == {3, 5}
    for i in (3, 5) if DEVICE == "cpu" else (3,):
        for a, b in zip(seen.logprobs[i], want.logprobs[i], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
