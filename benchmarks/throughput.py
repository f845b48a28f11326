"""Throughput of the engine beside a plain loop, on the same weights, requests and settings, in one run.

    python benchmarks/throughput.py --model checkpoints/tiny-llada
    python benchmarks/throughput.py --random 200M --steps-per-block 1 --requests 4
    python benchmarks/throughput.py --model checkpoints/tiny-llada --cache none,dual --tensor-parallel-size 2

Requests of mixed prompt and response lengths run at each concurrency: so many are in flight at any
time. The plain loop (plain_loop.py) runs the first --requests of them one after the other. Every round
measures all of it; a row shows its fastest round. Prints a Markdown table:

    tokens/s    response tokens per second
    of none     tokens/s against the cache `none` at the same concurrency, where that is measured
    ms/pass     wall time divided by passes; a step holds one pass of every request in flight
    ms/step     wall time divided by steps
    outside     share of a step spent outside the model's forward (layers and output head); in brackets
                the part of it in the worker, the rest being scheduler, front end and messages
    equal       answers equal to the plain loop's, of those it ran; those of a caching policy may differ

`dkv-greedy` unmasks in a random order, as it must, and two tokens a pass where the threshold decides for the others.

With --tensor-parallel-size, a second table says what a rank puts into the collective operations of a pass:

    layers      in each layer, the all-reduces of the query tokens' hidden states (two in most passes)
    embedding   the all-reduce of the query tokens' embeddings
    logits      the gather of the logits of the rows that are read
    other       sums over heads, where a policy looks into the attention
    canvas      positions that are attended to: what is sent does not depend on them (checked, and said below)
"""

import argparse
import json
import platform
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from communication import compare_canvases
from plain_loop import PlainLLaDA, PlainLoop, default_device
from random_model import CACHE, random_model
from vllm import LLM, SamplingParams

from vllm_dllm.caching.registry import POLICIES
from vllm_dllm.compare.answers import answer
from vllm_dllm.compare.random_weights import parameter_count
from vllm_dllm.compare.variants import complete

ROOT = Path(__file__).parent.parent
IDLE = 1.5  # seconds until vLLM's processes stop polling, so that the plain loop has all cores


@dataclass
class Request:
    prompt_ids: list[int]
    gen_length: int
    steps: int | None  # None: the threshold decides


@dataclass
class Row:
    """One line of the table. Times in seconds, over all its requests."""

    name: str
    concurrency: int
    tokens: int
    wall: float
    forward: float
    worker: float  # 0 for the plain loop
    steps: int
    passes: int
    answers: list[list[int]] = field(repr=False)
    sent: dict[str, int] = field(default_factory=dict)  # sums of what communication.py counts in a step
    equal: int = 0
    compared: int = 0

    @property
    def rate(self) -> float:
        return self.tokens / self.wall

    @property
    def outside(self) -> float:
        return 1 - self.forward / self.wall


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", type=Path, help="folder of a LLaDA checkpoint")
    model.add_argument(
        "--random", type=parameter_count, metavar="SIZE", help="random weights, so many parameters: 200M"
    )
    parser.add_argument("--random-cache", type=Path, default=CACHE, help="where they are kept")
    parser.add_argument("--cache", type=policies, default=["none"], help="caching policies, with commas")
    parser.add_argument("--concurrency", default="1,4,16", help="requests in flight, with commas")
    parser.add_argument("--requests", type=int, default=32, help="requests at each concurrency, at least that many")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--block-length", type=int, default=32)
    rule = parser.add_mutually_exclusive_group()
    rule.add_argument("--threshold", type=float, default=0.9)
    rule.add_argument("--steps-per-block", type=int, help="fixed steps instead of the threshold")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--compile", action="store_true", help="the engine's layers with torch.compile")
    parser.add_argument("--tensor-parallel-size", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="of the plain loop; 0: PyTorch's choice")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    return parser.parse_args()


def policies(text: str) -> list[str]:
    for name in text.split(","):
        if name not in POLICIES:
            raise argparse.ArgumentTypeError(f"{name} is no caching policy; there are {', '.join(POLICIES)}")
    return text.split(",")


