"""Multiple choice scored by likelihood: the engine beside the authors' procedure, on the same weights in one run.

    python benchmarks/likelihood.py --model checkpoints/tiny-llada

Each document is a question of checkpoints/tasks.py with its right answer and three that differ in a character or two. The
authors' procedure (LLaDA's `get_log_likelihood.py`) takes one answer after the other; `mc`: a forward for each batch of
its masks; `chain`: one for each token. The engine takes all of them at once, or one document after the other (`alone`).
Both have the same masks. The fastest of --rounds counts. Prints a Markdown table:

    documents/s   questions with all of their answers
    passes/s      masked canvases
    of plain      documents/s against the plain loop's
    right         questions whose right answer is the likeliest
    apart         the largest difference from the plain loop's numbers
"""

import argparse
import platform
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from plain_loop import PlainLLaDA, default_device
from transformers import AutoTokenizer
from vllm import LLM

from vllm_dllm import loglikelihood
from vllm_dllm.likelihood.asked import Asked

ROOT = Path(__file__).parent.parent
CHOICES = 4
IDLE = 1.5  # seconds until vLLM's processes stop polling, so that the plain loop has all cores
Pair = tuple[list[int], list[int]]


def documents(folder: Path, number: int, seed: int) -> list[list[Pair]]:
    """The same ones for the same arguments: for each question its answers, the right one first."""
    sys.path.insert(0, str(ROOT / "checkpoints"))
    import tasks

    rng, tokenizer = random.Random(seed), AutoTokenizer.from_pretrained(folder)
    found = []
    for _ in range(number):
        question, right = tasks.sample(rng)
        chat = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        answers = [right, *(changed(right, 1 + i % 2, rng) for i in range(CHOICES - 1))]
        found.append([(prompt, tokenizer.encode(a, add_special_tokens=False)) for a in answers])
    return found


def changed(text: str, characters: int, rng: random.Random) -> str:
    """`text` with other letters or digits in so many places."""
    places = [i for i, c in enumerate(text) if c.isalnum()]
    letters = list(text)
    for i in rng.sample(places, min(characters, len(places))):
        kind = "0123456789" if letters[i].isdigit() else "abcdefghijklmnopqrstuvwxyz"
        letters[i] = rng.choice([c for c in kind if c != letters[i]])
    return "".join(letters)


class Plain:
    """The authors' procedure, one answer at a time."""

    def __init__(self, model: PlainLLaDA, mask_id: int):
        self.model, self.mask_id = model, mask_id
        self.device = model.cos.device
        self.passes = 0

    @torch.inference_mode()
    def read(self, pair: Pair, masks: np.ndarray) -> torch.Tensor:
        """[masks, target] log probabilities of the target's tokens where each mask masks them, zeros elsewhere."""
        prompt, target = pair
        ids = torch.tensor([prompt + target] * len(masks), device=self.device)
        masked = torch.zeros(ids.shape, dtype=torch.bool, device=self.device)
        masked[:, len(prompt) :] = torch.from_numpy(masks).to(self.device)
        logits = self.model(torch.where(masked, self.mask_id, ids))
        found = torch.zeros(ids.shape, device=self.device)
        found[masked] = -F.cross_entropy(logits[masked].float(), ids[masked], reduction="none")
        self.passes += len(masks)
        return found[:, len(prompt) :]

    def mc(self, pair: Pair, asked: Asked) -> float:
        plan = asked.plan(0, *pair, "counts")
        masks, weights = plan.passes.masks, torch.from_numpy(plan.weights)
        batches = range(0, len(masks), plan.strata)
        sums = torch.cat([self.read(pair, masks[i : i + plan.strata]).sum(1).cpu() for i in batches])
        return float((sums * weights).mean())

    def chain(self, pair: Pair) -> float:
        length = len(pair[1])
        masks = np.tri(length, k=0, dtype=bool).T
        return sum(float(self.read(pair, masks[i : i + 1])[0, i]) for i in range(length))


def timed(run: Callable[[], list[float]], rounds: int) -> tuple[float, list[float]]:
    """(seconds of the fastest round, what it gave)."""
    best, numbers = float("inf"), []
    for _ in range(rounds):
        start = time.perf_counter()
        numbers = run()
        best = min(best, time.perf_counter() - start)
    return best, numbers


def right(numbers: Sequence[float]) -> float:
    choices = np.asarray(numbers).reshape(-1, CHOICES)
    return float((choices[:, 0] > choices[:, 1:].max(1)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "checkpoints" / "tiny-llada", help="a LLaDA checkpoint")
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--mc-num", type=int, default=128, help="masks for each answer; 16 of them in a forward")
    parser.add_argument("--estimators", default="mc,chain", help="with commas")
    parser.add_argument("--requests", type=int, default=64, help="that run at once (max_num_seqs)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=11, help="of the documents")
    args = parser.parse_args()
    asked_of = documents(args.model, args.documents, args.seed)
    pairs = [pair for document in asked_of for pair in document]
    longest = max(len(p) + len(t) for p, t in pairs)
    llm = LLM(
        str(args.model),
        dtype=args.dtype,
        max_model_len=longest + 1,
        max_num_seqs=args.requests,
        max_num_batched_tokens=args.requests * longest,
        kv_cache_memory_bytes=1 << 30,
    )
    model = PlainLLaDA.load(args.model, getattr(torch, args.dtype), default_device())
    plain = Plain(model, model.config["mask_token_id"])

    print(
        f"\n{args.documents} questions with {CHOICES} answers, {platform.processor() or platform.machine()}, {args.dtype}\n"
    )
    print(
        "| estimator | | passes | documents/s | passes/s | of plain | right | apart |\n"
        + "| --- | --- "
        + "| ---: " * 6
        + "|"
    )
    for estimator in args.estimators.split(","):
        draws = {"mc_num": args.mc_num} if estimator == "mc" else {}
        asked = Asked(estimator, **draws)

        def one_by_one(asked: Asked = asked) -> list[float]:
            plain.passes = 0
            return [plain.chain(p) if asked.estimator == "chain" else plain.mc(p, asked) for p in pairs]

        def at_once(wanted: list[Pair], estimator: str = estimator, draws: dict = draws) -> list[float]:
            return [found.logprob for found in loglikelihood(llm, wanted, estimator, use_tqdm=False, **draws)]

        at_once(pairs[: args.requests])  # warms up
        ways = {
            "all at once": lambda: at_once(pairs),
            "one document at a time": lambda: [n for document in asked_of for n in at_once(document)],
        }
        engine = {name: timed(run, args.rounds) for name, run in ways.items()}
        time.sleep(IDLE)
        seconds, numbers = timed(one_by_one, args.rounds)
        for name, (took, found) in ({"plain loop": (seconds, numbers)} | engine).items():
            print(
                f"| `{estimator}` | {name} | {plain.passes} | {len(asked_of) / took:.1f} | {plain.passes / took:.0f} | "
                f"{seconds / took:.2f} | {100 * right(found):.1f} % | {np.abs(np.subtract(found, numbers)).max():.0e} |"
            )


if __name__ == "__main__":
    main()
