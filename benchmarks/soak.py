"""A soak: many requests of every policy and kind, mixed at random, a fifth of them aborted at random moments.

    python benchmarks/soak.py [--requests 2000] [--in-flight 32] [--seed 0]
    python benchmarks/soak.py --model checkpoints/tiny-llada-v --requests 500    # half of them with an image

At the end every KV block must be free, no request left, every surviving answer equal to the same request's answer
alone, and the memory of the engine's processes is printed as it went. Exits with 1 if something is wrong.
"""

import argparse
import random
import sys
import time
from pathlib import Path

import psutil
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "checkpoints"))


def pool(rng: random.Random, size: int, images: bool) -> list[tuple[dict, dict]]:
    """`size` different requests: a prompt, half of them with an image where the model has `images`, and the arguments of
    its SamplingParams."""
    import tasks

    from vllm_dllm.caching.registry import FULL

    kinds = [{"dllm_cache": name} | policy.example for name, policy in FULL.items()]
    kinds += [{"dllm_cache": "entropy", "dllm_scope": "page"}, {"dllm_cache": "entropy", "dllm_window_length": 24}]
    several = {"dllm_entropy_threshold": 0.5, "dllm_block_add_threshold": 0.1, "dllm_early_stop": True}
    kinds += [{"dllm_cache": name} | several for name in ("none", "dual", "entropy", "d3")]
    made = []
    for i in range(size):
        settings = dict(kinds[i % len(kinds)])
        if "dllm_window_length" not in settings and FULL[settings["dllm_cache"]].window_length is None:
            settings["dllm_block_length"] = rng.choice((8, 16, 32, 64))
        prompt: dict = {"prompt": f"<|startoftext|><|user|>{tasks.sample(rng)[0]}<|assistant|>"}
        if images and rng.random() < 0.5:
            prompt = {"prompt": "<|startoftext|>look: <image>\nand say", "multi_modal_data": {"image": picture(rng)}}
        params = {
            "max_tokens": rng.randint(1, 128),
            "temperature": rng.choice((0, 0, 0.7)),
            "seed": rng.randint(0, 99),
            "ignore_eos": rng.random() < 0.3,
            "extra_args": settings,
        }
        if rng.random() < 0.6:
            settings["dllm_horizon"] = rng.choice((0, 8, 32))
        if rng.random() < 0.2:
            settings["dllm_cfg_scale"] = rng.choice((0.5, 1.5))
        rng.choice((give_text, hold_to_a_format, change_logits, lambda *_: None))(rng, params, settings)
        made.append((prompt, params))
    return made


def picture(rng: random.Random) -> Image.Image:
    """A grey one, of noise."""
    size = rng.randint(2, 150), rng.randint(2, 150)
    return Image.frombytes("L", size, rng.randbytes(size[0] * size[1])).convert("RGB")


def give_text(rng: random.Random, params: dict, settings: dict) -> None:
    if rng.random() < 0.5:
        settings["dllm_suffix"] = rng.choice((" 19 23", [7] * 40))
    if rng.random() < 0.7:
        settings["dllm_template"] = ["3 7", rng.randint(1, 40), " 15", rng.randint(1, 40)]
        del params["max_tokens"]


def hold_to_a_format(rng: random.Random, params: dict, settings: dict) -> None:
    from vllm.sampling_params import StructuredOutputsParams

    words = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "yes"]}},
        "required": ["a", "b"],
    }
    asked = rng.choice(
        ({"regex": "[0-9]{1,3}( [0-9]{1,3}){1,6}"}, {"choice": ["yes", "no", "3 7 11"]}, {"json": words})
    )
    params["structured_outputs"] = StructuredOutputsParams(**asked)
    params["max_tokens"] += 32


def change_logits(rng: random.Random, params: dict, settings: dict) -> None:
    params["repetition_penalty"] = rng.choice((1.0, 1.3))
    params["frequency_penalty"] = rng.choice((0.0, 0.5))
    params["logit_bias"] = rng.choice((None, {25: 2.0, 30: -3.0}))
    params["bad_words"] = rng.choice(([], ["3 7", "abc"]))
    params["min_tokens"] = rng.choice((0, params["max_tokens"] // 2))
    params["min_p"] = rng.choice((0.0, 0.05))
    if settings["dllm_cache"] != "dkv-greedy":
        settings["dllm_defer_eos"] = rng.random() < 0.5
    settings["dllm_suppress_eos"] = rng.random() < 0.3


def memory(pids: list[int]) -> str:
    """Resident MiB of this process, the engine core and the worker."""
    return " + ".join(str(psutil.Process(pid).memory_info().rss >> 20) for pid in pids)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(ROOT / "checkpoints/tiny-llada"))
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--distinct", type=int, default=110)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    from vllm import LLM, SamplingParams

    rng = random.Random(args.seed)
    images = Path(args.model).name == "tiny-llada-v"
    llm = LLM(
        args.model,
        dtype="float32",
        max_model_len=1024 if images else 256,
        kv_cache_memory_bytes=1 << 27,
        max_num_seqs=args.in_flight,
        additional_config={"dllm_hidden_cache": True},
    )
    engine = llm.llm_engine
    pids = [psutil.Process().pid, *(p.pid for p in psutil.Process().children(recursive=True))]
    requests = pool(rng, args.distinct, images)

    def params(i: int) -> SamplingParams:
        return SamplingParams(**requests[i][1])

    alone = [llm.generate(p, params(i), use_tqdm=False)[0].outputs[0].token_ids for i, (p, _) in enumerate(requests)]

    began, steps, wrong, aborted, finished = time.monotonic(), 0, 0, 0, 0
    running: dict[str, int] = {}
    doomed: dict[str, int] = {}  # request id -> the step in which it is aborted
    started = 0
    while started < args.requests or running:
        while started < args.requests and len(running) < 2 * args.in_flight:
            name, which = f"soak-{started}", rng.randrange(len(requests))
            engine.add_request(name, requests[which][0], params(which))
            running[name] = which
            if rng.random() < 0.2:
                doomed[name] = steps + rng.randint(0, 12)
            started += 1
            if started % (args.requests // 8) == 0:
                print(f"{started} started, {memory(pids)} MiB", flush=True)
        for name in [n for n, step in doomed.items() if step <= steps]:
            del doomed[name]
            if running.pop(name, None) is not None:
                engine.abort_request([name])
                aborted += 1
        for output in engine.step():
            if output.finished and output.request_id in running:
                which = running.pop(output.request_id)
                doomed.pop(output.request_id, None)
                finished += 1
                if list(output.outputs[0].token_ids) != list(alone[which]):
                    wrong += 1
                    print("differs from its answer alone:", requests[which])
        steps += 1
    while engine.has_unfinished_requests():
        engine.step()
    left = engine.engine_core.call_utility("check_integrity")
    print(
        f"{finished} finished, {aborted} aborted, {wrong} differ, {left} left, {steps} steps, "
        f"{time.monotonic() - began:.0f} s, {memory(pids)} MiB"
    )
    return int(bool(wrong or left))


if __name__ == "__main__":
    sys.exit(main())
