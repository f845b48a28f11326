"""A user's script: it generates for a while, and then fails.

python owner.py RANKS STEPS
"""

import sys

from common import CHECKPOINTS, ENGINE
from vllm import LLM, SamplingParams


def main(ranks: int, steps: int) -> None:
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
    main(int(sys.argv[1]), int(sys.argv[2]))
