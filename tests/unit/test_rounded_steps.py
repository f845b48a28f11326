"""Numbers of rows for which products are compiled on a CPU: few, and little more than there are."""

from vllm_dllm.worker.buffers import rounded


def test_few_sizes_that_are_little_more():
    sizes = [rounded(tokens) for tokens in range(1, 8193)]
    for tokens, size in enumerate(sizes, 1):
        assert tokens <= size <= tokens + max(7, tokens // 8)
    assert sizes == sorted(sizes) and len(set(sizes)) < 80
    assert [rounded(tokens) for tokens in (1, 8, 32, 33, 512, 513)] == [8, 8, 32, 40, 512, 576]
