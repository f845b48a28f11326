"""SDAR-MoE, of which there is no small checkpoint: random weights in the engine, as the plain model decodes them."""

import random
from contextlib import closing

from block_causal import BlockCausal
from block_causal_configs import SDAR_MOE
from block_causal_loops import sdar
from causal_cases import differences
from common import MASK, Engine


def cases(model: BlockCausal, count: int) -> list[dict]:
    """In the golden files' form: prompts shorter than a block, of whole blocks, and others; both forms of the rule.

    Without those in which the plain model takes the mask token, which the engine never does.
    """
    rng, found = random.Random(0), []
    while len(found) < count:
        block_length = rng.choice([4, 8, 16])
        prompt_ids = [rng.randrange(8, 100) for _ in range(rng.choice([1, 2 * block_length, rng.randrange(2, 60)]))]
        asked = {
            "gen_length": rng.randrange(1, 40),
            "block_length": block_length,
            "denoising_steps": rng.randrange(1, block_length + 1),
            "confidence_threshold": rng.choice([0.3, 0.6, None]),
        }
        decoded = sdar(model, prompt_ids, *asked.values())
        output, overflow = decoded.response[: asked["gen_length"]], decoded.response[asked["gen_length"] :]
        passes = {"unmasked": decoded.unmasked, "query_tokens": decoded.query_tokens}
        answer = {"output_ids": output, "overflow_ids": overflow}
        if MASK not in decoded.response:
            found.append({"source": "sdar", "prompt": "", "prompt_ids": prompt_ids} | asked | answer | passes)
    return found


def test_sdar_moe(tmp_path):
    model = BlockCausal(SDAR_MOE)
    asked = cases(model, 32)
    with closing(Engine(str(model.save(tmp_path / "sdar-moe")), tmp_path / "trace.jsonl", max_model_len=256)) as engine:
        assert not differences(engine, asked)
        assert not differences(engine, asked[:16], dllm_cache="none")
