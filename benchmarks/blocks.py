"""SDAR in the engine beside a plain PyTorch loop of the same procedure, on the same random weights, in one run.

    python benchmarks/blocks.py
    python benchmarks/blocks.py --layers 16 --denoising-steps 4 --threads 2
    python benchmarks/blocks.py --turns 6

The plain loop is SDAR's own procedure: keys and values of finished blocks are stored, a pass computes the active block, and
one more commits it; one request at a time. Every pass unmasks a fixed number of tokens (`--denoising-steps` a block), so
that both make the same passes. A row is the fastest of the rounds. Prints a Markdown table:

    tokens/s    response tokens per second
    of plain    the same against the plain loop
    equal       answers equal to the plain loop's, of those it ran

With `--turns`: conversations of so many turns, eight at once, with and without vLLM's prefix caching. Each turn's prompt is
all that was said before and 30 tokens more; the first one has 200. The second table has what was computed of prompts, the
seconds, and whether all answers are the same.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from vllm import LLM, SamplingParams

from vllm_dllm.compare.answers import answer

MASK, EOS = 16383, 16382
CONFIG = {
    "architectures": ["SDARForCausalLM"],
    "model_type": "sdar",
    "vocab_size": 16384,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": False,
    "block_size": 4,
    "mask_token_id": MASK,
    "eos_token_id": EOS,
}
IDLE = 1.5  # seconds until vLLM's processes stop polling, so that the plain loop has all cores


def write_model(layers: int, folder: Path) -> None:
    """A checkpoint of SDAR-1.7B's proportions, half as wide."""
    generator = torch.Generator().manual_seed(0)
    width, heads, kv_heads, size = (
        CONFIG[k] for k in ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim")
    )

    def matrix(rows: int, columns: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator) * (scale * columns**-0.5)

    weights = {
        "model.embed_tokens.weight": matrix(CONFIG["vocab_size"], width, width**0.5),
        "model.norm.weight": torch.ones(width),
        "lm_head.weight": matrix(CONFIG["vocab_size"], width, 3.0),  # so that confidences differ
    }
    for i in range(layers):
        at = f"model.layers.{i}."
        weights |= {
            f"{at}input_layernorm.weight": torch.ones(width),
            f"{at}post_attention_layernorm.weight": torch.ones(width),
            f"{at}self_attn.q_norm.weight": torch.ones(size),
            f"{at}self_attn.k_norm.weight": torch.ones(size),
            f"{at}self_attn.q_proj.weight": matrix(heads * size, width),
            f"{at}self_attn.k_proj.weight": matrix(kv_heads * size, width),
            f"{at}self_attn.v_proj.weight": matrix(kv_heads * size, width),
            f"{at}self_attn.o_proj.weight": matrix(width, heads * size),
            f"{at}mlp.gate_proj.weight": matrix(CONFIG["intermediate_size"], width),
            f"{at}mlp.up_proj.weight": matrix(CONFIG["intermediate_size"], width),
            f"{at}mlp.down_proj.weight": matrix(width, CONFIG["intermediate_size"]),
        }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": layers}))


