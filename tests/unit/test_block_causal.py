"""The plain block-causal models and their loops: what the authors' public code computes and decodes.

Forwards of the public modelling code and outputs of its own loops, in float32 on the CPU.
"""

import json

import pytest
import torch
from block_causal import BlockCausal
from block_causal_loops import Decoded, llada2, sdar
from common import CHECKPOINTS, EOS, ROOT, golden

FORWARDS = ROOT / "tests" / "models"
torch.set_num_threads(1)  # a pass is too small to share: threads would only wait for each other


@pytest.mark.parametrize("name", ["tiny-sdar", "tiny-llada2"])
def test_forwards(name):
    model = BlockCausal.load(CHECKPOINTS / name)
    for case in json.loads((FORWARDS / f"{name}.forwards.json").read_text()):
        found = model.logits(case["ids"], case["block_length"]).log_softmax(-1)[case["positions"]]
        torch.testing.assert_close(found, torch.tensor(case["logprobs"]), atol=1e-4, rtol=0)


def test_sdar_loop(sampling):
    model, found = BlockCausal.load(CHECKPOINTS / "tiny-sdar"), []
    cases = golden("tiny-sdar", "sdar")
    for case in sampling.take(cases, lambda case: (case["remasking"], case["block_length"]), least=2):
        keys = ("prompt_ids", "gen_length", "block_length", "denoising_steps", "confidence_threshold")
        decoded = sdar(model, *(case[key] for key in keys), case["stop"] or ())
        want = ([*case["output_ids"], *case["overflow_ids"]], case["query_tokens"])
        unmasked = [sorted(part) for part in case["unmasked"]]
        same = (decoded.response, decoded.query_tokens) == want and decoded.unmasked == unmasked
        found.append(None if same else f"{decoded} instead of {want}, {unmasked}")
    sampling.check(found)


def llada2_difference(case: dict, decoded: Decoded) -> str | None:
    """The output is cut to `gen_length` and behind the first EOS. The last pass is shown by what of it is in there."""
    output = decoded.response[: case["gen_length"]]
    output = output[: output.index(EOS) + 1] if EOS in output else output
    last = [position for position in decoded.unmasked[-1] if position < len(output)]
    shown = [*decoded.unmasked[:-1], last] if last else decoded.unmasked[:-1]
    want = (case["output_ids"], [sorted(part) for part in case["unmasked"]], case["query_tokens"])
    got = (output, shown, decoded.query_tokens)
    return None if got == want else f"{got} instead of {want}"


def test_llada2_loop(sampling):
    model, found = BlockCausal.load(CHECKPOINTS / "tiny-llada2"), []
    cases = golden("tiny-llada2", "llada2")
    for case in sampling.take(cases, lambda case: (case["eos_early_stop"], case["block_length"]), least=2):
        asked = (case[key] for key in ("prompt_ids", "gen_length", "block_length", "steps", "threshold"))
        found.append(llada2_difference(case, llada2(model, *asked, case["eos_early_stop"])))
    sampling.check(found)
