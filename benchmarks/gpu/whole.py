"""What shows only in a whole engine: that it sleeps and wakes, that it answers over HTTP, two steps in flight."""

import argparse
import random
import time
from contextlib import closing
from itertools import pairwise

import torch
from parts import Parts, say

MODEL = "tiny-llada"
FEW = 24  # golden cases that each part asks, of every policy


def arguments_for(dtype: str) -> dict:
    """Of an engine that shares the device with others."""
    found: dict = {"dtype": dtype}
    if torch.cuda.is_available():
        found["gpu_memory_utilization"] = 0.1
        if dtype == "float32":
            found["attention_backend"] = "TRITON_ATTN"
    return found


def some_cases(few: int) -> list:
    """Golden cases of every policy, the same ones each time."""
    from golden_cases import cases

    by_policy: dict[str, list] = {}
    every = cases(MODEL)
    random.Random(1).shuffle(every)
    for case in every:
        by_policy.setdefault(case.settings["dllm_cache"], []).append(case)
    each = max(1, few // len(by_policy))
    return [case for found in by_policy.values() for case in found[:each]]


def run(group: str, args: argparse.Namespace, parts: Parts) -> None:
    few = 6 if args.quick else FEW
    if group == "sleep":
        parts("levels", lambda: sleep(args, few))
    elif group == "serve":
        parts("http", lambda: serve(args, few))
    elif group == "overlap":
        parts("by-turns", lambda: overlap(args, few))


def answers(engine, batch: list) -> list[list[int]]:
    found = engine.generate([case.prompt for case in batch], [case.params for case in batch])
    return [list(output.outputs[0].token_ids) for output in found]


def differing(names: list[str], found: list[list[list[int]]], batch: list) -> list[str]:
    """Where an answer is not what it was the time before."""
    return [
        f"{case.file} case {case.index}, {case.settings}: {name} gives another answer"
        for name, (before, after) in zip(names, pairwise(found), strict=True)
        for case, a, b in zip(batch, before, after, strict=True)
        if a != b
    ]


def sleep(args: argparse.Namespace, few: int) -> dict:
    """The same answers after a sleep of level 1, and after one of level 2, which forgets the weights."""
    from common import Engine

    batch = some_cases(few)
    arguments = arguments_for("bfloat16") | {"additional_config": {"dllm_hidden_cache": True}} | args.engine
    with closing(Engine(MODEL, args.out / "trace-sleep.jsonl", enable_sleep_mode=True, **arguments)) as engine:
        llm, found, freed, seconds = engine.llm, [answers(engine, batch)], {}, {}
        for level in (1, 2):
            free, begin = torch.cuda.mem_get_info()[0], time.perf_counter()
            llm.sleep(level=level)
            freed[f"level {level}, GiB"] = (torch.cuda.mem_get_info()[0] - free) / 2**30
            if level == 1:
                llm.wake_up()
            else:
                llm.wake_up(tags=["weights"])
                llm.collective_rpc("reload_weights")
                llm.wake_up(tags=["kv_cache"])
            seconds[f"level {level}, s"] = time.perf_counter() - begin
            found.append(answers(engine, batch))
    wrong = differing(["level 1", "level 2"], found, batch)
    return {"cases": len(batch), "freed": freed, "took": seconds, "differing": wrong, "ok": not wrong}


def serve(args: argparse.Namespace, few: int) -> dict:
    """Golden cases asked of `vllm serve` in float32, all at once; a chat that streams; a likelihood."""
    from concurrent.futures import ThreadPoolExecutor

    import server_process
    from served import ANSWER, MESSAGES

    begin = time.perf_counter()
    more = {k: v for k, v in arguments_for("float32").items() if k != "dtype"} | {"dllm_hidden_cache": "true"}
    server = server_process.start(args.out.resolve(), MODEL, **more)
    try:
        server_process.wait_until_healthy(server)
        started = time.perf_counter() - begin
        say("serve: it is healthy")
        batch = [case for case in some_cases(few) if "images" not in case.case]
        with ThreadPoolExecutor(16) as pool:
            asked = list(pool.map(lambda case: case.difference(*case.ask(server)), batch))
        wrong = [d for d in asked if d is not None and "token " in d]
        with server.client() as client:
            pieces = client.chat.completions.create(model=server.model, messages=MESSAGES, stream=True)
            text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
        if text.strip() != ANSWER:
            wrong.append(f"the chat gives {text!r}")
    except BaseException:
        say(server.log_tail(25))
        raise
    finally:
        server_process.stop(server)
    return {"cases": len(batch), "healthy after, s": started, "differing": wrong, "ok": not wrong}


def overlap(args: argparse.Namespace, few: int) -> dict:
    """Two sets of requests in flight by turns, and all together: the same answers in float32."""
    from common import Engine

    batch, found = some_cases(few), []
    for choice in ("off", "on"):
        ours: dict = {"additional_config": {"dllm_hidden_cache": True, "dllm_overlap": choice}}
        if not torch.cuda.is_available():
            ours["distributed_executor_backend"] = "mp"  # the one that comes back before a step is computed
        trace = args.out / f"trace-overlap-{choice}.jsonl"
        with closing(Engine(MODEL, trace, **(arguments_for("float32") | ours | args.engine))) as engine:
            found.append(answers(engine, batch))
    wrong = differing(["dllm_overlap=on"], found, batch)
    return {"cases": len(batch), "differing": wrong, "ok": not wrong}