def make_requests(args: argparse.Namespace, folder: Path, number: int) -> list[Request]:
    """The same ones for the same arguments. Canvases of 512 for random weights, short chats otherwise."""
    rng = random.Random(0)
    requests = []
    for i in range(number):
        blocks = 1 + i % 4
        gen_length = blocks * 32
        prompt = _random_prompt(rng, 512 - gen_length) if args.random else _task_prompt(rng, folder)
        steps = args.steps_per_block and args.steps_per_block * -(-gen_length // args.block_length)
        requests.append(Request(prompt, gen_length, steps))
    return requests


def _random_prompt(rng: random.Random, length: int) -> list[int]:
    return [rng.randrange(16000) for _ in range(length)]


def _task_prompt(rng: random.Random, folder: Path) -> list[int]:
    sys.path.insert(0, str(ROOT / "checkpoints"))
    import tasks
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": tasks.sample(rng)[0]}]
    return tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)


def run_plain(loop: PlainLoop, requests: list[Request]) -> Row:
    loop.passes, loop.forward = 0, 0.0
    begin = time.perf_counter()
    answers = [loop.generate(r.prompt_ids, r.gen_length, r.steps) for r in requests]
    wall = time.perf_counter() - begin
    tokens = sum(r.gen_length for r in requests)
    return Row("plain loop", 1, tokens, wall, loop.forward, 0.0, loop.passes, loop.passes, answers)


def run_engine(llm: LLM, args: argparse.Namespace, cache: str, concurrency: int, requests: list[Request]) -> Row:
    """Keeps `concurrency` requests in flight until all have been answered."""
    asked = [({"prompt_token_ids": r.prompt_ids}, params_of(args, cache, r)) for r in requests]
    llm.collective_rpc("start_forward_timer")
    if args.tensor_parallel_size > 1:
        llm.collective_rpc("start_communication_counter")
    found = answer(llm, asked, concurrency)
    assert found is not None
    outputs, wall = found
    answers = [list(output.outputs[0].token_ids) for output in outputs]
    measured = llm.collective_rpc("read_forward_timer")[0]
    row = Row(cache, concurrency, sum(map(len, answers)), wall, answers=answers, **measured)
    if args.tensor_parallel_size > 1:
        steps = llm.collective_rpc("read_communication_counter")[0]
        row.sent = {key: sum(step[key] for step in steps) for key in steps[0]}
    return row


