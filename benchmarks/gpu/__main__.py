"""The engine on a GPU: does it give the right answers there, and what does it cost.

    python benchmarks/gpu check                      # some two minutes
    python benchmarks/gpu figures                    # LLaDA-8B's shape, random weights; some five minutes
    python benchmarks/gpu check --quick              # without a GPU, to try the script: some minutes
    python benchmarks/gpu figures --shape tiny --canvas 64 --prompt 32 --response 32 --levels 1,2 --budget 1

Each group of parts runs in a process of its own, so that an error on the device ends no other's; parts that follow
a failed one are tried again in a fresh process. Exit status 1 if a part failed. report.json and report.md
under --out have what there is after every group, log-*.txt beside them the processes' own output.

check (on a GPU the groups run at the same time):
    kernels             the Triton kernels beside their references
    float32-MODEL       golden cases, 16 at a time and alone, and likelihoods, with TRITON_ATTN and full float32
    bfloat16-MODEL      the same cases in bfloat16, with the backend that vLLM chooses
    synchronisations    where a step makes the host wait for the device, for every policy
    serve               golden cases and a chat that streams, asked of `vllm serve`
    overlap             the same answers with `dllm_overlap` on as off
    sleep               on a GPU: the same answers after sleep of both levels

figures (one group after the other):
    plain               this device's memory bandwidth and matrix rate; the authors' loop, one full canvas a pass
    engine              a partial pass of 32 positions and a full pass; where a step's time goes; every policy
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path += [str(HERE.parent), str(ROOT / "checkpoints")]
sys.path += [str(ROOT / "tests" / part) for part in ("", "golden", "causal")]

import check  # noqa: E402
import figures  # noqa: E402
import report  # noqa: E402
from parts import Parts, say  # noqa: E402

MODES = {"check": check, "figures": figures}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--out", type=Path, default=Path("gpu-report"), help="folder of the report")
    parser.add_argument("--seconds", type=float, default=3600, help="no part begins after so many")
    parser.add_argument("--only", type=_names, default=[], help="these parts alone: group/part, with commas")
    parser.add_argument("--engine", type=json.loads, default={}, help="more arguments of vllm.LLM, JSON")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)  # group and parts: what a process is started with
    for module in MODES.values():
        module.add_arguments(parser)
    return parser.parse_args()


def _names(text: str) -> list[str]:
    return text.split(",")


def main() -> None:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    mode = MODES[args.mode]
    if args.child:
        group, *names = args.child
        Parts(args.out, group, names).run(lambda parts: mode.run(group, args, parts))
        return
    shutil.rmtree(args.out / "parts", ignore_errors=True)
    wanted = {}
    for group, names in mode.groups(args).items():
        if names := [n for n in names if not args.only or f"{group}/{n}" in args.only or group in args.only]:
            wanted[group] = names
    deadline = time.monotonic() + args.seconds
    with ThreadPoolExecutor(len(wanted) if mode.PARALLEL else 1) as pool:
        list(pool.map(lambda group: run_group(group, wanted, args, deadline), wanted))
    found = report.collect(args.out, args.mode, wanted)
    print(report.markdown(found))
    sys.exit(any(report.failure(part) for parts in found["groups"].values() for part in parts.values()))


def run_group(group: str, wanted: dict[str, list[str]], args: argparse.Namespace, deadline: float) -> None:
    """All parts of a group; in another process from the part on that follows a failed one."""
    left = list(wanted[group])
    while left:
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            say(f"{group}: no time for {', '.join(left)}")
            return
        command = [sys.executable, "-u", str(HERE), *sys.argv[1:], "--child", group, *left]
        environment = os.environ | {"VLLM_LOGGING_STREAM": "ext://sys.stderr"} | MODES[args.mode].environment(group)
        with open(args.out / f"log-{group}.txt", "ab") as log:
            process = subprocess.Popen(command, stderr=log, env=environment, start_new_session=True)
            try:
                status = process.wait(seconds)
            except subprocess.TimeoutExpired:
                say(f"{group}: out of time")
                os.killpg(process.pid, signal.SIGKILL)  # the engine's processes too
                status = process.wait()
        done = [n for n in left if report.read_part(args.out, group, n)]
        if len(done) < len(left) and not status:
            raise RuntimeError(f"{group} ended well without {left[len(done)]}")
        if status and not done:  # died without a word, or could not start
            report.write_part(args.out, group, left[0], {"error": f"exit status {status}, see log-{group}.txt"})
            say(f"{group}/{left[0]}: exit status {status}\n{_tail(args.out / f'log-{group}.txt')}")
            done = left[:1]
        left = left[len(done) :]
        report.collect(args.out, args.mode, wanted)


def _tail(path: Path) -> str:
    return "".join(path.read_text(errors="replace").splitlines(keepends=True)[-15:])


if __name__ == "__main__":
    main()
