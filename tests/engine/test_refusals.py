"""What cannot be given is refused where it arrives: an exception that names setting, value and what is allowed."""

import math

import pytest
from common import CHECKPOINTS, ENGINE, EOS, MASK, golden
from prompts import as_prompt, head, params, task_prompts, token_ids
from settings import settings
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.lora.request import LoRARequest
from vllm.sampling_params import BeamSearchParams, StructuredOutputsParams

from vllm_dllm.vllm_messages import LOOKS

PROMPT = as_prompt(head("echo abc"))

# (arguments of SamplingParams, what the message must name: parameter, value, what is allowed)
PARAMETERS = [
    (dict(structured_outputs=StructuredOutputsParams(grammar="x")), ["structured_outputs.grammar='x'", "regular"]),
    (dict(repetition_penalty=1e-40), ["repetition_penalty=1e-40", "from 1e-30 to 1e+30"]),
    (dict(logit_bias={5: float("inf")}), ["logit_bias with inf for token 5", "a finite number"]),
    (dict(logit_bias={128: 1.0}), ["logit_bias", "128"]),
    (dict(allowed_token_ids=[]), ["allowed_token_ids"]),
    (dict(allowed_token_ids=[5, 128]), ["allowed_token_ids", "[128]"]),
    (dict(allowed_token_ids=[MASK]), ["allowed_token_ids bar every token at position 0", "besides the mask token"]),
    (dict(allowed_token_ids=[EOS], min_tokens=1), ["allowed_token_ids and min_tokens bar every token"]),
    (dict(allowed_token_ids=[25], bad_words=["1"]), ["allowed_token_ids and bad_words bar every token"]),
    (dict(thinking_token_budget=5), ["thinking_token_budget"]),
    (dict(logprobs=100), ["100", "20"]),
]

# (dllm_* settings of a request, what the message must name)
SETTINGS = [
    ({"dllm_cache": "best"}, ["dllm_cache='best'", "none"]),
    ({"dllm_cahce": "none"}, ["dllm_cahce='none' is not a setting", "dllm_cache"]),
    ({"dllm_threshold": 1.5}, ["dllm_threshold=1.5", "from 0 to 1"]),
    ({"dllm_threshold": math.nan}, ["dllm_threshold=nan", "from 0 to 1"]),
    ({"dllm_threshold": "0.9"}, ["dllm_threshold='0.9'", "a number"]),
    ({"dllm_threshold": True}, ["dllm_threshold=True", "a number"]),
    ({"dllm_factor": math.inf}, ["dllm_factor=inf", "a number"]),
    ({"dllm_entropy_bound": -0.1}, ["dllm_entropy_bound=-0.1", "at least 0"]),
    ({"dllm_block_length": 0}, ["dllm_block_length=0", "at least 1"]),
    ({"dllm_block_length": 8.0}, ["dllm_block_length=8.0", "whole number"]),
    ({"dllm_tokens_per_step": -1}, ["dllm_tokens_per_step=-1", "at least 1"]),
    ({"dllm_steps": 0}, ["dllm_steps=0", "at least 1"]),
    ({"dllm_steps": 3, "dllm_block_length": 16}, ["dllm_steps=3", "multiple of the number of blocks (4,"]),
    ({"dllm_steps": 128}, ["dllm_steps=128", "at most 64"]),
    ({"dllm_steps": 4, "dllm_threshold": 0.9}, ["dllm_steps=4", "dllm_threshold=0.9", "at most one of"]),
    ({"dllm_score": "origin"}, ["dllm_score='origin'", "confidence"]),
    ({"dllm_score": "entropy"}, ["dllm_score='entropy'", "confidence, margin"]),
    ({"dllm_scores": [0.5] * 64}, ["dllm_scores=", "is not read by"]),
    ({"dllm_steps": 4, "dllm_score": "random", "dllm_scores": [0.5]}, ["dllm_scores", "1 numbers", "64"]),
    ({"dllm_alg_temp": 0.5}, ["dllm_alg_temp=0.5", "is not read by"]),
    ({"dllm_certainty_sigma": 0}, ["dllm_certainty_sigma=0", "a number"]),
    ({"dllm_tau": 0.5}, ["dllm_tau=0.5", "is not read by dllm_cache=none"]),
    ({"dllm_gen_length": 64}, ["dllm_gen_length=64", "the server's setting"]),
    ({"dllm_trace": "/tmp/trace"}, ["dllm_trace='/tmp/trace'", "the server's setting"]),
]


