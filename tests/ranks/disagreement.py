"""A rank that measures something else than the others."""

from vllm_dllm.worker import layerwise


class Disagreement:
    """A method that vLLM adds to its worker (`worker_extension_cls`), called by `LLM.collective_rpc`."""

    def disagree(self) -> None:
        """From now on the second rank sees the attention of all tracked tokens drift."""
        if self.rank == 1:
            similarity = layerwise.similarity
            layerwise.similarity = lambda *maps: similarity(*maps) - 2
