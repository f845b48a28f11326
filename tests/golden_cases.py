"""Golden cases as requests, and what an answer has to be."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from common import EOS, GOLDEN, Engine, golden
from PIL import Image
from quirks import layer_tokens, query_tokens
from sampling import Sampling
from served import Server
from settings import settings
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams

from vllm_dllm.caching.registry import POLICIES

END_OF_TURN = 106  # of tiny-llada-v, whose answers end there

# what a golden file shows of the passes, beside the tokens; the trace has the same keys
PASSES = ("query_tokens", "layer_tokens", "full", "unmasked")


@dataclass
class Case:
    file: str
    index: int
    case: dict

    @property
    def settings(self) -> dict:
        return settings(self.case)

    @property
    def xargs(self) -> dict:
        """The settings over HTTP: a list in a list as its JSON text."""
        keys = self.settings
        return keys | ({"dllm_template": json.dumps(keys["dllm_template"])} if "dllm_template" in keys else {})

    @property
    def prompt(self) -> dict:
        if self.case["source"] != "llada_v":
            return {"prompt_token_ids": self.case["prompt_ids"]}
        images = [Image.open(GOLDEN / "images" / name) for name in self.case["images"]]
        return {"prompt": self.case["prompt"]} | ({"multi_modal_data": {"image": images}} if images else {})

    @property
    def ends_at_eos(self) -> bool:
        return self.case["source"] == "elastic" or any(self.case.get(key) for key in ("stop", "early_stop"))

    @property
    def max_tokens(self) -> int:
        return self.case["gen_length"] if "gen_length" in self.case else len(self.case["response_ids"])

    @property
    def params(self) -> SamplingParams:
        return SamplingParams(
            temperature=0,
            max_tokens=self.max_tokens,
            ignore_eos=not self.ends_at_eos,
            extra_args=self.settings,
            structured_outputs=StructuredOutputsParams(regex=self.case["regex"]) if "regex" in self.case else None,
        )

    def ask(self, server: Server) -> tuple[list[int], dict]:
        """The same over HTTP: the answer's tokens and the request's trace."""
        body = {
            "prompt": self.case["prompt_ids"],
            "max_tokens": self.max_tokens,
            "ignore_eos": not self.ends_at_eos,
            "return_token_ids": True,
            "vllm_xargs": self.xargs,
        }
        if "regex" in self.case:
            body["structured_outputs"] = {"regex": self.case["regex"]}
        answer = server.post("/v1/completions", body).raise_for_status().json()
        return answer["choices"][0]["token_ids"], server.trace(answer["id"])

    def difference(self, tokens: Sequence[int], trace: dict) -> str | None:
        """What is not as it should be in an answer's tokens and the request's trace, or None."""
        found = [_first_difference(*pair) for pair in self.pairs(list(tokens), trace)]
        found = [d for d in found if d is not None]
        return f"{self.file} case {self.index}, {self.settings}: " + "; ".join(found) if found else None

    def pairs(self, tokens: list[int], trace: dict) -> Iterator[tuple[str, list, list]]:
        """What is compared: the name of one item, what the file says, and what is there."""
        want, canvas = self.case["output_ids"], trace["output_ids"]
        if self.case.get("stopped"):  # LLaDA-V's, which leaves out the end of turn and all behind it
            want = [*want, END_OF_TURN]
            canvas = canvas[: len(want)]
        answer = want[: want.index(EOS) + 1] if self.ends_at_eos and EOS in want else want
        yield "canvas token", want, canvas
        yield "answer token", answer, tokens
        shown = dict(self.case)
        if "query_tokens" in shown:
            shown["query_tokens"] = query_tokens(self.case, trace["unmasked"])
        if "layer_tokens" in shown:
            shown["layer_tokens"] = layer_tokens(self.case)
        for key in PASSES:
            if shown.get(key) is not None:
                want = shown[key] if key != "unmasked" else [sorted(part) for part in shown[key]]
                yield f"{key} of pass", want, trace[key]


def _first_difference(what: str, want: list, got: list) -> str | None:
    for i, (a, b) in enumerate(zip(want, got, strict=False)):
        if a != b:
            return f"{what} {i} is {b}, should be {a}"
    return None if len(want) == len(got) else f"{len(got)} instead of {len(want)} x {what}"


def cases(model: str) -> list[Case]:
    """Every case of the model's golden files whose cache policy there is."""
    files = sorted(p.stem for p in GOLDEN.glob(f"{model}.*.json") if not p.stem.endswith(".likelihood"))
    found = [Case(file, i, case) for file in files for i, case in enumerate(golden(*file.split(".")))]
    return [case for case in found if case.settings["dllm_cache"] in POLICIES]


def sample(model: str, sampling: Sampling, share: float = 0, least: int = 1) -> list[Case]:
    """Of each policy of each file a share of the cases, and no fewer than `least`."""
    return sampling.take(cases(model), lambda case: (case.file, case.settings["dllm_cache"]), share, least)


def differences(engine: Engine, batch: list[Case]) -> list[str | None]:
    """Each case's difference, all of them in the engine at once."""
    return differences_of(batch, engine.run([c.prompt for c in batch], [c.params for c in batch]))


def differences_of(batch: Sequence[Case], results: Sequence[tuple[Any, dict]]) -> list[str | None]:
    """Of what each of them was answered: (output, trace line)."""
    return [c.difference(o.outputs[0].token_ids, t) for c, (o, t) in zip(batch, results, strict=True)]
