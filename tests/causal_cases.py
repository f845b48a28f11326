"""Golden cases of models whose attention is causal by blocks, as requests, and what an answer has to be.

An answer is asked for with its overflow, the tokens behind `gen_length` that the source decodes with the last block. Where
the source stops at an end token, it finishes that block first; the engine ends the request, with the same tokens up to there.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import golden_cases
import tasks
import train
from common import EOS, Engine
from golden_cases import Case
from vllm import SamplingParams


@dataclass
class BlockCase(Case):
    own: dict = field(default_factory=dict)  # settings in place of the case's
    compare_passes: bool = True  # what they compute, where the request's cache is the source's

    @property
    def settings(self) -> dict:
        return super().settings | self.own

    @property
    def ends_at_eos(self) -> bool:
        return bool(self.case.get("stop")) or self.case["source"] == "llada2"

    @property
    def max_tokens(self) -> int:
        return self.case["gen_length"] + len(self.case.get("overflow_ids", []))

    @property
    def params(self) -> SamplingParams:
        found = super().params
        found.skip_reading_prefix_cache = True  # else it might find what an earlier case left
        return found

    def pairs(self, tokens: list[int], trace: dict) -> Iterator[tuple[str, list, list]]:
        want = [*self.case["output_ids"], *self.case.get("overflow_ids", [])]
        yield "answer token", want[: want.index(EOS) + 1] if self.ends_at_eos and EOS in want else want, tokens
        unmasked = self._shown([sorted(part) for part in trace["unmasked"] if part])
        passes = [sorted(part) for part in self.case["unmasked"]]
        # the engine ends when the answer is there; in the last block the source goes on behind it
        behind = [part for part in passes[len(unmasked) :] if any(p < len(tokens) for p in part)]
        yield "unmasked of pass", passes[: len(unmasked)] + behind, unmasked
        if self.compare_passes and trace["cache"] == {"sdar": "block", "llada2": "none"}[self.case["source"]]:
            queries = trace["query_tokens"]
            counts = self.case["query_tokens"]
            yield "query_tokens of pass", counts[: len(queries)] if self.ends_at_eos else counts, queries

    def _shown(self, unmasked: list[list[int]]) -> list[list[int]]:
        """As the files show passes: LLaDA2's last one by what of it is in the output."""
        if self.case["source"] != "llada2" or len(unmasked) < self.case["passes"]:
            return unmasked
        last = [position for position in unmasked[-1] if position < len(self.case["output_ids"])]
        return [*unmasked[:-1], last] if last else unmasked[:-1]


def differences(engine: Engine, cases: list[dict], compare_passes: bool = True, **own: Any) -> list[str]:
    """What is not as the files say, all of them in the engine at once."""
    batch = [BlockCase(case["source"], i, case, own, compare_passes) for i, case in enumerate(cases)]
    return [found for found in golden_cases.differences(engine, batch) if found is not None]


def prompts(count: int, seed: int) -> list[list[int]]:
    """Token ids of so many questions, of all lengths modulo a block's."""
    rng = random.Random(seed)
    return [train.encode(tasks.sample(rng)[0], "")[0] for _ in range(count)]


def asked(max_tokens: int | None, **arguments: Any) -> SamplingParams:
    """Greedy, to its whole length, unless told otherwise; keywords that begin with `dllm_` are settings."""
    own = {key: arguments.pop(key) for key in list(arguments) if key.startswith("dllm_")}
    return SamplingParams(
        **({"temperature": 0.0, "ignore_eos": True} | arguments), max_tokens=max_tokens, extra_args=own
    )


def as_prompts(ids: list[list[int]]) -> list[dict]:
    return [{"prompt_token_ids": one} for one in ids]
