"""What the ranks of an engine send each other: counted in its workers, for the benchmark and a test."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from vllm import LLM, SamplingParams
from vllm.distributed import get_tp_group
from vllm.model_executor.layers.linear import RowParallelLinear
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

OPERATIONS = ("all_reduce", "all_gather", "all_gatherv", "gather", "reduce_scatter", "reduce_scatterv", "broadcast")


class CommunicationCounter:
    """Methods that vLLM adds to its worker (`worker_extension_cls`), called by `LLM.collective_rpc`.

    Bytes are those of the tensor that a rank puts into an operation of the tensor-parallel group; what of it
    crosses a wire depends on the algorithm, (ranks - 1) / ranks * 2 of it for a ring's all-reduce.
    """

    def start_communication_counter(self) -> None:
        """Begin counting from nothing."""
        if not hasattr(self, "_steps"):
            self._count()
        self._steps: list[dict[str, int]] = []

    def read_communication_counter(self) -> list[dict[str, int]]:
        """For each step since the start: `query_tokens`, `canvas_tokens` (attended to) and `rows` (read) of all its
        passes; bytes in the layers' all-reduces (`layers`), the embedding's (`embedding`), the gather of the
        logits (`logits`), and everything else (`other`)."""
        return self._steps

    def _count(self) -> None:
        self._place = "other"
        for module in self.get_model().modules():
            for kind, place in (
                (RowParallelLinear, "layers"),
                (VocabParallelEmbedding, "embedding"),
                (LogitsProcessor, "logits"),
            ):
                if isinstance(module, kind):
                    module.forward = self._in_place(module.forward, place)
        group = get_tp_group()
        if group.world_size > 1:
            for name in OPERATIONS:
                setattr(group, name, self._counted(getattr(group, name)))
        runner = self.model_runner
        run = runner.run

        def counted_run(batch, req_ids):
            step = {"query_tokens": len(batch.positions), "canvas_tokens": int(batch.ends.sum())}
            self._steps.append(step | {"rows": len(batch.places), "layers": 0, "embedding": 0, "logits": 0, "other": 0})
            return run(batch, req_ids)

        runner.run = counted_run

    def _in_place(self, forward: Callable, place: str) -> Callable:
        @wraps(forward)
        def in_place(*args, **kwargs):
            self._place, before = place, self._place
            try:
                return forward(*args, **kwargs)
            finally:
                self._place = before

        return in_place

    def _counted(self, operation: Callable) -> Callable:
        @wraps(operation)
        def counted(tensor: torch.Tensor | list[torch.Tensor], *args: Any, **kwargs: Any):
            parts = tensor if isinstance(tensor, list) else [tensor]
            self._steps[-1][self._place] += sum(part.numel() * part.element_size() for part in parts)
            return operation(tensor, *args, **kwargs)

        return counted


def passes_of_request(llm: LLM, canvas_len: int) -> list[dict[str, int]]:
    """What each pass of a request sends: in `dual`'s way, the whole canvas once, then three times the 32 positions
    of the response. Raises AssertionError unless every rank counted the same."""
    settings = {"dllm_cache": "dual", "dllm_block_length": 32, "dllm_steps": 4}
    params = SamplingParams(temperature=0, max_tokens=32, ignore_eos=True, detokenize=False, extra_args=settings)
    llm.collective_rpc("start_communication_counter")
    llm.generate({"prompt_token_ids": [5] * (canvas_len - 32)}, params, use_tqdm=False)
    first, *others = llm.collective_rpc("read_communication_counter")
    assert all(steps == first for steps in others)
    return first


def compare_canvases(llm: LLM) -> str:
    """A sentence on what partial passes send, which is the same for a short canvas and a long one.

    Raises AssertionError if it is not, or not two all-reduces of the query tokens' hidden states in each layer.
    """
    short, long = (
        [step | {"canvas_tokens": 0} for step in passes_of_request(llm, canvas_len)[1:]] for canvas_len in (128, 512)
    )
    assert short == long, f"passes over a canvas of 128 send {short}, of 512 {long}"
    config = llm.llm_engine.model_config
    layers, width, size = config.hf_config.num_hidden_layers, config.hf_config.hidden_size, config.dtype.itemsize
    for step in short:
        assert step["layers"] == layers * step["query_tokens"] * 2 * width * size, f"{step}, hidden states of {width}"
    step = short[0]
    return (
        f"A partial pass over {step['query_tokens']} query tokens sends, with a canvas of 128 as with one of 512, "
        f"{2 * width * size} bytes for each layer and query token (2 x {width} x {size}), {step['embedding']} for "
        f"the embedding, and {step['logits']} for the logits of the {step['rows']} rows it reads."
    )
