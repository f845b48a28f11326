"""Requests that join, leave, wait, stop and are aborted: answers stay the golden ones and nothing is left behind."""

import random

import pytest
from common import EOS, MASK, golden
from drive import Drive
from prompts import as_prompt, head, params, task_prompts, token_ids
from settings import settings


def golden_requests(n: int, seed: int) -> list[tuple[dict, dict, list[int]]]:
    """(prompt, arguments of `params`, answer) of golden cases with different lengths, blocks and rules."""
    cases = golden("tiny-llada", "llada")
    cases += [c for c in golden("tiny-llada", "fastdllm") + golden("tiny-llada", "d2cache") if c["cache"] == "none"]
    cases = random.Random(seed).sample(cases, n)
    return [
        (as_prompt(c["prompt_ids"]), dict(max_tokens=c["gen_length"], ignore_eos=True, **settings(c)), c["output_ids"])
        for c in cases
    ]


# ---- joining and leaving ----


def test_requests_join_and_leave_at_any_pass(llada):
    requests = golden_requests(24, seed=1)
    drive, rng = Drive(llada), random.Random(2)
    for i, (prompt, arguments, _) in enumerate(requests):
        drive.add(f"join-{i}", prompt, arguments)
        for _ in range(rng.randint(0, 6)):
            if drive.core.has_unfinished_requests():
                drive.step()
    drive.run_out()
    for i, (_, arguments, want) in enumerate(requests):
        assert drive.finished[f"join-{i}"] == want, arguments


def test_abort_in_mid_answer(llada):
    requests = golden_requests(8, seed=3)
    slow = dict(max_tokens=200, ignore_eos=True, dllm_steps=200, dllm_block_length=200)
    drive = Drive(llada)
    llada.new_traces()
    for i, (prompt, arguments, _) in enumerate(requests):
        drive.add(f"stay-{i}", prompt, arguments)
        drive.add(f"go-{i}", prompt, slow)
    for _ in range(5):
        drive.step()
    drive.core.abort_request([f"go-{i}" for i in range(8)])
    assert llada.check_integrity() <= 8, "what is aborted is gone at once"
    drive.run_out()
    for i, (_, arguments, want) in enumerate(requests):
        assert drive.finished[f"stay-{i}"] == want, arguments
    assert not any(name.startswith("go-") for name in drive.finished)
    traces = {name: trace for name, trace in llada.new_traces().items() if name.startswith("go-")}
    assert len(traces) == 8
    for trace in traces.values():
        assert trace["finish_reason"] == "abort" and MASK in trace["output_ids"]


def test_abort_of_all(llada):
    drive = Drive(llada)
    for i, prompt in enumerate(task_prompts(20, seed=4)):  # more than run at once
        drive.add(f"all-{i}", prompt, dict(max_tokens=128, dllm_steps=128, dllm_block_length=128, ignore_eos=True))
    drive.step()
    drive.core.abort_request([f"all-{i}" for i in range(20)])
    llada.check_idle()


# ---- little room ----


def test_requests_wait_for_pages_and_none_is_preempted(small):
    """Sixteen pages: four canvases of 128 tokens at once, and two full passes in a step's budget of 256."""
    prompts = [as_prompt(head("sum 1 2 3 4 5 6 7 8") + [9] * 30) for _ in range(3)] + task_prompts(11, seed=5)
    requests = [
        params(
            128 - len(prompt["prompt_token_ids"]) if i % 3 else 32,
            ignore_eos=i % 2 == 0,
            seed=i,
            temperature=0.5 * (i % 4 == 1),
            **({"dllm_threshold": 0.9} if i % 2 else {"dllm_tokens_per_step": 2}),
            dllm_block_length=16,
        )
        for i, prompt in enumerate(prompts)
    ]
    alone = [small.run([prompt], [request])[0] for prompt, request in zip(prompts, requests, strict=True)]
    together = small.run(prompts, requests)
    for (output, trace), (output_alone, trace_alone) in zip(together, alone, strict=True):
        assert token_ids(output) == token_ids(output_alone)
        assert trace["query_tokens"] == trace_alone["query_tokens"], "no pass was computed twice"
        assert trace["unmasked"] == trace_alone["unmasked"]


def test_waiting_requests_can_be_aborted(small):
    drive = Drive(small)
    slow = dict(max_tokens=200, dllm_tokens_per_step=1, ignore_eos=True)  # seven pages of sixteen
    for i in range(6):
        drive.add(f"wait-{i}", as_prompt(head("echo abc")), slow)
    drive.step()
    drive.core.abort_request(["wait-5", "wait-1"])
    assert small.check_integrity() == 4
    drive.run_out()
    assert set(drive.finished) == {f"wait-{i}" for i in (0, 2, 3, 4)}
    assert len({tuple(tokens) for tokens in drive.finished.values()}) == 1


