"""The profile run takes as much memory as a step can."""

import gc

import torch
from common import CHECKPOINTS
from loaded import Loaded
from vllm.config import set_current_vllm_config


def test_what_d2_keeps_is_there_in_the_profile_run(world, monkeypatch):
    loaded = Loaded(CHECKPOINTS / "tiny-llada", max_num_batched_tokens=200)
    runner, shapes = loaded.runner, []
    config = loaded.config.model_config.hf_config
    dummy_run = runner._dummy_run

    def watched(tokens):
        shapes.extend(o.shape for o in gc.get_objects() if isinstance(o, torch.Tensor))
        return dummy_run(tokens)

    monkeypatch.setattr(runner, "_dummy_run", watched)
    with set_current_vllm_config(loaded.config):
        runner.profile_run()
    assert (config.num_hidden_layers, 200, config.hidden_size) in shapes  # every layer's queries of every token
