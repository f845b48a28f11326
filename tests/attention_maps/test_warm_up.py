"""No Triton kernel is compiled while a request waits: the start has launched every one that a probe can come to need."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from paged import Case
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.jit import create_function_from_signature

from vllm_dllm.attention_maps import kernels
from vllm_dllm.worker.layerwise import LayerwiseForward

BACKEND = make_backend(GPUTarget("cuda", 90, 32))


class Launches:
    """In a kernel's place: keeps what Triton tells compiled kernels apart by, and launches nothing."""

    def __init__(self, kernel, seen: set):
        self.kernel, self.seen = kernel, seen
        self.bind = create_function_from_signature(kernel.signature, kernel.params, BACKEND)

    def __getitem__(self, grid):
        def launch(*args, **kwargs):
            _, specialization, options = self.bind(*args, **kwargs)
            self.seen.add((self.kernel.fn.__name__, str(specialization), str(options)))

        return launch


@pytest.fixture
def seen(monkeypatch) -> set:
    found: set = set()
    for name in ("_log_sum_exp", "_probabilities"):
        monkeypatch.setattr(kernels, name, Launches(getattr(kernels, name), found))
    return found


def layerwise(case: Case) -> LayerwiseForward:
    forward = object.__new__(LayerwiseForward)  # its own start wants a model
    attention = SimpleNamespace(num_heads=case.queries.shape[1], head_dim=case.queries.shape[2])
    norm = SimpleNamespace(weight=torch.empty(0, dtype=case.keys.dtype))
    forward.model = SimpleNamespace(model=SimpleNamespace(norm=norm))
    forward.layers = [SimpleNamespace(self_attn=attention)]
    forward.page_size, forward.device, forward.attention = case.rows.page_size, torch.device("cpu"), kernels
    forward.keys = lambda number: (case.keys, case.scale)
    return forward


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_start_has_launched_every_kernel(seen, dtype):
    rng = np.random.default_rng(0)
    layerwise(Case([40], [3], dtype=dtype)).warm_up()
    started = set(seen)
    assert len(started) == 9, "three kinds, three sizes of tiles each"
    for _ in range(60):
        number = int(rng.integers(1, 6))
        lengths = rng.choice([1, 16, 17, 32, 64, 96, 100], number).tolist()
        counts = [int(rng.choice([1, n, rng.integers(1, n + 1)])) for n in lengths]
        case = Case(lengths, counts, dtype=dtype)
        kernels.attention_mass(case.queries, case.weights, case.keys, case.scale, case.rows)
        kernels.attention_weights(case.queries, case.keys, case.scale, case.rows)
    assert seen == started
