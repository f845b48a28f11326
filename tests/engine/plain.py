"""The plain model, pass by pass over what the trace says was unmasked: no cache, no batch, no engine."""

from collections.abc import Iterator

import torch
import train
from common import CHECKPOINTS, MASK


class Plain:
    """The float32 model of checkpoints/train.py."""

    def __init__(self, name: str):
        self.model = train.load(CHECKPOINTS / name)

    @torch.no_grad()
    def logits(self, canvas: list[int]) -> torch.Tensor:
        """[canvas, vocabulary]: row i predicts position i."""
        logits = self.model(torch.tensor([canvas])).float()[0]
        return torch.cat((logits[:1], logits[:-1])) if self.model.c["shift"] else logits

    def passes(self, prompt: list[int], trace: dict) -> Iterator[tuple[torch.Tensor, set[int], list[int]]]:
        """For each pass: the response's logits, its masked positions, and those the pass unmasked."""
        masked = set(range(trace["gen_length"]))
        for unmasked in trace["unmasked"]:
            response = [MASK if i in masked else trace["output_ids"][i] for i in range(trace["gen_length"])]
            yield self.logits(prompt + response)[len(prompt) :], set(masked), unmasked
            masked -= set(unmasked)

    def check_threshold(self, prompt: list[int], trace: dict, block: int, threshold: float) -> None:
        """Every pass unmasked what the threshold rule says, to the most likely tokens."""
        for logits, masked, unmasked in self.passes(prompt, trace):
            start = min(masked) // block * block
            candidates = [i for i in range(start, min(start + block, trace["gen_length"])) if i in masked]
            confidence = logits.softmax(-1).amax(-1)
            best = max(candidates, key=lambda i: confidence[i])
            assert unmasked == [i for i in candidates if confidence[i] >= threshold or i == best]
            assert [trace["output_ids"][i] for i in unmasked] == logits.argmax(-1)[unmasked].tolist()
