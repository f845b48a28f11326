"""Reinforcement learning with the engine's rollouts: a policy gradient on recorded unmaskings, in plain PyTorch.

    python examples/rollouts.py
    python examples/rollouts.py --rounds 12 --prompts 32 --seed 1

Each round the engine draws several answers to each prompt, with records. Right answers are rewarded; an answer's advantage
is its reward over the mean of its prompt's. The trainer replays the canvases of each record, takes the log probability of
each token on the canvas before it, and follows the gradient (clipped ratios to the recorded log probabilities, as in PPO).
The new weights go back into the engine, which answers the next round with them. At the end questions that were not trained
on are asked greedily, before and after.

It runs on the bundled checkpoint (a model of checkpoints/train.py), on two cores in about a minute.
"""

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from vllm import LLM, SamplingParams

import vllm_dllm

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
sys.path.append(str(CHECKPOINTS))
import tasks  # noqa: E402
import train  # noqa: E402

LENGTH = 32  # positions of a response
SETTINGS = {"dllm_block_length": LENGTH, "dllm_tokens_per_step": 6}


class Unmasked(NamedTuple):
    """What one pass decided: tokens at some positions of a canvas."""

    canvas: list[int]
    positions: list[int]
    tokens: list[int]
    logprobs: list[float]  # when they were drawn
    advantage: float


def questions(count: int, seed: int) -> list[tuple[str, str]]:
    """Counting tasks whose answers fit, each with its answer."""
    rng = random.Random(seed)
    found: list[tuple[str, str]] = []
    while len(found) < count:
        question, answer = tasks.sample(rng, "count")
        if len(answer) < LENGTH:
            found.append((question, answer))
    return found


def ask(llm: LLM, asked: list[tuple[str, str]], **sampling: Any) -> list[Any]:
    """vLLM's outputs for the questions."""
    chats = [[{"role": "user", "content": question}] for question, _ in asked]
    params = SamplingParams(max_tokens=LENGTH, **sampling)
    return llm.chat(chats, params, use_tqdm=False)  # type: ignore[arg-type]


def rewards(output: Any, want: str) -> list[float]:
    return [float(answer.text == want) for answer in output.outputs]


def unmaskings(output: Any, want: str) -> Iterator[Unmasked]:
    """All that the passes of a prompt's answers decided, up to each answer's end."""
    reward = rewards(output, want)
    mean = sum(reward) / len(reward)
    for answer, own in zip(output.outputs, reward, strict=True):
        record, start = answer.dllm_record, len(output.prompt_token_ids)
        if own == mean:  # all answers are alike: nothing to learn
            continue
        # behind the last pass's canvas there is one more, what it left
        for canvas, unmasked in zip(vllm_dllm.replay(record), record["unmasked"], strict=False):
            chosen = [i for i in unmasked if i < len(answer.token_ids)]
            yield Unmasked(
                canvas,
                [start + i for i in chosen],
                [record["output_ids"][i] for i in chosen],
                [record["logprobs"][i] for i in chosen],
                own - mean,
            )


def logprobs(model: train.Model, passes: list[Unmasked]) -> torch.Tensor:
    """The model's log probabilities of what the passes decided, all in a row. Their canvases are of one length."""
    logits = model(torch.tensor([p.canvas for p in passes]))
    if model.c["shift"]:
        logits = torch.cat((logits[:, :1], logits[:, :-1]), 1)
    rows = torch.tensor([n for n, p in enumerate(passes) for _ in p.positions])
    positions = torch.tensor([i for p in passes for i in p.positions])
    tokens = torch.tensor([t for p in passes for t in p.tokens])
    return logits[rows, positions].log_softmax(-1).gather(-1, tokens[:, None])[:, 0]


def learn(model: train.Model, optimizer: torch.optim.Optimizer, groups: list[list[Unmasked]]) -> float:
    """One pass over the groups, each of one prompt. How far the first recorded log probabilities are from the model's."""
    difference = 0.0
    for number, passes in enumerate(groups):
        old = torch.tensor([p for one in passes for p in one.logprobs])
        advantage = torch.tensor([one.advantage for one in passes for _ in one.positions])
        new = logprobs(model, passes)
        if number == 0:  # the weights are still those that drew the answers
            difference = (new.detach() - old).abs().max().item()
        ratio = (new - old).exp()
        loss = -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8, help="rollouts, each with an update behind it")
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--answers", type=int, default=8, help="drawn for each prompt")
    parser.add_argument("--held-out", type=int, default=64, help="questions that are not trained on")
    parser.add_argument("--lr", type=float, default=3e-5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    path = CHECKPOINTS / "tiny-llada"
    model = train.load(path)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.0)
    llm = LLM(str(path), dtype="float32", max_model_len=256, additional_config=SETTINGS)
    trained, held_out = questions(args.prompts, args.seed), questions(args.held_out, args.seed + 10_000)

    def greedily() -> str:
        right = sum(sum(rewards(o, w)) for o, (_, w) in zip(ask(llm, held_out, temperature=0), held_out, strict=True))
        return f"{right:.0f} of {len(held_out)} right"

    before = greedily()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.rounds):
            drawn = {"temperature": 1.0, "n": args.answers, "seed": args.seed + number}
            outputs = ask(llm, trained, extra_args={"dllm_record": True}, **drawn)
            reward = [r for o, (_, want) in zip(outputs, trained, strict=True) for r in rewards(o, want)]
            groups = [list(unmaskings(o, want)) for o, (_, want) in zip(outputs, trained, strict=True)]
            difference = learn(model, optimizer, [group for group in groups if group])
            train.export("llada", model, Path(folder), torch.float32)
            llm.collective_rpc("reload_weights", kwargs={"weights_path": folder})
            print(
                f"round {number}: reward {sum(reward) / len(reward):.3f} of {len(reward)} answers; "
                f"recorded log probabilities within {difference:.0e} of the trainer's",
                flush=True,
            )
    print(f"held out, greedily: {before} before, {greedily()} after")


if __name__ == "__main__":  # vLLM starts processes that import this file again
    # vLLM's CPU build takes half of the memory for its KV cache unless told a number of GiB
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    main()