def refusal(call, *arguments, **keywords) -> str:
    with pytest.raises((VLLMValidationError, ValueError)) as refused:
        call(*arguments, **keywords)
    return str(refused.value)


def check(message: str, names: list[str]) -> None:
    for name in names:
        assert name in message


@pytest.mark.parametrize(("arguments", "names"), PARAMETERS, ids=[next(iter(a)) for a, _ in PARAMETERS])
def test_parameters(llada, arguments, names):
    check(refusal(llada.generate, [PROMPT], SamplingParams(max_tokens=64, **arguments)), names)
    llada.check_idle()


@pytest.mark.parametrize(
    ("own", "names"), SETTINGS, ids=[" ".join(f"{k}={v}"[:40] for k, v in s.items()) for s, _ in SETTINGS]
)
def test_settings(llada, own, names):
    check(refusal(llada.generate, [PROMPT], params(64, **own)), names)
    llada.check_idle()


def test_elastic_without_its_cache(small):
    message = refusal(small.generate, [PROMPT], params(64, dllm_cache="elastic"))
    check(message, ["dllm_cache='elastic'", "--dllm-cache elastic", "--dllm-hidden-cache"])
    small.check_idle()


def test_policies_that_look_where_keys_cannot_be_read(llada, monkeypatch):
    """The engine is a good one; only what its worker reported at start is another."""
    core = llada.llm.llm_engine
    assert LOOKS in core.get_supported_tasks()
    monkeypatch.setattr(core, "_supported_tasks", ("generate",))
    for name in ("elastic", "d2"):
        message = refusal(llada.generate, [PROMPT], params(32, dllm_cache=name))
        check(message, [f"dllm_cache='{name}' is not allowed", "attention backend", "none, prefix, dual"])
    (output,) = llada.generate([PROMPT], params(32, dllm_cache="dual"))
    assert output.outputs[0].text == "abc"
    llada.check_idle()


def test_harmless_values_are_no_refusal(llada):
    harmless = dict(
        presence_penalty=0.0, repetition_penalty=1.0, min_p=0.0, min_tokens=0, bad_words=[], logit_bias=None
    )
    (output,) = llada.generate([PROMPT], params(32, **harmless))
    assert output.outputs[0].text == "abc"


def test_prompt_and_response_over_the_models_length(llada):
    long = as_prompt([9] * 500)
    message = refusal(llada.generate, [long], params(13))
    check(message, ["max_tokens=13", "500", "513", "512", "max_model_len"])
    (output,) = llada.generate([long], params(12, ignore_eos=True))
    assert len(token_ids(output)) == 12
    check(refusal(llada.generate, [as_prompt([9] * 512)], params(None)), ["512"])
    check(refusal(llada.generate, [as_prompt([9] * 600)], params(1)), ["512"])
    llada.check_idle()


@pytest.mark.parametrize("prompt", [[], [-1], [128], [5, 10**9], [5, 2**31], [5, 2**64]], ids=str)
def test_prompts_that_are_none(llada, prompt):
    """No token, and ids that the model has no embedding for."""
    message = refusal(llada.generate, [as_prompt(prompt)], params(8))
    assert not prompt or f"prompt[{len(prompt) - 1}]={prompt[-1]} is not allowed" in message
    (output,) = llada.generate([PROMPT], params(32))
    assert output.outputs[0].text == "abc"


def test_prompt_embeddings(llada):
    import torch

    refusal(llada.generate, [{"prompt_embeds": torch.zeros(4, 128)}], params(8))
    llada.check_idle()


def test_beam_search(llada):
    message = refusal(llada.llm.beam_search, [PROMPT], BeamSearchParams(beam_width=2, max_tokens=8))
    check(message, ["use_beam_search=True", "must be False"])
    llada.check_idle()


def test_pooling(llada):
    for call in (llada.llm.embed, llada.llm.classify):
        refusal(call, [PROMPT])
    llada.check_idle()


