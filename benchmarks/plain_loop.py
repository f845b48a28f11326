"""LLaDA decoded as its authors do it: one request at a time, the whole canvas in every pass, plain PyTorch.

What the engine is compared with: same checkpoint, same settings, no cache, no batching.
"""

import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file


class PlainLLaDA:
    """The forward of a LLaDA checkpoint (`weights` by their official names), for one canvas or several of one length."""

    def __init__(self, config: dict, weights: dict[str, torch.Tensor]):
        self.config, self.weights = config, weights
        embedding = weights["model.transformer.wte.weight"]
        device, dtype = embedding.device, embedding.dtype
        head_dim = self.config["d_model"] // self.config["n_heads"]
        frequency = self.config["rope_theta"] ** (-torch.arange(0, head_dim, 2).float() / head_dim)
        angle = torch.outer(torch.arange(self.config["max_sequence_length"]).float(), frequency)
        angle = torch.cat((angle, angle), -1)
        self.cos, self.sin = angle.cos().to(device, dtype), angle.sin().to(device, dtype)

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype, device: str) -> "PlainLLaDA":
        weights: dict[str, torch.Tensor] = {}
        for file in sorted(folder.glob("*.safetensors")):
            weights |= {name: w.to(device, dtype) for name, w in load_file(file).items()}
        return cls(json.loads((folder / "config.json").read_text()), weights)

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """`ids`: [length] or [canvases, length]; logits [..., vocabulary]."""
        w, top = self.weights, "model.transformer."
        x = F.embedding(torch.atleast_2d(ids), w[top + "wte.weight"])
        for i in range(self.config["n_layers"]):
            x = self.layer(x, f"{top}blocks.{i}.")
        logits = F.linear(self.norm(x, top + "ln_f"), w[top + "ff_out.weight"])
        return logits.view(*ids.shape, -1)

    def layer(self, x: torch.Tensor, name: str) -> torch.Tensor:
        def linear(h: torch.Tensor, part: str) -> torch.Tensor:
            return F.linear(h, self.weights[f"{name}{part}.weight"])

        def heads(h: torch.Tensor) -> torch.Tensor:
            return h.unflatten(-1, (self.config["n_heads"], -1)).transpose(1, 2)

        h = self.norm(x, name + "attn_norm")
        q, k, v = (heads(linear(h, part)) for part in ("q_proj", "k_proj", "v_proj"))
        a = F.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v)
        x = x + linear(a.transpose(1, 2).flatten(2), "attn_out")
        h = self.norm(x, name + "ff_norm")
        return x + linear(F.silu(linear(h, "ff_proj")) * linear(h, "up_proj"), "ff_out")

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.config["rms_norm_eps"])

    def rotate(self, x: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, -1)
        length = x.shape[-2]
        return x * self.cos[:length] + torch.cat((-b, a), -1) * self.sin[:length]


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


class PlainLoop:
    """Decodes greedily by blocks: a threshold on the confidence, or as many passes as `steps` says.

    `passes` and `forward` (seconds in the model) add up over requests.
    """

    def __init__(self, model: PlainLLaDA, block_length: int, threshold: float | None):
        self.model = model
        self.device = model.cos.device.type
        self.mask_id = self.model.config["mask_token_id"]
        self.block_length, self.threshold = block_length, threshold
        self.passes, self.forward = 0, 0.0

    @torch.inference_mode()
    def generate(self, prompt_ids: list[int], gen_length: int, steps: int | None) -> list[int]:
        """The response's token ids."""
        start, stop = len(prompt_ids), len(prompt_ids) + gen_length
        ids = torch.tensor(prompt_ids + [self.mask_id] * gen_length, device=self.device)
        masked = torch.arange(stop, device=self.device) >= start
        for block in range(start, stop, self.block_length):
            end = min(block + self.block_length, stop)
            counts = self._counts(end - block, steps, -(-gen_length // self.block_length))
            while masked[block:end].any():
                confidence, tokens = self._pass(ids)
                confidence = torch.where(masked, confidence, -torch.inf)
                confidence[end:] = -torch.inf
                if counts is None:
                    chosen = confidence >= self.threshold
                    chosen[confidence.argmax()] = True
                else:
                    chosen = confidence.topk(counts.pop(0)).indices
                ids[chosen], masked[chosen] = tokens[chosen], False
        return ids[start:].tolist()

    def _counts(self, masked: int, steps: int | None, blocks: int) -> list[int] | None:
        """How many positions each pass of a block unmasks; None: the threshold says."""
        if steps is None:
            return None
        passes = steps // blocks
        return [masked // passes + (i < masked % passes) for i in range(passes)]

    def _pass(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        begin = self._now()
        logits = self.model(ids)
        self.forward += self._now() - begin
        self.passes += 1
        return logits.float().softmax(-1).max(-1)

    def _now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()
