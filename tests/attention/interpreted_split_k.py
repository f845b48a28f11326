"""xformers' kernels against plain attention. Run by test_split_k.py: on a GPU, or else in Triton's interpreter."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vllm_dllm.attention.operator import attend, mask

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PAGE = 32


class Case:
    """Random keys and values in random pages, and queries of requests with these lengths and numbers of queries."""

    def __init__(self, lengths, counts, heads=4, kv_heads=2, size=32, page_size=PAGE, dtype=torch.float32, seed=0):
        rng = np.random.default_rng(seed)
        generator = torch.Generator().manual_seed(seed)
        needed = [-(-length // page_size) for length in lengths]
        pages = rng.permutation(sum(needed) + 2)
        # what no request has written is large, so that it would be seen
        cache = torch.full((len(pages), page_size, kv_heads, 2 * size), 1e4, dtype=dtype)
        table = np.zeros((len(lengths), max(needed) + 1), np.int32)  # wider than the longest, as in the engine
        self.dense = []
        for line, length, number in zip(table, lengths, needed, strict=True):
            line[:number], pages = pages[:number], pages[number:]
            both = torch.randn(length, kv_heads, 2 * size, generator=generator).to(dtype)
            for page, part in zip(line.tolist(), both.split(page_size), strict=False):
                cache[page, : len(part)] = part
            self.dense.append(both)
        self.size, self.scale, self.counts = size, size**-0.5, counts
        self.queries = (2 * torch.randn(sum(counts), heads, size, generator=generator)).to(dtype)
        self.cache = cache
        self.mask = mask(
            torch.tensor([0, *np.cumsum(counts)], dtype=torch.int32, device=DEVICE),
            torch.tensor(lengths, dtype=torch.int32, device=DEVICE),
            torch.from_numpy(table).to(DEVICE),
            page_size,
            max(counts),
        )

    def found(self) -> torch.Tensor:
        keys, values = self.cache.to(DEVICE).split(self.size, -1)
        return attend(self.queries.to(DEVICE), keys, values, self.mask, self.scale).cpu()

    def plain(self) -> torch.Tensor:
        parts = []
        for queries, both in zip(self.queries.split(self.counts), self.dense, strict=True):
            keys, values = both.float().transpose(0, 1).split(self.size, -1)
            attended = F.scaled_dot_product_attention(
                queries.float().transpose(0, 1)[None], keys[None], values[None], scale=self.scale, enable_gqa=True
            )
            parts.append(attended[0].transpose(0, 1))
        return torch.cat(parts)


def check(case: Case, tolerance: float = 2e-6) -> None:
    torch.testing.assert_close(case.found().float(), case.plain(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_head_sizes(size):
    check(Case([50, 33], [3, 17], size=size))


@pytest.mark.parametrize("heads, kv_heads", [(1, 1), (2, 2), (4, 1), (6, 2), (7, 1)])
def test_groups_of_heads(heads, kv_heads):
    check(Case([40, 70], [5, 2], heads=heads, kv_heads=kv_heads, seed=heads))


@pytest.mark.parametrize("page_size", [16, 32, 64, 128])
def test_page_sizes(page_size):
    check(Case([70, 129], [3, 5], heads=2, kv_heads=1, page_size=page_size, seed=page_size))


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33])
def test_from_one_query_to_a_block(count):
    check(Case([64, 33, 1], [count, 1, 1], heads=2, kv_heads=2, seed=count))


def test_one_query_each():
    check(Case([64, 33, 1], [1, 1, 1], seed=1))


def test_keys_that_are_shared_out_and_a_request_that_has_none_for_some():
    """One program for some hundred keys: the long request's are shared out, and the short one has none left there."""
    check(Case([520, 3], [4, 2], heads=1, kv_heads=1, seed=2))


@pytest.mark.parametrize("seed", range(4))
def test_random_lengths(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 150, 3).tolist()
    check(Case(lengths, [int(rng.integers(1, n + 1)) for n in np.minimum(lengths, 40)], heads=2, kv_heads=1, seed=seed))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(dtype):
    if dtype == torch.bfloat16 and DEVICE == "cpu":
        pytest.skip("the interpreter takes bfloat16 for integers in products")
    check(Case([75, 40], [7, 32], heads=2, dtype=dtype, size=64), tolerance=1e-2)


def test_padding_is_in_nobodys_way():
    """Queries behind the last request, and requests without queries or keys: what graphs are padded with."""
    case = Case([40, 50], [4, 3])
    want = case.plain()
    case.queries = torch.cat((case.queries, torch.full((9, 4, 32), torch.nan)))
    padded = [torch.tensor([0, 4, 7, 7, 7]), torch.tensor([40, 50, 0, 0])]
    table = torch.cat((case.mask.block_tables, torch.zeros_like(case.mask.block_tables)))
    case.mask = mask(*(t.to(DEVICE, torch.int32) for t in padded), table, PAGE, 16)
    torch.testing.assert_close(case.found()[:7], want, rtol=2e-6, atol=2e-6)
