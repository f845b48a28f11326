"""Whether the engine answers on this device as the authors' code did on a CPU."""

import argparse
import os
import random
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from contextlib import closing
from pathlib import Path

import torch
import whole
from parts import Parts, say

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("tiny-llada", "tiny-dream", "tiny-llada-moe", "tiny-llada-v")
BY_BLOCKS = {"tiny-sdar": "sdar", "tiny-llada2": "llada2"}  # attention causal by blocks; the golden files' sources
LIKELIHOODS = ("tiny-llada", "tiny-dream")  # which have golden files of them
CUDA = torch.cuda.is_available()
PARALLEL = CUDA  # the groups share the device, for nothing is timed
# what the tests run in Triton's interpreter: attention maps, read-out, RoPE
KERNELS = {
    "attention": ROOT / "tests" / "attention_maps" / "interpreted.py",
    "readout": ROOT / "tests" / "kernels" / "interpreted_readout.py",
    "rope": ROOT / "tests" / "kernels" / "interpreted_rope.py",
}
STEPS = 12  # of each policy whose synchronisations are counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="check: few cases")
    parser.add_argument("--case-seconds", type=float, default=40, help="check: golden cases, so long for each part")


def groups(args: argparse.Namespace) -> dict[str, list[str]]:
    golden = {f"{dtype}-{model}": ["together", "alone"] for dtype in ("float32", "bfloat16") for model in MODELS}
    for model in LIKELIHOODS:
        golden[f"float32-{model}"].append("likelihoods")
    golden |= {f"float32-{model}": ["by-blocks"] for model in BY_BLOCKS}
    ours = {"serve": ["http"], "overlap": ["by-turns"]} | ({"sleep": ["levels"]} if CUDA else {})
    return {"kernels": list(KERNELS), **golden, "synchronisations": ["where"], **ours}


