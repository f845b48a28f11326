"""A batch job over several engines with Ray Data, which goes on where it was stopped.

    python examples/ray_batch.py --prompts questions.jsonl --output answers --replicas 4
    python examples/ray_batch.py --prompts questions.jsonl --output answers --replicas 2 --tensor-parallel-size 4

Each line of the prompts' file is an object with an `id` of its own and a `prompt`; other fields are kept. The answers
are JSON lines in files under --output, one file for each batch. Start the same command again after a crash or Ctrl-C:
batches that were written are not computed again (Ray Data's checkpoints, in --output too). With a Ray cluster running
(`ray start`, RAY_ADDRESS) the engines are spread over it, and the paths must be on storage that all its nodes share;
without one Ray starts on this machine.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import ray
from ray.data.checkpoint import CheckpointConfig

CHECKPOINT = Path(__file__).parent.parent / "checkpoints" / "tiny-llada"


class Engine:
    """One replica: an engine of its own, in a Ray actor."""

    def __init__(self, model: str, tensor_parallel_size: int, settings: dict[str, Any], max_tokens: int):
        # vLLM's CPU build takes half of the memory for its KV cache unless told a number of GiB,
        # and binds its threads to cores, the same ones for each replica
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        from vllm import LLM

        self.llm = LLM(
            model,
            tensor_parallel_size=tensor_parallel_size,
            distributed_executor_backend="mp",  # the replica's GPUs are on one node
            additional_config=settings,
        )
        self.params = self.llm.get_default_sampling_params()  # greedy; a bare SamplingParams() has temperature 1
        self.params.max_tokens = max_tokens

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        chats = [[{"role": "user", "content": prompt}] for prompt in batch["prompt"]]
        answers = [request.outputs[0] for request in self.llm.chat(chats, self.params, use_tqdm=False)]
        batch["answer"] = [answer.text for answer in answers]
        batch["finish_reason"] = [answer.finish_reason for answer in answers]
        return batch


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=Path, required=True, metavar="FILE", help="a .jsonl file")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--model", default=str(CHECKPOINT))
    parser.add_argument("--replicas", type=int, default=1, help="engines")
    parser.add_argument("--tensor-parallel-size", type=int, default=1, help="GPUs of an engine")
    parser.add_argument("--batch", type=int, default=256, help="prompts that an engine takes at a time")
    parser.add_argument("--max-tokens", type=int, default=96, help="length of every response's canvas")
    parser.add_argument("--settings", type=json.loads, default={}, metavar="JSON", help="any dllm_* settings")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    ray.init(log_to_driver=False)
    output = args.output.resolve()
    ray.data.DataContext.get_current().checkpoint_config = CheckpointConfig(
        id_column="id", checkpoint_path=str(output / "checkpoint"), delete_checkpoint_on_success=False
    )
    prompts = ray.data.read_json(str(args.prompts.resolve()))
    answers = prompts.repartition(target_num_rows_per_block=args.batch).map_batches(
        Engine,
        fn_constructor_args=(args.model, args.tensor_parallel_size, args.settings, args.max_tokens),
        batch_size=args.batch,
        compute=ray.data.ActorPoolStrategy(size=args.replicas),
        num_cpus=0,  # an engine that holds a CPU can leave Ray none for reading and writing: it would wait for ever
        num_gpus=args.tensor_parallel_size if ray.cluster_resources().get("GPU") else 0,
    )
    answers.write_json(str(output / "answers"))


if __name__ == "__main__":  # vLLM starts processes that import this file again
    main()
