"""Users' scripts: each generates for a while, and then fails.

Each line of the standard input asks for one, RANKS STEPS LOG, and is answered with its process id, and at its end with
its exit status. A script is a fork of this process, which has imported vLLM and nothing else.
"""

import os
import sys

from common import CHECKPOINTS, ENGINE
from vllm import LLM, SamplingParams


def main() -> None:
    while line := sys.stdin.readline():
        ranks, steps, log = line.rstrip("\n").split(" ", 2)
        pid = os.fork()
        if pid == 0:
            become_a_script(log)
            return script(int(ranks), int(steps))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def become_a_script(log: str) -> None:
    """A session of its own, as of a terminal, and a file for its output."""
    os.setsid()
    with open(log, "wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)


def script(ranks: int, steps: int) -> None:
    llm = LLM(str(CHECKPOINTS / "tiny-llada"), tensor_parallel_size=ranks, **ENGINE)
    params = SamplingParams(temperature=0, max_tokens=448, ignore_eos=True, extra_args={"dllm_steps": 448})
    for number in range(64):
        llm.llm_engine.add_request(str(number), {"prompt_token_ids": [7] * 32}, params)
    for step in range(steps):
        llm.llm_engine.step()
        if step == 10:
            print("generating", flush=True)
    raise RuntimeError("the script fails")


if __name__ == "__main__":
    main()
