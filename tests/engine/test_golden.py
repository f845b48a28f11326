"""Golden files: the same tokens and the same passes as the authors' code, alone and 16 requests at once."""

import random
from dataclasses import dataclass

import pytest
from common import EOS, GOLDEN, golden
from quirks import query_tokens
from settings import settings
from vllm import SamplingParams

from vllm_dllm.caching.registry import POLICIES

# what a golden file shows of the passes, beside the tokens; the trace has the same keys
PASSES = ("query_tokens", "layer_tokens", "full", "unmasked")
ALONE = 0.25  # the part of the cases that also runs alone


@dataclass
class Case:
    file: str
    index: int
    case: dict

    @property
    def settings(self) -> dict:
        return settings(self.case)

    @property
    def prompt(self) -> dict:
        return {"prompt_token_ids": self.case["prompt_ids"]}

    @property
    def ends_at_eos(self) -> bool:
        return self.case["source"] == "elastic"

    @property
    def params(self) -> SamplingParams:
        return SamplingParams(
            temperature=0,
            max_tokens=self.case["gen_length"],
            ignore_eos=not self.ends_at_eos,
            extra_args=self.settings,
        )

    def difference(self, output, trace: dict) -> str | None:
        """What is not as it should be, or None."""
        want = self.case["output_ids"]
        answer = want[: want.index(EOS) + 1] if self.ends_at_eos and EOS in want else want
        found = [
            _first_difference("canvas token", want, trace["output_ids"]),
            _first_difference("answer token", answer, list(output.outputs[0].token_ids)),
        ]
        shown = dict(self.case)
        if "query_tokens" in shown:
            shown["query_tokens"] = query_tokens(self.case, trace["unmasked"])
        for key in PASSES:
            if key in shown:
                want = shown[key] if key != "unmasked" else [sorted(part) for part in shown[key]]
                found.append(_first_difference(f"{key} of pass", want, trace[key]))
        found = [d for d in found if d is not None]
        return f"{self.file} case {self.index}, {self.settings}: " + "; ".join(found) if found else None


def _first_difference(what: str, want: list, got: list) -> str | None:
    for i, (a, b) in enumerate(zip(want, got, strict=False)):
        if a != b:
            return f"{what} {i} is {b}, should be {a}"
    return None if len(want) == len(got) else f"{len(got)} instead of {len(want)} x {what}"


def cases(model: str) -> list[Case]:
    """Every case of the model's golden files whose cache policy there is."""
    files = sorted(p.stem for p in GOLDEN.glob(f"{model}.*.json"))
    found = [Case(file, i, case) for file in files for i, case in enumerate(golden(*file.split(".")))]
    return [case for case in found if case.settings["dllm_cache"] in POLICIES]


def check(found: list[str | None], total: int) -> None:
    wrong = [d for d in found if d is not None]
    assert not wrong, f"{len(wrong)} of {total} cases differ:\n" + "\n".join(wrong[:20])


MODELS = [("llada", "tiny-llada"), ("dream", "tiny-dream")]


@pytest.mark.parametrize(("engine", "model"), MODELS)
def test_batched(engine, model, request):
    """All cases in one go, 16 running at any time, policies and settings mixed."""
    engine = request.getfixturevalue(engine)
    batch = cases(model)
    random.Random(7).shuffle(batch)
    results = engine.run([c.prompt for c in batch], [c.params for c in batch])
    check([c.difference(*r) for c, r in zip(batch, results, strict=True)], len(batch))


@pytest.mark.parametrize(("engine", "model"), MODELS)
def test_alone(engine, model, request):
    """A sample of the cases of each policy of each file, one request at a time."""
    engine = request.getfixturevalue(engine)
    rng, groups = random.Random(8), {}
    for case in cases(model):
        groups.setdefault((case.file, case.settings["dllm_cache"]), []).append(case)
    sample = [c for group in groups.values() for c in rng.sample(group, max(1, round(len(group) * ALONE)))]
    found = []
    for case in sample:
        ((output, trace),) = engine.run([case.prompt], [case.params])
        found.append(case.difference(output, trace))
    check(found, len(sample))


def test_cases_of_no_cache():
    """The files that issue `cache none` rests on are there and are run."""
    count = {model: sum(c.settings["dllm_cache"] == "none" for c in cases(model)) for _, model in MODELS}
    assert count == {"tiny-llada": 60 + 19 + 12, "tiny-dream": 60 + 12}