def test_lora(llada):
    message = refusal(
        llada.llm.generate, [PROMPT], params(8), lora_request=LoRARequest("adapter", 1, "/nowhere"), use_tqdm=False
    )
    assert "LoRA" in message
    llada.check_idle()


def test_other_requests_are_untouched(llada):
    """Refusals arrive between the passes of requests that go on."""
    cases = golden("tiny-llada", "llada")[:12]
    core, finished = llada.llm.llm_engine, {}
    wrong = [SamplingParams(max_tokens=64, **a) for a, _ in PARAMETERS] + [params(64, **s) for s, _ in SETTINGS]
    for i, case in enumerate(cases):
        request = params(case["gen_length"], ignore_eos=True, **settings(case))
        core.add_request(f"good-{i}", as_prompt(case["prompt_ids"]), request)
    while core.has_unfinished_requests():
        if wrong:
            refusal(core.add_request, f"bad-{len(wrong)}", PROMPT, wrong.pop())
            llada.check_integrity()
        finished |= {o.request_id: token_ids(o) for o in core.step() if o.finished}
    assert not wrong and finished == {f"good-{i}": case["output_ids"] for i, case in enumerate(cases)}
    llada.check_idle()


def test_one_bad_request_of_a_list_leaves_nothing_behind(llada):
    prompts = task_prompts(5, seed=1)
    kinds = [params(64)] * 3 + [params(64, dllm_steps=7, dllm_block_length=16)] + [params(64)]
    check(refusal(llada.generate, prompts, kinds), ["dllm_steps=7"])
    llada.check_idle()
    assert all(o.finished for o in llada.generate(prompts, params(64)))


# ---- at start ----


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (dict(enable_lora=True), ["enable_lora=True", "False"]),
        (dict(speculative_config={"method": "ngram", "num_speculative_tokens": 2}), ["speculative_config=", "None"]),
        (dict(pipeline_parallel_size=2, distributed_executor_backend="mp"), ["pipeline_parallel_size=2", "1"]),
        (dict(logprobs_mode="processed_logprobs"), ["logprobs_mode='processed_logprobs'", "raw_logprobs"]),
        (dict(additional_config={"dllm_cache": "best"}), ["dllm_cache='best'", "none"]),
        (dict(additional_config={"dllm_blocklength": 8}), ["dllm_blocklength=8 is not a setting", "dllm_block_length"]),
        (dict(additional_config={"dllm_gen_length": 0}), ["dllm_gen_length=0", "at least 1"]),
        (dict(additional_config={"dllm_steps": 4, "dllm_factor": 1.0}), ["dllm_steps=4", "dllm_factor=1.0"]),
        (dict(additional_config={"dllm_tau": 0.5}), ["dllm_tau=0.5", "is not read by"]),
        (dict(additional_config={"dllm_trace": 5}), ["dllm_trace=5", "a text"]),
    ],
    ids=lambda a: next(iter(a)) if isinstance(a, dict) else None,
)
def test_an_engine_that_cannot_be(arguments, names):
    """Refused before any process is started."""
    from vllm.engine.arg_utils import EngineArgs

    engine = {k: v for k, v in ENGINE.items() if k != "kv_cache_memory_bytes"}
    check(refusal(EngineArgs(str(CHECKPOINTS / "tiny-llada"), **(engine | arguments)).create_engine_config), names)


def test_settings_for_another_kind_of_model(tmp_path):
    """`dllm_*` settings beside a model that knows none are a mistake to tell."""
    from transformers import LlamaConfig
    from vllm.engine.arg_utils import EngineArgs

    LlamaConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1, vocab_size=128,
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(tmp_path)  # fmt: skip
    arguments = EngineArgs(str(tmp_path), skip_tokenizer_init=True, additional_config={"dllm_cache": "none"})
    check(refusal(arguments.create_engine_config), ["dllm_cache='none'", "no diffusion model"])


def test_the_mask_token_is_never_an_answer(llada):
    for output in llada.generate(task_prompts(8, seed=3), params(48, temperature=2.0, ignore_eos=True)):
        assert MASK not in token_ids(output)