def test_a_request_that_fills_the_model_length(small):
    prompt = as_prompt(head("echo abc"))
    length = 256 - len(prompt["prompt_token_ids"])
    (output,) = small.generate([prompt], params(length, ignore_eos=True))
    assert len(token_ids(output)) == length


# ---- prompts with the mask token ----


def test_a_mask_token_in_the_prompt_is_kept(llada, plain_llada):
    ids = head("echo abc")[:-1] + [MASK, MASK, MASK] + head("echo abc")[-1:]
    others = [(p, dict(max_tokens=48)) for p in task_prompts(4, seed=6)]
    rows = [(as_prompt(ids), dict(max_tokens=40, dllm_threshold=0.9, dllm_block_length=16, ignore_eos=True)), *others]
    (output, trace), *_ = llada.run([p for p, _ in rows], [params(**a) for _, a in rows])
    assert output.prompt_token_ids == ids and len(token_ids(output)) == 40 and MASK not in token_ids(output)
    assert sorted(i for part in trace["unmasked"] for i in part) == list(range(40))
    plain_llada.check_threshold(ids, trace, block=16, threshold=0.9)


def test_the_mask_tokens_text_in_a_prompt(llada, plain_llada):
    ((output, trace),) = llada.run(["<|user|>echo <|mdm_mask|>b<|assistant|>"], params(32, dllm_threshold=0.9))
    ids = list(output.prompt_token_ids)
    assert ids.count(MASK) == 1 and trace["prompt_len"] == len(ids)
    plain_llada.check_threshold(ids, trace, block=32, threshold=0.9)


# ---- where an answer ends ----


def test_eos_ends_an_answer_before_later_positions(llada):
    prompt, arguments = as_prompt(head("echo abc")), dict(max_tokens=128, dllm_block_length=16)
    (short, short_trace), (whole, whole_trace) = llada.run(
        [prompt] * 2, [params(**arguments), params(**arguments, ignore_eos=True)]
    )
    assert short.outputs[0].text == "abc" and short.outputs[0].finish_reason == "stop"
    assert short.outputs[0].stop_reason is None and token_ids(short)[-1] == EOS
    assert token_ids(short) == token_ids(whole)[: len(token_ids(short))]
    assert whole.outputs[0].finish_reason == "length" and len(token_ids(whole)) == 128
    assert len(short_trace["query_tokens"]) < len(whole_trace["query_tokens"])
    assert set(short_trace["output_ids"][16:]) == {MASK}, "no later block was begun"


def test_eos_does_not_end_an_answer_before_earlier_positions(llada):
    """An EOS is the end only once everything before it is there."""
    for output in llada.generate(task_prompts(16, seed=7), params(96, dllm_tokens_per_step=1, dllm_block_length=96)):
        tokens = token_ids(output)
        assert MASK not in tokens and EOS not in tokens[:-1]


@pytest.mark.parametrize("keep", [False, True])
def test_stop_strings(llada, keep):
    prompts = [as_prompt(head(text)) for text in ("count 1 by 1 x9", "echo abcdefgh", "sum 1 2 3")]
    outputs = llada.generate(prompts, params(64, stop=["4 5", "def", "nowhere"], include_stop_str_in_output=keep))
    assert [o.outputs[0].text for o in outputs] == (
        ["1 2 3 4 5", "abcdef", "1 3 6"] if keep else ["1 2 3 ", "abc", "1 3 6"]
    )
    assert [o.outputs[0].finish_reason for o in outputs] == ["stop"] * 3
    assert [o.outputs[0].stop_reason for o in outputs] == ["4 5", "def", None]


def test_stop_token_ids(llada):
    c, f = head("cf")[2:4]
    (output,) = llada.generate([as_prompt(head("echo abcdefgh"))], params(64, stop_token_ids=[f, c]))
    assert output.outputs[0].stop_reason == c and output.outputs[0].finish_reason == "stop"
    assert token_ids(output)[-1] == c and len(token_ids(output)) == 3


# ---- lengths ----


def test_lengths(llada, plain_llada):
    """One token; less than a block; no whole number of blocks; exactly a page and one more."""
    prompt = head("count 3 by 4 x12")
    lengths = [1, 2, 15, 17, 40, 32 - len(prompt), 33 - len(prompt), 64, 101]
    kinds = [params(n, ignore_eos=True, dllm_block_length=16, dllm_threshold=0.9) for n in lengths]
    for n, (output, trace) in zip(lengths, llada.run([as_prompt(prompt)] * len(lengths), kinds), strict=True):
        assert len(token_ids(output)) == n and output.outputs[0].finish_reason == "length"
        assert set(trace["query_tokens"]) == {len(prompt) + n}
        plain_llada.check_threshold(prompt, trace, block=16, threshold=0.9)


