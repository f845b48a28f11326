"""A checkpoint in vLLM's layers, in this process: config hook, loader and model runner, without an engine around."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.distributed.kv_transfer.kv_connector.utils import get_current_attn_backends
from vllm.engine.arg_utils import EngineArgs
from vllm.platforms import current_platform
from vllm.v1.attention.backends.utils import get_supported_kv_cache_layouts, resolve_kv_cache_layout
from vllm.v1.core.kv_cache_utils import get_kv_cache_configs

import vllm_dllm
from vllm_dllm.messages import Batch, Readout

PAGE = 32


def engine_config(path: Path | str, **arguments) -> VllmConfig:
    vllm_dllm.register()
    settings = {"model": str(path), "dtype": "float32", "max_model_len": 128, "max_num_seqs": 4} | arguments
    return EngineArgs(**settings).create_engine_config()


@contextmanager
def one_rank() -> Iterator[None]:
    """A tensor-parallel world of one."""
    from vllm.distributed import parallel_state

    with tempfile.TemporaryDirectory() as folder:
        parallel_state.init_distributed_environment(1, 0, f"file://{folder}/world", 0, "gloo")
        with set_current_vllm_config(VllmConfig()):
            parallel_state.initialize_model_parallel()
        yield
        parallel_state.destroy_model_parallel()
        parallel_state.destroy_distributed_environment()


class Loaded:
    """Loads the checkpoint at `path`; must be used inside `one_rank`."""

    def __init__(self, path: Path | str, **arguments):
        # importing the worker prepares PyTorch for a machine without an accelerator
        from vllm_dllm.worker.worker import DllmModelRunner

        self.config = engine_config(path, **arguments)
        current_platform.import_kernels()
        with set_current_vllm_config(self.config):
            self.runner = DllmModelRunner(self.config, torch.device("cpu"))
            self.runner.load_model()
            specs = self.runner.get_kv_cache_spec()
            layouts = get_supported_kv_cache_layouts(get_current_attn_backends(self.config))
            resolve_kv_cache_layout(self.config, [[layout.name for layout in layouts]], specs.values())
            (caches,) = get_kv_cache_configs(self.config, [specs], [1 << 24])
            self.runner.initialize_kv_cache(caches)

    @property
    def model(self) -> torch.nn.Module:
        return self.runner.model

    def log_probs(self, ids: list[int]) -> torch.Tensor:
        """[len(ids), vocabulary], from one pass over `ids`."""
        count = len(ids)
        batch = Batch(
            positions=np.arange(count, dtype=np.int32),
            token_ids=np.asarray(ids, np.int32),
            query_starts=np.asarray([0, count], np.int32),
            ends=np.asarray([count], np.int32),
            block_table=np.arange(1, 2 + count // PAGE, dtype=np.int32)[None],
            places=np.arange(count, dtype=np.int32),
            read_starts=np.asarray([0, count], np.int32),
            readouts=[Readout(logprobs=-1)],
        )
        with set_current_vllm_config(self.config):
            observation = self.runner.run(batch, ["request"]).get_output().observation
        tokens, values, _ = (torch.from_numpy(a) for a in observation.logprobs[0])
        # the chosen token comes first, then the whole vocabulary in order of its probability
        return torch.empty(count, values.shape[1] - 1).scatter_(1, tokens[:, 1:].long(), values[:, 1:])
