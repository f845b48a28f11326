"""A transfer of weights without a trainer: each update names a file of them. And what tests do to a worker besides."""

from dataclasses import dataclass

import torch
from graph_stand_in import WithGraphs
from safetensors.torch import load_file
from vllm.distributed.weight_transfer import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload


@dataclass
class Folder(WeightTransferInitInfo):
    folder: str


@dataclass
class File(WeightTransferUpdateInfo):
    name: str


class FromFile(WeightTransferEngine[Folder, File]):
    """Does with a file what vLLM's engines do with what a trainer sends."""

    init_info_cls = Folder
    update_info_cls = File

    def init_transfer_engine(self, init_info):
        self.folder = init_info.folder

    def start_weight_update(self):
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info):
        self.receive_weights(self.parse_update_info(update_info))  # vLLM's own waits for an accelerator

    def receive_weights(self, update_info):
        self.model.load_weights(iter(load_file(f"{self.folder}/{update_info.name}").items()))

    def finish_weight_update(self):
        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self):
        pass


WeightTransferEngineFactory.register_engine("file", FromFile)


def halve_norms(model: torch.nn.Module) -> None:
    """Write into parameters in place, which nothing notices. (Those of linear layers are packed on a CPU.)"""
    for name, weights in model.named_parameters():
        if "layernorm" in name:
            weights.data.mul_(0.5)


class Disturbed(WithGraphs):
    def write_weights(self) -> None:
        halve_norms(self.model_runner.model)

    def apply_to_model(self) -> None:
        self.apply_model(halve_norms)

    def lose_pages(self) -> None:
        """What sleep does to them."""
        for cache in self.model_runner.kv_caches.values():
            cache.fill_(torch.nan)
