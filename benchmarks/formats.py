"""What guaranteed formats cost with a vocabulary of 126,000 tokens: building one, and every pass.

    python benchmarks/formats.py [--passes 40] [--lines 32]

The vocabulary is made up, in the proportions of a byte-level BPE: words, with and without a space in front, numbers,
punctuation, pieces of other scripts. One format is a schema of twenty fields, nested: strings, numbers, enums, arrays,
objects. The passes are on random logits, thresholds of which nothing passes but the first: as many passes as there are.
"""

import argparse
import json
import random
import resource
import time

import numpy as np
import torch

from vllm_dllm.canvas import Canvas
from vllm_dllm.constraints import admitted
from vllm_dllm.constraints.format import Format
from vllm_dllm.formats.asked import Asked
from vllm_dllm.formats.automaton import Automaton
from vllm_dllm.formats.build import Spelling, Vocabulary, vocabulary
from vllm_dllm.formats.builder import Builder
from vllm_dllm.frontier import Blocks
from vllm_dllm.messages import Edits
from vllm_dllm.worker.edits import apply

SIZE = 126_464  # LLaDA-8B's
FIELDS = [
    {"type": "string"},
    {"type": "number"},
    {"enum": ["red", "green", "blue"]},
    {"type": "array", "items": {"type": "integer"}},
    {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "boolean"}}, "required": ["a", "b"]},
]
SCHEMA = {
    "type": "object",
    "properties": {f"field_{i}": FIELDS[i % len(FIELDS)] for i in range(20)},
    "required": [f"field_{i}" for i in range(0, 20, 2)],
}
LONG = {"type": "object", "properties": {"text": {"type": "string", "maxLength": 500}}, "required": ["text"]}
WANTED = {
    "choice of three": Asked("choice", ("low", "high", "none")),
    "list of numbers": Asked("regex", "[0-9]+(, [0-9]+)*"),
    "twenty fields, ten of them optional": Asked("json", json.dumps(SCHEMA)),
    "a string of at most 500": Asked("json", json.dumps(LONG)),
    "any JSON object": Asked("json", '{"type": "object"}'),
}


def made_up(size: int) -> Vocabulary:
    rng = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgkqjxz"
    tokens = {bytes([byte]) for byte in range(256)}
    while len(tokens) < size - 1:
        word = "".join(rng.choices(letters, weights=range(26, 0, -1), k=rng.randint(2, 9)))
        kind = rng.random()
        if kind < 0.5:
            word = " " + word
        elif kind < 0.6:
            word = word.capitalize()
        elif kind < 0.65:
            word = str(rng.randrange(10 ** rng.randint(1, 3)))
        elif kind < 0.7:
            word = "".join(rng.choices("{}[]\":,.-_ \n\t()='", k=rng.randint(2, 5)))
        elif kind < 0.75:
            word = "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(rng.randint(1, 3)))
        tokens.add(word.encode())
    return vocabulary([*sorted(tokens), b""], [size - 1])


def passes(automaton: Automaton, lines: int, most: int, rng: np.random.Generator) -> tuple[list[float], list[float]]:
    """Microseconds of CPU in each pass: what the host decides, and what is done to the logits."""
    length = max(automaton.shortest + 64, 128)
    canvas = Canvas([1], length, 0, Blocks(lines))
    constraint, table = Format(automaton, "key"), {"key": torch.from_numpy(automaton.class_of)}
    host, device = [], []
    while not canvas.done and len(host) < most:
        reads = canvas.candidates
        logits = torch.from_numpy(rng.standard_normal((len(reads), SIZE), np.float32))
        began, edits = time.thread_time(), Edits()
        constraint.edit(canvas, reads, edits)
        first = time.thread_time() - began
        began = time.thread_time()
        apply(logits, 0, np.asarray([0, len(reads)]), {0: edits}, table)
        device.append((time.thread_time() - began) * 1e6)
        best = logits.max(-1)
        order = np.argsort(-best.values.numpy(), kind="stable")[: max(1, len(reads) // 4)]
        positions, tokens = reads[order], best.indices.numpy()[order]
        began = time.thread_time()
        kept = admitted([constraint], canvas, positions, tokens)
        host.append((first + time.thread_time() - began) * 1e6)
        by_position = np.argsort(positions[kept])
        canvas.unmask(positions[kept][by_position], tokens[kept][by_position])
    return host, device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passes", type=int, default=40)
    parser.add_argument("--lines", type=int, default=32, help="positions that a pass reads")
    args = parser.parse_args()
    torch.set_num_threads(1)
    spelt = made_up(SIZE)
    began = time.thread_time()
    Spelling(spelt)
    print(f"vocabulary of {SIZE} tokens: {time.thread_time() - began:.2f} s once\n")
    builder = Builder(lambda: spelt)
    builder.submit(Asked("regex", "x")).result()  # starts the process
    print(
        "| format | s | states | classes | transitions | KiB | loaded, ms | host, µs a pass, the first request's | "
        "and the second's | logits, µs |\n| --- |" + " ---: |" * 9
    )
    for name, asked in WANTED.items():
        built = builder.submit(asked).result()
        began = time.thread_time()
        automaton = Automaton.unpack(built.packed)
        loaded = (time.thread_time() - began) * 1e3
        runs = [passes(automaton, args.lines, args.passes, np.random.default_rng(n)) for n in range(2)]
        host = " | ".join(f"{np.mean(run[0]):.0f} ({np.max(run[0]):.0f})" for run in runs)
        print(
            f"| {name} | {built.seconds:.2f} | {built.states} | {built.classes} | {built.transitions} | "
            f"{len(built.packed) / 1024:.0f} | {loaded:.1f} | {host} | {np.median(runs[1][1]):.0f} |",
            flush=True,
        )
    builder.close()
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"\nmost memory of the process that builds: {most:.0f} MiB")


if __name__ == "__main__":
    main()
