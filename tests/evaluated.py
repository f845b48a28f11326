"""The tasks of examples/evaluation as a plain loop answers and scores them: one question at a time, no engine, no harness."""

from typing import Any

import numpy as np
import torch
from common import CHECKPOINTS, EOS, MASK, ROOT
from dense import TRAITS, decode, model
from transformers import AutoTokenizer

from vllm_dllm import models
from vllm_dllm.likelihood.draws import draw

TASKS = ROOT / "examples" / "evaluation"
KINDS = {"tiny-llada": "counts", "tiny-dream": "times"}


class PlainLoop:
    """A bundled checkpoint in plain PyTorch."""

    def __init__(self, name: str):
        models.register()  # Dream's tokenizer
        self.name = name
        self.tokenizer = AutoTokenizer.from_pretrained(CHECKPOINTS / name)

    def encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def answer(self, prompt: str, arguments: dict[str, Any], settings: dict[str, Any]) -> str:
        """Decoded to its end token, cut at the first stop string."""
        length = settings.get("dllm_gen_length") or arguments["max_gen_toks"]
        settings = {k: v for k, v in settings.items() if k != "dllm_gen_length"}
        response = decode(self.name, self.encode(prompt), length, settings, stop_at_eos=True).canvas.response.tolist()
        text = self.tokenizer.decode(response[: response.index(EOS)] if EOS in response else response)
        return min((text.split(stop)[0] for stop in arguments["until"]), key=len)

    @torch.inference_mode()
    def logprobs(self, prompt: list[int], target: list[int], masked: np.ndarray) -> torch.Tensor:
        """[target, vocabulary]: what is said of each of the target's positions where those of `masked` (bool) are."""
        canvas = prompt + [MASK if m else t for t, m in zip(target, masked, strict=True)]
        rows = torch.arange(len(prompt), len(canvas)) + TRAITS[self.name].row_shift
        return model(self.name)(torch.tensor([canvas])).float()[0, rows].log_softmax(-1)

    def chain(self, prompt: str, target: str) -> tuple[float, bool]:
        """The sum of each token's log-probability, from it on all masked; whether each was the most likely."""
        ids, total, best = self.encode(target), 0.0, True
        for i, token in enumerate(ids):
            row = self.logprobs(self.encode(prompt), ids, np.arange(len(ids)) >= i)[i]
            total += float(row[token])
            best &= int(row.argmax()) == token
        return total, best

    def greedy(self, prompt: str, target: str) -> bool:
        """Whether the most confident position, one a pass, gives the target."""
        ids = self.encode(target)
        settings = {"dllm_block_length": len(ids), "dllm_tokens_per_step": 1}
        return decode(self.name, self.encode(prompt), len(ids), settings).canvas.response.tolist() == ids

    def estimate(self, prompt: str, target: str, mc_num: int, strata: int, seed: int) -> float:
        """The mean over the masks that are drawn for this pair; of a Dream model with the end token behind the target."""
        before, ids = self.encode(prompt), self.encode(target) + [EOS] * (KINDS[self.name] == "times")
        rng = np.random.default_rng([seed, len(ids), *before, *ids])
        each = []
        for mask, weight in zip(*draw(KINDS[self.name], len(ids), mc_num, strata, rng), strict=True):
            found = self.logprobs(before, ids, mask)[torch.arange(len(ids)), torch.tensor(ids)]
            each.append(weight * float(found[torch.from_numpy(mask)].sum()))
        return float(np.mean(each))
