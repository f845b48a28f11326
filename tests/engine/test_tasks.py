"""Graded tasks: the served model answers what it answers in its own training program's evaluation."""

import pytest
import train
from prompts import as_prompt, params, token_ids

LENGTH, BLOCK, THRESHOLD = 96, 32, 0.9  # of train.py's final evaluation
FINAL = 64, 2  # its prompts of each kind, and their seed
PROMPTS = 8


@pytest.mark.parametrize("name", ["llada", "dream"])
def test_answers_and_accuracy(name, request, monkeypatch, sampling):
    plain = request.getfixturevalue(f"plain_{name}")
    engine = request.getfixturevalue(name)
    prompts, seed = FINAL if sampling.everything else (PROMPTS, sampling.seed)
    expected: dict[tuple[int, ...], list[int]] = {}
    generate = train.generate

    def record(model, head, *args):
        expected[tuple(head)] = generate(model, head, *args)
        return expected[tuple(head)]

    monkeypatch.setattr(train, "generate", record)
    accuracy = train.accuracy(plain.model, prompts, seed)
    assert len(expected) > 3 * prompts and accuracy["echo"] > 0.75, "the grading works"

    heads = list(expected)
    outputs = engine.generate(
        [as_prompt(list(h)) for h in heads],
        params(LENGTH, dllm_cache="none", dllm_block_length=BLOCK, dllm_threshold=THRESHOLD),
    )
    served = {h: token_ids(output) for h, output in zip(heads, outputs, strict=True)}
    for h in heads:
        want = expected[h]
        want = want[: want.index(train.EOS) + 1] if train.EOS in want else want
        assert served[h] == want, f"prompt {list(h)}, pytest {sampling}"
    for output in outputs:
        text = "".join(train.CHARS[i - 8] for i in token_ids(output) if i != train.EOS)
        assert output.outputs[0].text == text

    monkeypatch.setattr(train, "generate", lambda model, head, *args: served[tuple(head)])
    assert train.accuracy(plain.model, prompts, seed) == accuracy
