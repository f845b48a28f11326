"""What a pass costs on this device, beside what it could cost, and what every policy makes of it."""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from parts import Parts, say
from random_model import random_weights
from report import read_part

from vllm_dllm.compare.random_weights import SHAPES, Shape, config, randomise, write_config
from vllm_dllm.compare.variants import fixed_steps

PARALLEL = False
BLOCK = 32
WARM_UP = 5  # steps
LONGEST_GAP = 0.03  # ms between two kernels of a graph
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shape", choices=SHAPES, default="8B", help="figures: the model's")
    parser.add_argument("--canvas", type=int, default=512, help="figures: of the passes that are timed alone")
    parser.add_argument("--prompt", type=int, default=256, help="figures: tokens of the policies' requests")
    parser.add_argument("--response", type=int, default=512, help="figures: likewise")
    parser.add_argument("--tokens", type=int, default=4, help="figures: unmasked in every pass of a policy's request")
    parser.add_argument("--levels", default="1,8,64", help="figures: requests at once, with commas")
    parser.add_argument("--policies", help="figures: these alone, of those that the table names, with semicolons")
    parser.add_argument("--budget", type=float, default=5, help="figures: seconds for a policy at a level")


def levels(args: argparse.Namespace) -> list[int]:
    return [int(level) for level in args.levels.split(",")]


def groups(args: argparse.Namespace) -> dict[str, list[str]]:
    policies = [f"requests-{level}" for level in levels(args)]
    return {"plain": ["device", "loop"], "engine": ["passes", "profile", *policies]}