class PlainSDAR:
    """The forward of some positions over stored keys and values, which it may add to."""

    def __init__(self, layers: int, weights: dict[str, torch.Tensor]):
        self.layers, self.weights = layers, weights
        size = CONFIG["head_dim"]
        angle = torch.outer(
            torch.arange(1024).float(), CONFIG["rope_theta"] ** (-torch.arange(0, size, 2).float() / size)
        )
        self.cos, self.sin = torch.cat((angle, angle), -1).cos(), torch.cat((angle, angle), -1).sin()

    def start(self) -> None:
        empty = torch.empty(CONFIG["num_key_value_heads"], 0, CONFIG["head_dim"])
        self.stored = [(empty, empty) for _ in range(self.layers)]

    def __call__(self, ids: torch.Tensor, start: int, sees: torch.Tensor | None, store: bool) -> torch.Tensor:
        """Logits at the positions from `start` on; `sees`: which of them each one sees, if not all."""
        w, x = self.weights, F.embedding(ids, self.weights["model.embed_tokens.weight"])
        for i in range(self.layers):
            at = f"model.layers.{i}."
            h = self.norm(x, f"{at}input_layernorm")
            q, k, v = (
                F.linear(h, w[f"{at}self_attn.{p}_proj.weight"]).unflatten(-1, (-1, CONFIG["head_dim"])) for p in "qkv"
            )
            q, k = self.norm(q, f"{at}self_attn.q_norm"), self.norm(k, f"{at}self_attn.k_norm")
            q, k, v = self.turn(q, start).transpose(0, 1), self.turn(k, start).transpose(0, 1), v.transpose(0, 1)
            keys, values = (torch.cat(pair, 1) for pair in zip(self.stored[i], (k, v), strict=True))
            if store:
                self.stored[i] = keys, values
            out = F.scaled_dot_product_attention(q[None], keys[None], values[None], attn_mask=sees, enable_gqa=True)[0]
            x = x + F.linear(out.transpose(0, 1).flatten(1), w[f"{at}self_attn.o_proj.weight"])
            h = self.norm(x, f"{at}post_attention_layernorm")
            gate, up = (F.linear(h, w[f"{at}mlp.{p}_proj.weight"]) for p in ("gate", "up"))
            x = x + F.linear(F.silu(gate) * up, w[f"{at}mlp.down_proj.weight"])
        return F.linear(self.norm(x, "model.norm"), w["lm_head.weight"])

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], CONFIG["rms_norm_eps"])

    def turn(self, x: torch.Tensor, start: int) -> torch.Tensor:
        half = x.shape[-1] // 2
        turned = torch.cat((-x[..., half:], x[..., :half]), -1)
        part = slice(start, start + len(x))
        return x * self.cos[part, None] + turned * self.sin[part, None]


