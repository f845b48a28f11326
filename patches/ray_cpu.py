"""Ranks of a CPU machine as Ray actors.

What: on the CPU platform, `--distributed-executor-backend ray` means the executor below. It takes one of Ray's CPUs
  for each rank, does without device ids, and refuses at once where no cluster is named or where vLLM would wait half
  an hour for CPUs that it does not have. Ranks on different nodes do not look for each other in shared memory.
Why: vLLM's CPU platform names no Ray resource, so that Ray is refused; and its CPU communicator takes two nodes for one
  if the port of their rendezvous is the same, which it always is. With it all that several nodes do can be run,
  and tested, without a GPU. On a GPU vLLM's own executor is used as it is.
Applied: by engine_config.py, on CPU with the Ray executor.
Checked on: vLLM 0.32.0, Ray 2.60.0; the source of vLLM 0.33.0.
Until: vLLM's CPU platform has a `ray_device_key`.
"""

import os

import ray
from vllm import envs
from vllm.config import VllmConfig
from vllm.distributed.device_communicators.cpu_communicator import _CPUSHMDistributed
from vllm.platforms import current_platform
from vllm.v1.executor import ray_executor_v2
from vllm.v1.executor.ray_executor_v2 import RayExecutorV2, RayWorkerProc

from vllm_dllm.options import SettingError
from vllm_dllm.patches.wrap import wrap

RESOURCE = "CPU"  # every node of a Ray cluster has it, without being told
SWITCH = "VLLM_USE_RAY_V2_EXECUTOR_BACKEND"


def _make_group_name(original, communicator):
    """The name of a group's shared memory; vLLM uses it only where all ranks come to the same one."""
    return f"{ray.get_runtime_context().get_node_id()[:8]}-{original(communicator)}"


class RayCPUWorkerProc(RayWorkerProc):
    """A rank. Ray makes it in a process of its own, which imports this module."""

    def get_node_and_physical_gpu_ids(self) -> tuple[str, list[int]]:
        return ray.get_runtime_context().get_node_id(), []

    def initialize_worker(self, *args, **kwargs) -> None:
        wrap(_CPUSHMDistributed, "make_group_name", _make_group_name)
        super().initialize_worker(*args, **kwargs)


class RayCPUExecutor(RayExecutorV2):
    """vLLM's executor for Ray, with ranks on CPUs."""

    def _init_executor(self) -> None:
        type(current_platform).ray_device_key = RESOURCE
        ray_executor_v2.RayWorkerProc = RayCPUWorkerProc
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # as vLLM does before it connects
        if not ray.is_initialized():
            ray.init(runtime_env=self.parallel_config.ray_runtime_env)
        cpus = int(ray.cluster_resources().get(RESOURCE, 0))
        if self.parallel_config.world_size > cpus:
            raise SettingError(
                f"tensor_parallel_size={self.parallel_config.world_size} is not allowed: it must be at most the number "
                f"of CPUs in the Ray cluster, {cpus} (`ray start --num-cpus` sets a node's, `ray status` shows them)"
            )
        super()._init_executor()

    @staticmethod
    def _get_actor_resource_kwargs() -> dict[str, object]:
        # the placement group has the CPU; Ray does not take CPUs among an actor's `resources`
        return {"num_gpus": 0}


def use(config: VllmConfig) -> None:
    """Where `config` asks for Ray on a CPU machine, make that the executor above."""
    if not getattr(envs, SWITCH, True):  # vLLM 0.33 has no other executor, and no switch
        raise SettingError(f"{SWITCH}=0 is not allowed on CPU: it must be 1")
    if not (ray.is_initialized() or os.environ.get("RAY_ADDRESS")):
        # Ray would try the last cluster that this machine had, for minutes, or start one that nobody sees
        raise SettingError(
            "distributed_executor_backend='ray' is not allowed on CPU without RAY_ADDRESS in the environment: it must be "
            "a cluster's address (`ray start --head` starts one and prints it), or auto for one on this machine"
        )
    config.parallel_config.distributed_executor_backend = RayCPUExecutor