def environment(group: str) -> dict[str, str]:
    """What a group's process is started with."""
    if group == "synchronisations":
        return {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    if group == "kernels":
        return {} if CUDA else {"TRITON_INTERPRET": "1"}
    # this process has asked for CUDA, so that the engine's may not be forked from it
    found = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    if group.startswith("float32") or group in ("serve", "overlap"):
        found["TRITON_F32_DEFAULT"] = "ieee"  # else Triton multiplies float32 in TF32
    return found


def run(group: str, args: argparse.Namespace, parts: Parts) -> None:
    if group == "kernels":
        for name in KERNELS:
            parts(name, lambda name=name: kernels(name))
    elif group == "synchronisations":
        synchronisations(args, parts)
    elif group in ("sleep", "serve", "overlap"):
        whole.run(group, args, parts)
    else:
        golden(*group.split("-", 1), args, parts)


def kernels(file: str) -> dict:
    """The tests of a kernel, on the device if there is one."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", str(KERNELS[file])]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout[-1500:])
    return {"pytest": done.stdout.strip().splitlines()[-1]}


def golden(dtype: str, model: str, args: argparse.Namespace, parts: Parts) -> None:
    from common import Engine
    from golden_cases import cases

    arguments: dict = {"dtype": dtype} | args.engine
    if CUDA:
        arguments["gpu_memory_utilization"] = 0.1  # several engines share the device
        if dtype == "float32":
            arguments["attention_backend"] = "TRITON_ATTN"
    if model in BY_BLOCKS:
        with closing(Engine(model, args.out / f"trace-{dtype}-{model}.jsonl", **arguments)) as engine:
            parts("by-blocks", lambda: by_blocks(engine, model, few=6 if args.quick else None))
        return
    if model in LIKELIHOODS:
        arguments["additional_config"] = {"dllm_hidden_cache": True}
    every = cases(model)
    random.Random(0).shuffle(every)
    every = every[:6] if args.quick else every
    with closing(Engine(model, args.out / f"trace-{dtype}-{model}.jsonl", **arguments)) as engine:
        say(f"{dtype}-{model}: the engine is there")
        parts("together", lambda: compare(engine, every, 16, args.case_seconds, exact=dtype == "float32"))
        parts("alone", lambda: compare(engine, every, 1, args.case_seconds, exact=dtype == "float32"))
        parts("likelihoods", lambda: likelihoods(engine, model, few=2 if args.quick else 8))


def compare(engine, every: list, at_once: int, seconds: float, exact: bool) -> dict:
    """As many of the cases as there is time for, so many at once: how many have the file's answer, and how many are
    equal in all that the file shows of the passes, too.

    `exact`: another answer is an error of the part. Passes may differ where the answer does not: positions that are
    equally sure but for the last bit are unmasked in another order. The first differences are named.
    """
    begin, policies, differing, wrong = time.perf_counter(), {}, [], 0
    for start in range(0, len(every), at_once):
        if time.perf_counter() - begin > seconds:
            break
        batch = every[start : start + at_once]
        answers = engine.run([c.prompt for c in batch], [c.params for c in batch])
        for case, (output, trace) in zip(batch, answers, strict=True):
            different = case.difference(output.outputs[0].token_ids, trace)
            other = different is not None and "token " in different
            counts = policies.setdefault(case.settings["dllm_cache"], {"cases": 0, "answers": 0, "equal": 0})
            counts["cases"] += 1
            counts["answers"] += not other
            counts["equal"] += different is None
            wrong += other
            if different is not None:
                differing.append(different[:400])
    differing.sort(key=lambda text: "token " not in text)  # other answers first
    if exact:
        say(f"{wrong} of {sum(c['cases'] for c in policies.values())} answers differ, {len(differing)} with the passes")
    return {"policies": policies, "differing": differing[:60], "ok": not exact or not wrong}


def by_blocks(engine, model: str, few: int | None) -> dict:
    """The golden cases of a model whose attention is causal by blocks, 16 at a time."""
    from causal_cases import differences
    from common import golden as golden_file

    cases = golden_file(model, BY_BLOCKS[model])[:few]
    differing = differences(engine, cases)
    wrong = [difference for difference in differing if "answer token" in difference]
    say(f"{len(wrong)} of {len(cases)} answers differ, {len(differing) - len(wrong)} in their passes")
    return {"cases": len(cases), "differing": wrong + [d for d in differing if d not in wrong], "ok": not wrong}


def likelihoods(engine, model: str, few: int) -> dict:
    """Some golden likelihoods by both estimators, all at once."""
    from common import golden as golden_file
    from likelihood_cases import together

    found = together(engine, golden_file(model, "likelihood")[:few], [], 0)
    differing = [difference for difference in found if difference is not None]
    return {"cases": len(found), "differing": differing, "ok": not differing}


def synchronisations(args: argparse.Namespace, parts: Parts) -> None:
    """Where the host waits for the device, as PyTorch reports it, in steps of four requests."""
    from offline import start, stop, submit

    from vllm_dllm.compare.variants import fixed_steps

    engine = start(ROOT / "checkpoints" / "tiny-llada", args.engine, dtype="auto", max_num_seqs=4, max_model_len=256)
    say("synchronisations: the engine is there")

    def where() -> dict:
        found = {}
        for variant in fixed_steps(tokens=2):
            found[variant.name] = count(variant.settings)
        return {"policies": found}

    def count(settings: dict) -> dict:
        ids = submit(engine, [[5 + i] * 24 for i in range(4)], 64, settings)
        for _ in range(4):  # a full pass, partial ones; kernels are compiled
            engine.step()
        places: Counter = Counter()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *_: places.update([place()] if "synchroniz" in str(message) else [])
            if CUDA:
                torch.cuda.set_sync_debug_mode("warn")
            for _ in range(STEPS):
                engine.step()
            if CUDA:
                torch.cuda.set_sync_debug_mode("default")
        stop(engine, ids)
        return {"a_step": {p: n / STEPS for p, n in places.most_common()}}

    parts("where", where)


def place() -> str:
    """The innermost line of ours on the stack, and of vLLM's if that is further in."""
    frames = [
        f for f in traceback.extract_stack() if "vllm" in f.filename and os.sep + "gpu" + os.sep not in f.filename
    ]
    ours = [f for f in frames if "vllm_dllm" in f.filename]
    shown = [ours[-1]] if ours else []
    if frames and frames[-1] not in shown:
        shown.append(frames[-1])
    return " > ".join(f"{'/'.join(Path(f.filename).parts[-2:])}:{f.lineno} `{f.line}`" for f in shown) or "elsewhere"
