"""LLaDA-V in a real engine: the authors' answers, every policy, and the images' embeddings as long as they are needed."""

import random
from collections.abc import Iterator
from contextlib import closing

import pytest
from common import GOLDEN, Engine
from golden_cases import Case, cases, differences, sample
from PIL import Image
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError

from vllm_dllm.caching.registry import FULL
from vllm_dllm.models.llada_v.chat import SYSTEM

# chats of the golden file whose text is one turn behind one image
PLAIN = [c for c in cases("tiny-llada-v") if len(c.case["images"]) == 1 and len(c.case["turns"]) == 1]


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Iterator[Engine]:
    hidden = {"dllm_hidden_cache": True}
    trace = tmp_path_factory.mktemp("images") / "trace.jsonl"
    with closing(Engine("tiny-llada-v", trace, additional_config=hidden)) as engine:
        yield engine


def test_golden_answers_together(engine, sampling):
    """Every kind of case in one go, 16 running at any time, with images and without."""
    batch = sample("tiny-llada-v", sampling, 0.7)
    random.Random(sampling.seed).shuffle(batch)
    sampling.check(differences(engine, batch))


def test_golden_answers_alone(engine, sampling):
    batch = sample("tiny-llada-v", sampling, 0.15)
    sampling.check([difference for case in batch for difference in differences(engine, [case])])


def request(name: str, text: str = "Which colours?") -> dict:
    prompt = (
        f"<|startoftext|><|start_header_id|>system<|end_header_id|>\n\n{SYSTEM}<|eot_id|><|start_header_id|>user"
        f"<|end_header_id|>\n\n<image>\n{text}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    return {"prompt": prompt, "multi_modal_data": {"image": Image.open(GOLDEN / "images" / name)}}


def params(**settings) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=24, extra_args={"dllm_block_length": 8} | settings)


def kinds() -> list[SamplingParams]:
    """Every policy that LLaDA has, and guidance, whose second canvas has no images."""
    settings = [{"dllm_cache": name} | policy.example for name, policy in FULL.items()]
    windows = {name for name, policy in FULL.items() if policy.window_length is not None}
    found = []
    for own in settings:
        block = {} if own["dllm_cache"] in windows else {"dllm_block_length": 8}
        found.append(SamplingParams(temperature=0, max_tokens=24, seed=0, extra_args=block | own))
    return [*found, params(dllm_cfg_scale=1.0), params(dllm_cache="dual", dllm_cfg_scale=0.5)]


def test_every_policy_sees_the_image_alone_and_beside_others(engine):
    """A request of each policy for two images, all at once: as alone. And the image is looked at: another one gives
    other answers."""
    asked = [(name, own) for own in kinds() for name in ("square.png", "pair.png")]
    together = engine.generate([request(name) for name, _ in asked], [own for _, own in asked])
    alone = [engine.generate([request(name)], [own])[0] for name, own in asked]
    ids = [list(output.outputs[0].token_ids) for output in together]
    assert ids == [list(output.outputs[0].token_ids) for output in alone]
    assert sum(a != b for a, b in zip(ids[::2], ids[1::2], strict=True)) > len(ids) // 4


def test_full_passes_of_every_policy_have_the_image(engine):
    """With everything recomputed in each pass, a policy's answer is that of no cache."""
    plain, prefix = params(dllm_cache="none"), params(dllm_cache="prefix", dllm_refresh_interval=1)
    names = ["square.png", "pair.png", "photo.png"]
    outputs = engine.generate([request(name) for name in names] * 2, [plain] * 3 + [prefix] * 3)
    ids = [list(output.outputs[0].token_ids) for output in outputs]
    assert ids[:3] == ids[3:]


def test_a_chat_is_the_authors_conversation(engine):
    """Images as Pillow has them, wherever they stand; no system text is needed."""
    for case in random.Random(1).sample(PLAIN, 3):
        before, behind = case.case["turns"][0].split("<image>")
        parts = [{"type": "text", "text": before}] if before else []
        parts.append({"type": "image_pil", "image_pil": Image.open(GOLDEN / "images" / case.case["images"][0])})
        chat = [{"role": "user", "content": [*parts, {"type": "text", "text": behind.removeprefix("\n")}]}]
        (output,) = engine.llm.chat([chat], [case.params], use_tqdm=False)
        assert difference_of(case, output) is None


def difference_of(case: Case, output) -> str | None:
    want = case.case["prompt_length"], case.case["output_ids"]
    got = len(output.prompt_token_ids), list(output.outputs[0].token_ids)[: len(want[1])]
    return None if want == got else f"{got} instead of {want}"


def test_aborted_requests_leave_nothing_and_others_keep_their_image(engine):
    """Two requests with one image: the one goes on as if the other had not been."""
    core = engine.llm.llm_engine
    want = list(engine.generate([request("photo.png")], [params()])[0].outputs[0].token_ids)
    for name in ("goes", "stays"):
        core.add_request(name, request("photo.png"), params())
    core.step()
    core.abort_request(["goes"])
    got = []
    while core.has_unfinished_requests():
        got += [output for output in core.step() if output.finished]
    assert [(output.request_id, list(output.outputs[0].token_ids)) for output in got] == [("stays", want)]
    engine.check_idle()


def test_embeddings_are_made_again_where_the_worker_has_forgotten_them(engine):
    core = engine.llm.llm_engine
    want = list(engine.generate([request("photo.png")], [params()])[0].outputs[0].token_ids)
    core.add_request("runs", request("photo.png"), params())
    core.step()
    core.reset_encoder_cache()
    got = []
    while core.has_unfinished_requests():
        got += [list(output.outputs[0].token_ids) for output in core.step() if output.finished]
    assert got == [want]
    assert list(engine.generate([request("photo.png")], [params()])[0].outputs[0].token_ids) == want


def test_weights_that_change_make_other_embeddings(engine):
    """A running request's image is embedded anew with the weights that its passes have."""
    core = engine.llm.llm_engine
    want = list(engine.generate([request("photo.png")], [params()])[0].outputs[0].token_ids)
    core.add_request("runs", request("photo.png"), params())
    core.step()
    engine.llm.collective_rpc("reload_weights")
    got = []
    while core.has_unfinished_requests():
        got += [list(output.outputs[0].token_ids) for output in core.step() if output.finished]
    assert got == [want]


def test_special_tokens_that_the_authors_never_choose_are_not_chosen(engine):
    """Their logits are the highest of the checkpoint, on purpose; whatever the policy, none stands in an answer."""
    own = [SamplingParams(temperature=1.5, max_tokens=48, seed=i, ignore_eos=True) for i in range(8)]
    for output in engine.generate([request("square.png")] * 8, own):
        assert not {0, 2, 104, 105} & set(output.outputs[0].token_ids)


def test_bad_images_offline_raise(engine):
    for size in ((1, 1), (20000, 4)):
        prompt = request("wee.png") | {"multi_modal_data": {"image": Image.new("RGB", size)}}
        with pytest.raises(VLLMValidationError, match=f"an image of {size[0]} x {size[1]} pixels is not allowed"):
            engine.llm.generate([prompt], params(), use_tqdm=False)
    prompt = request("wee.png") | {"multi_modal_data": {"image": [Image.new("RGB", (9, 9))] * 2}}
    with pytest.raises(VLLMValidationError, match="stands 1 times is not allowed with 2 images"):
        engine.llm.generate([prompt], params(), use_tqdm=False)
    engine.check_idle()