def params_of(args: argparse.Namespace, cache: str, request: Request) -> SamplingParams:
    rule: dict[str, Any]
    if request.steps is None:
        rule = {} if POLICIES[cache].looks_ahead else {"dllm_threshold": args.threshold}
    elif POLICIES[cache].window_length:  # no blocks to divide steps over: as many tokens in each
        rule = {"dllm_tokens_per_step": -(-request.gen_length // request.steps)}
    else:
        rule = {"dllm_steps": request.steps}
    settings = complete(cache, {"dllm_cache": cache} | rule).settings
    return SamplingParams(
        temperature=0, max_tokens=request.gen_length, ignore_eos=True, detokenize=False, extra_args=settings
    )


def make_engine(args: argparse.Namespace, folder: Path, requests: list[Request], levels: list[int]) -> LLM:
    # the longest steps: all canvases at once
    budget = max(levels) * max(len(r.prompt_ids) + r.gen_length for r in requests)
    server: dict[str, Any] = {"dllm_block_length": args.block_length}
    if any(POLICIES[c].needs_hidden() for c in args.cache):
        server["dllm_hidden_cache"] = True
    return LLM(
        str(folder),
        dtype=args.dtype,
        tensor_parallel_size=args.tensor_parallel_size,
        compilation_config={"mode": "VLLM_COMPILE"} if args.compile else None,
        skip_tokenizer_init=bool(args.random),  # random weights come without a tokenizer
        max_model_len=512,
        max_num_seqs=max(levels),
        max_num_batched_tokens=max(budget, 512),
        kv_cache_memory_bytes=1 << 30,
        additional_config=server,
        worker_extension_cls="forward_timer.Measurements",
    )


def measure(
    args: argparse.Namespace, llm: LLM, loop: PlainLoop, requests: list[Request], levels: list[int]
) -> list[Row]:
    """The fastest round of each row."""
    rows: dict[tuple[str, int], Row] = {}
    for round_ in range(args.rounds + 1):  # the first warms up, on few requests
        time.sleep(IDLE)
        found = [run_plain(loop, requests[: args.requests if round_ else 1])]
        for cache in args.cache:
            for level in levels:
                part = requests[: max(level, args.requests)] if round_ else requests[:1]
                found.append(run_engine(llm, args, cache, level, part))
        for row in found if round_ else []:
            pairs = list(zip(row.answers, found[0].answers, strict=False))
            row.equal, row.compared = sum(a == b for a, b in pairs), len(pairs)
            key = row.name, row.concurrency
            rows[key] = min(row, rows.get(key, row), key=lambda r: r.wall)
            print(f"round {round_}: {row}", file=sys.stderr, flush=True)
    return list(rows.values())


def table(rows: list[Row]) -> str:
    plain = rows[0]
    none = {r.concurrency: r.rate for r in rows if r.name == "none"}
    lines = [
        "| cache | concurrency | tokens/s | of plain | of none | ms/pass | ms/step | outside (worker) | equal |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in rows:
        in_worker = f" ({(r.worker - r.forward) / r.wall:.1%})" if r.worker else ""
        of_none = f"{r.rate / none[r.concurrency]:.2f}" if r is not plain and r.concurrency in none else ""
        lines.append(
            f"| {r.name} | {r.concurrency} | {r.rate:.1f} | {r.rate / plain.rate:.2f} | {of_none} "
            f"| {r.wall / r.passes * 1e3:.2f} | {r.wall / r.steps * 1e3:.2f} | {r.outside:.1%}{in_worker} "
            f"| {r.equal}/{r.compared} |"
        )
    return "\n".join(lines)


def communication_table(rows: list[Row], layers: int) -> str:
    lines = [
        "| cache | concurrency | query tokens/pass | canvas/pass | rows/pass | KiB/pass | KiB/layer and pass "
        "| bytes/layer and query token | embedding KiB/pass | logits KiB/pass | other KiB/pass |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in rows:
        if not r.sent:
            continue  # the plain loop
        kib = {key: r.sent[key] / r.passes / 1024 for key in ("layers", "embedding", "logits", "other")}
        lines.append(
            f"| {r.name} | {r.concurrency} | {r.sent['query_tokens'] / r.passes:.1f} "
            f"| {r.sent['canvas_tokens'] / r.passes:.1f} | {r.sent['rows'] / r.passes:.1f} | {sum(kib.values()):.1f} "
            f"| {kib['layers'] / layers:.1f} | {r.sent['layers'] / layers / r.sent['query_tokens']:.1f} "
            f"| {kib['embedding']:.1f} | {kib['logits']:.1f} | {kib['other']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    args = arguments()
    folder = random_model(args.random, args.random_cache) if args.random else args.model
    levels = [int(c) for c in args.concurrency.split(",")]
    requests = make_requests(args, folder, max(args.requests, *levels))
    llm = make_engine(args, folder, requests, levels)
    sent = compare_canvases(llm) if args.tensor_parallel_size > 1 else ""
    plain = PlainLLaDA.load(folder, getattr(torch, args.dtype), default_device())
    loop = PlainLoop(plain, args.block_length, args.threshold)
    if args.threads:
        torch.set_num_threads(args.threads)
    rows = measure(args, llm, loop, requests, levels)
    print(table(rows))
    if sent:
        layers = llm.llm_engine.model_config.hf_config.num_hidden_layers
        print(f"\n{communication_table(rows, layers)}\n\n{sent}")
    if args.json:
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
        numbers = [{k: v for k, v in asdict(row).items() if k != "answers"} for row in rows]
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
        report = {"device": device, "threads": torch.get_num_threads(), "arguments": settings, "rows": numbers}
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