def environment(group: str) -> dict[str, str]:
    return {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


def run(group: str, args: argparse.Namespace, parts: Parts) -> None:
    if group == "plain":
        plain(args, parts)
    else:
        engine(args, parts)


# ---- without the engine ----


def plain(args: argparse.Namespace, parts: Parts) -> None:
    import device
    from plain_loop import PlainLLaDA, PlainLoop

    shape = SHAPES[args.shape]
    weights = random_weights(shape, DEVICE)
    say("plain: the weights are there")
    parts("device", lambda: device.measure(shape, weights, max(levels(args)) * args.canvas))
    model = PlainLLaDA(config(shape), weights)

    def loop() -> dict:
        """The authors' procedure, `tokens` a pass, so many blocks that it takes some seconds."""
        decoder = PlainLoop(model, BLOCK, None)
        prompt = [7 + i % 100 for i in range(args.prompt)]
        blocks = -(-args.response // BLOCK)
        decoder.generate(prompt, args.response, blocks)  # a pass for each block: warms up
        decoder.passes, begin = 0, time.perf_counter()
        decoder.generate(prompt, args.response, args.response // args.tokens)
        seconds = time.perf_counter() - begin
        return {"canvas": args.prompt + args.response, "passes": decoder.passes, "ms": seconds / decoder.passes * 1e3}

    parts("loop", loop)


# ---- the engine ----


def engine(args: argparse.Namespace, parts: Parts) -> None:
    import offline
    from stopwatch import Stopwatch

    shape, most = SHAPES[args.shape], max(levels(args))
    longest = max(args.canvas, args.prompt + args.response)
    slots = most * -(-longest // 128) * 128
    with tempfile.TemporaryDirectory() as folder:
        core = offline.start(
            write_config(shape, Path(folder)),
            args.engine,
            load_format="dummy",
            dtype="bfloat16",
            max_model_len=longest,
            max_num_seqs=most,
            max_num_batched_tokens=max(most * args.canvas, longest),
            # keys and values, and as many hidden states as either of them
            kv_cache_memory_bytes=int(1.1 * slots * shape.slot_numbers * 1.5 * 2) + (1 << 26),
            additional_config={"dllm_hidden_cache": True, "dllm_block_length": BLOCK},
        )
    core.model_executor.collective_rpc(lambda worker: randomise(worker.get_model()))
    say("engine: it is there")
    watch = Stopwatch(core)
    parts("passes", lambda: passes(args, shape, core, watch))
    parts("profile", lambda: profile(args, core))
    for level in levels(args):
        parts(f"requests-{level}", lambda level=level: requests(args, core, watch, level))


def passes(args: argparse.Namespace, shape: Shape, core, watch) -> dict:
    """Steps of `dual` on one block: the first is full, the others compute 32 positions of each request."""
    import device
    from offline import submit
    from stopwatch import TIMES

    found = read_part(args.out, "plain", "device")
    rows = []
    for level in levels(args):
        prompts = [[7 + i] * (args.canvas - BLOCK) for i in range(level)]
        full, partial = [], []
        for round_ in range(4):  # the first warms up
            submit(core, prompts, BLOCK, {"dllm_cache": "dual", "dllm_steps": BLOCK // 2})
            steps = watch.run()
            if round_:
                full.append(steps[0])
                partial += steps[1:]
        for name, steps, positions in (("full", full, args.canvas), (f"{BLOCK} positions", partial, BLOCK)):
            median = {key: statistics.median(s[key] for s in steps) * 1e3 for key in TIMES}
            row = {"pass": name, "requests": level, "ms": median.pop("wall")}
            row |= {f"{key}_ms": value for key, value in median.items()}
            if found:
                row["floor_ms"] = device.floor(shape, found, level, positions, args.canvas, BLOCK) * 1e3
            rows.append(row)
    return {"canvas": args.canvas, "rows": rows}


def profile(args: argparse.Namespace, core) -> dict:
    """Which kernels a step launches, and how long the device is busy with them."""
    from offline import stop, submit
    from torch.profiler import ProfilerActivity

    activities = [ProfilerActivity.CUDA] if DEVICE == "cuda" else [ProfilerActivity.CPU]
    rows, steps = [], 8
    for level in (1, max(levels(args))):
        prompts = [[7 + i] * (args.canvas - BLOCK) for i in range(level)]
        ids = submit(core, prompts, BLOCK, {"dllm_cache": "dual", "dllm_steps": BLOCK})
        for _ in range(3):
            core.step()
        with torch.profiler.profile(activities=activities) as profiler:
            for _ in range(steps):
                core.step()
        stop(core, ids)
        kernels: dict[str, list[float]] = {}
        spans = []
        for event in profiler.events():
            if DEVICE == "cpu" or event.device_type == torch.autograd.DeviceType.CUDA:
                time_ = event.self_device_time_total if DEVICE == "cuda" else event.self_cpu_time_total
                kernels.setdefault(event.name, []).append(time_ / 1e3)
                spans.append((event.time_range.start / 1e3, event.time_range.end / 1e3))
        between, idle = gaps(sorted(spans))
        most = sorted(kernels.items(), key=lambda item: -sum(item[1]))[:14]
        rows.append(
            {
                "pass": f"{BLOCK} positions",
                "requests": level,
                "launches": sum(map(len, kernels.values())) / steps,
                "device_ms": sum(map(sum, kernels.values())) / steps,
                "between_ms": between / steps,
                "idle_ms": idle / steps,
                "kernels": [{"name": n, "launches": len(t) / steps, "ms": sum(t) / steps} for n, t in most],
            }
        )
    return {"rows": rows}


def gaps(spans: list[tuple[float, float]]) -> tuple[float, float]:
    """Between kernels, whose times in ms are `spans` by their begin: what the device spends from one to the next, and what
    it waits for the host, which are gaps longer than it has within a graph."""
    between = idle = 0.0
    busy_until = spans[0][1]
    for begin, end in spans[1:]:
        gap = max(0.0, begin - busy_until)
        between, idle = (between, idle + gap) if gap > LONGEST_GAP else (between + gap, idle)
        busy_until = max(busy_until, end)
    return between, idle


def requests(args: argparse.Namespace, core, watch, level: int) -> dict:
    """Every policy: `level` requests at once until they are answered or `--budget` is over."""
    from offline import stop, submit

    prompts = [[7 + (i * 31 + j * 17) % 400 for j in range(args.prompt)] for i in range(level)]
    rows = []
    wanted = args.policies.split(";") if args.policies else [v.name for v in fixed_steps(args.tokens)]
    for variant in fixed_steps(args.tokens):
        if variant.name not in wanted:
            continue
        # warms up: kernels are compiled, graphs recorded, the allocator's blocks found
        ids = submit(core, prompts, args.response, variant.settings)
        watch.run(most=WARM_UP)
        stop(core, ids)
        ids = submit(core, prompts, args.response, variant.settings)
        steps = watch.run(seconds=args.budget)
        finished = not core.has_unfinished_requests()
        stop(core, ids)
        wall = sum(s["wall"] for s in steps)
        rows.append(
            {
                "policy": variant.name,
                "requests": level,
                "finished": finished,
                "rate": sum(s["passes"] for s in steps) * args.tokens / wall,
                "ms_step": wall / len(steps) * 1e3,
                "passes": sum(s["passes"] for s in steps),
                "positions_a_pass": sum(s["positions"] for s in steps) / sum(s["passes"] for s in steps),
                "host": 1 - sum(s["execute"] for s in steps) / wall,
            }
        )
        say(json.dumps(rows[-1]))
    return {"prompt": args.prompt, "response": args.response, "tokens_a_pass": args.tokens, "rows": rows}