@torch.inference_mode()
def decode(model: PlainSDAR, prompt_ids: list[int], gen_length: int, steps: int) -> list[int]:
    block, prompt = CONFIG["block_size"], len(prompt_ids)
    length = -(-(prompt + gen_length) // block) * block
    tokens = torch.full((length,), MASK)
    tokens[:prompt] = torch.tensor(prompt_ids)
    model.start()
    first = prompt // block * block
    if first:
        number = torch.arange(first) // block
        model(tokens[:first], 0, number[None] <= number[:, None], store=True)
    for start in range(first, length, block):
        part = tokens[start : start + block]
        masked = torch.arange(start, start + block) >= prompt
        for step in range(steps):
            if not masked.any():
                break
            quota = block // steps + (step < block % steps)
            logits = model(part, start, None, store=False)
            logits[:, MASK] = -torch.inf
            best = logits.softmax(-1).max(-1)
            chosen = best.values.masked_fill(~masked, -1).topk(min(quota, int(masked.sum()))).indices
            part[chosen] = best.indices[chosen]
            masked[chosen] = False
        model(part, start, None, store=True)
    return tokens[prompt : prompt + gen_length].tolist()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--denoising-steps", type=int, default=2, help="passes a block of 4")
    parser.add_argument("--concurrency", default="1,16", help="requests in flight, with commas")
    parser.add_argument("--requests", type=int, default=4, help="that the plain loop runs")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--turns", type=int, help="measure conversations of so many turns instead")
    parser.add_argument("--threads", type=int, default=2, help="of the plain loop")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    levels = [int(c) for c in args.concurrency.split(",")]
    rng = random.Random(0)
    sizes = [(rng.randrange(60, 180), rng.randrange(48, 96)) for _ in range(max(args.requests, 2 * max(levels)))]
    requests = [([rng.randrange(EOS) for _ in range(prompt)], gen) for prompt, gen in sizes]
    with tempfile.TemporaryDirectory() as name:
        write_model(args.layers, Path(name))
        if args.turns:
            compare_conversations(args, name)
        else:
            compare_loops(args, name, levels, requests)


def engine(folder: str, most: int, prefix_caching: bool, **more) -> LLM:
    return LLM(
        folder,
        dtype="float32",
        skip_tokenizer_init=True,
        max_model_len=1024,
        max_num_seqs=most,
        kv_cache_memory_bytes=1 << 30,
        enable_prefix_caching=prefix_caching,
        **more,
    )


def compare_loops(
    args: argparse.Namespace, folder: str, levels: list[int], requests: list[tuple[list[int], int]]
) -> None:
    plain = PlainSDAR(args.layers, load_file(Path(folder) / "model.safetensors"))
    llm = engine(folder, max(levels), prefix_caching=False)
    rows: dict[tuple[str, int], tuple[float, int, int]] = {}
    for _ in range(args.rounds):
        time.sleep(IDLE)
        start = time.perf_counter()
        want = [decode(plain, *request, args.denoising_steps) for request in requests[: args.requests]]
        keep(rows, ("plain loop", 1), sum(map(len, want)), time.perf_counter() - start, len(want))
        for cache in ({}, {"dllm_merge_commits": True}):
            for level in levels:
                part = requests[: max(args.requests, 2 * level if level > 1 else 0)]
                measure(rows, llm, part, level, cache, args, want)
    base = rows["plain loop", 1][0]
    print("| | concurrency | tokens/s | of plain | equal |\n| --- | ---: | ---: | ---: | ---: |")
    for (what, level), (rate, equal, compared) in rows.items():
        print(f"| {what} | {level} | {rate:.1f} | {rate / base:.2f} | {equal}/{compared} |")


def compare_conversations(args: argparse.Namespace, folder: str) -> None:
    rows, answers = [], []
    for prefix_caching in (True, False):
        llm, rng = engine(folder, 8, prefix_caching), random.Random(0)
        params = SamplingParams(
            temperature=0, max_tokens=48, ignore_eos=True, extra_args={"dllm_denoising_steps": args.denoising_steps}
        )
        talks = [[rng.randrange(EOS) for _ in range(200)] for _ in range(8)]
        computed = asked = 0
        start = time.perf_counter()
        for _ in range(args.turns):
            outputs = llm.generate([{"prompt_token_ids": talk} for talk in talks], params, use_tqdm=False)
            for talk, output in zip(talks, outputs, strict=True):
                computed += len(talk) - output.num_cached_tokens
                asked += len(talk)
                talk += [*output.outputs[0].token_ids, *(rng.randrange(EOS) for _ in range(30))]
        rows.append((prefix_caching, computed, asked, time.perf_counter() - start))
        answers.append(talks)
        llm.llm_engine.engine_core.shutdown()
    print("| prefix caching | prompt tokens computed | of | seconds |\n| --- | ---: | ---: | ---: |")
    for prefix_caching, computed, asked, seconds in rows:
        print(f"| {'on' if prefix_caching else 'off'} | {computed} | {asked} | {seconds:.1f} |")
    print("all answers are the same" if answers[0] == answers[1] else "ANSWERS DIFFER")


def measure(rows, llm: LLM, requests, level: int, cache: dict, args: argparse.Namespace, want: list[list[int]]) -> None:
    asked = [
        (
            {"prompt_token_ids": prompt},
            SamplingParams(
                temperature=0,
                max_tokens=gen,
                ignore_eos=True,
                detokenize=False,
                extra_args={"dllm_denoising_steps": args.denoising_steps} | cache,
            ),
        )
        for prompt, gen in requests
    ]
    found = answer(llm, asked, level)
    assert found is not None
    outputs, seconds = found
    answers = [list(output.outputs[0].token_ids) for output in outputs]
    what = ", ".join(f"{key}={value}" for key, value in cache.items()) or "dllm_cache=block"
    equal = sum(a == b for a, b in zip(answers, want, strict=False))
    keep(rows, (what, level), sum(map(len, answers)), seconds, equal, min(len(want), len(answers)))


def keep(rows, key: tuple[str, int], tokens: int, seconds: float, equal: int, compared: int | None = None) -> None:
    """The fastest round."""
    rate = tokens / seconds
    if rate > rows.get(key, (0,))[0]:
        rows[key] = rate, equal, equal if compared is None else compared
    print(f"{key}: {rate:.1f} tokens/s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