def test_dream_lengths(dream, plain_dream):
    prompt = head("count 3 by 4 x12")
    kinds = [params(n, ignore_eos=True, dllm_block_length=16, dllm_threshold=0.9) for n in (1, 17, 40)]
    for _, trace in dream.run([as_prompt(prompt)] * 3, kinds):
        plain_dream.check_threshold(prompt, trace, block=16, threshold=0.9)


def test_without_a_length(llada, small):
    prompts = task_prompts(3, seed=8)
    for engine, length in ((llada, 256), (small, 48)):
        for no_length in (None, params(None)):
            for output, trace in engine.run(prompts, no_length):
                assert trace["gen_length"] == length
                assert output.outputs[0].finish_reason == "stop"
    ((_, trace),) = small.run([as_prompt([9] * 240)], params(None))
    assert trace["gen_length"] == 16, "the room that is left"


def test_without_params_decoding_is_greedy(llada):
    prompts = task_prompts(6, seed=9)
    want = [token_ids(o) for o in llada.generate(prompts, params(256))]
    for _ in range(2):
        assert [token_ids(o) for o in llada.generate(prompts, None)] == want


def test_the_servers_settings_and_a_requests(small):
    prompts = [as_prompt(head("count 2 by 2 x8"))] * 3
    requests = [
        params(48, ignore_eos=True),
        params(48, ignore_eos=True, dllm_tokens_per_step=4),
        params(48, ignore_eos=True, dllm_block_length=48, dllm_steps=6),
    ]
    traces = [trace for _, trace in small.run(prompts, requests)]
    assert [list(map(len, t["unmasked"])) for t in traces] == [[2] * 24, [4] * 12, [8] * 6]
    first = sorted(sum(traces[0]["unmasked"][:8], []))
    assert first == list(range(16)), "blocks of 16"


# ---- what comes back ----


def test_usage_counts(llada):
    prompts = task_prompts(4, seed=10)
    for prompt, output in zip(prompts, llada.generate(prompts, params(64)), strict=True):
        assert list(output.prompt_token_ids) == prompt["prompt_token_ids"]
        assert not output.num_cached_tokens and output.finished


def test_chat(llada, dream):
    texts = ["echo abcde", "sum 3 1 2", "calc 4+5"]
    conversations = [[{"role": "user", "content": text}] for text in texts]
    for engine in (llada, dream):
        outputs = engine.llm.chat(conversations, params(64), use_tqdm=False)
        engine.check_idle()
        same = engine.generate([as_prompt(head(text)) for text in texts], params(64))
        for a, b in zip(outputs, same, strict=True):
            assert a.prompt_token_ids == b.prompt_token_ids and a.outputs[0].text == b.outputs[0].text
        assert outputs[0].outputs[0].text == "abcde"


def test_the_progress_bar(llada, capsys):
    llada.llm.generate(task_prompts(3, seed=11), params(32), use_tqdm=True)
    assert "3/3" in capsys.readouterr().err


def test_a_mix_of_everything(llada):
    """Finished, stopped, aborted, drawn, waiting: after each round nothing is left."""
    rng = random.Random(12)
    for round_ in range(3):
        drive = Drive(llada)
        for i, prompt in enumerate(task_prompts(30, seed=100 + round_)):
            drive.add(
                f"mix-{round_}-{i}",
                prompt,
                dict(
                    max_tokens=rng.choice([1, 5, 31, 32, 33, 64, 150]),
                    temperature=rng.choice([0.0, 0.0, 0.7, 1.5]),
                    seed=rng.choice([None, 1, 2]),
                    stop=rng.choice([None, ["1"], [" 2"]]),
                    ignore_eos=rng.random() < 0.3,
                    logprobs=rng.choice([None, None, 0, 3]),
                    dllm_block_length=rng.choice([4, 16, 32, 512]),
                    **rng.choice([{}, {"dllm_tokens_per_step": 1}, {"dllm_factor": 1.0}, {"dllm_entropy_bound": 0.1}]),
                ),
            )
            if rng.random() < 0.5:
                drive.step()
            if rng.random() < 0.2 and (open_ := [n for n in drive.ids if n not in drive.finished]):
                drive.core.abort_request([rng.choice(open_)])
        drive.run_out()
