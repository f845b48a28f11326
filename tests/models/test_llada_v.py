"""LLaDA-V's images and prompts: the layers and vLLM's processor against a plain statement and the authors' own numbers."""

import pytest
import torch
from common import CHECKPOINTS, GOLDEN, golden
from loaded import Loaded, engine_config
from PIL import Image
from safetensors.torch import load_file, save_file
from vision import PlainVision
from vllm.config import set_current_vllm_config
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_dllm.engine_config import server_settings
from vllm_dllm.models.llada_v import LLADA_V
from vllm_dllm.models.llada_v.chat import SYSTEM, conversation
from vllm_dllm.models.llada_v.config import LLaDAVConfig
from vllm_dllm.models.llada_v.layout import layout, most_positions
from vllm_dllm.options import SettingError

CHECKPOINT = CHECKPOINTS / "tiny-llada-v"
CASES = golden("tiny-llada-v", "llada")
PLACEHOLDER = 3
RELEASED = {"resolutions": [[384 * w, 384 * h] for w in range(1, 7) for h in range(1, 7)], "tile": 384, "of_tile": 27}


def image(name: str) -> Image.Image:
    return Image.open(GOLDEN / "images" / name)


@pytest.fixture(scope="module")
def plain() -> PlainVision:
    return PlainVision(CHECKPOINT)


@pytest.fixture(scope="module")
def loaded(world) -> Loaded:
    return Loaded(CHECKPOINT, max_model_len=512)


@pytest.fixture(scope="module")
def processor(loaded):
    return MULTIMODAL_REGISTRY.create_processor(loaded.config.model_config)


def processed(processor, prompt: str, images: list[Image.Image]):
    return processor(prompt, mm_items=processor.info.parse_mm_data({"image": images} if images else {}))


def items(result) -> list[dict[str, torch.Tensor]]:
    return [item.get_data() for item in result["mm_kwargs"]["image"]]


def embedded(loaded: Loaded, result) -> list[torch.Tensor]:
    with set_current_vllm_config(loaded.config), torch.inference_mode():
        return [loaded.runner.images._embed(item) for item in result["mm_kwargs"]["image"]]


# ---- pixels and features ----


@pytest.mark.parametrize("size", [(3, 2), (2, 3), (56, 56), (57, 56), (400, 30), (27, 310), (640, 480), (333, 3)])
def test_tiles_are_the_plain_ones_bit_for_bit(processor, plain, size):
    random = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.manual_seed(0), dtype=torch.uint8)
    picture = Image.fromarray(random.numpy())
    (item,) = items(processed(processor, "<image>", [picture]))
    assert torch.equal(item["pixel_values"], plain.tiles(picture))
    assert item["image_sizes"].tolist() == [size[1], size[0]]


@pytest.mark.parametrize("name", sorted({name for case in CASES for name in case["images"]}))
def test_embeddings_are_the_plain_ones(loaded, processor, plain, name):
    (got,) = embedded(loaded, processed(processor, "<image>", [image(name)]))
    torch.testing.assert_close(got, plain.embeddings(image(name)), atol=5e-4, rtol=0)


def test_of_a_strip_the_squeezed_whole_is_all(loaded, processor, plain):
    strip = image("wide.png").resize((2000, 3))
    (got,) = embedded(loaded, processed(processor, "<image>", [strip]))
    assert got.shape == (16, 128)
    torch.testing.assert_close(got, plain.embeddings(strip), atol=5e-4, rtol=0)


def test_an_image_is_embedded_the_same_beside_others(loaded, processor):
    names = ["photo.png", "wee.png", "wide.png"]
    together = embedded(loaded, processed(processor, "<image>" * 3, [image(name) for name in names]))
    alone = [embedded(loaded, processed(processor, "<image>", [image(name)]))[0] for name in names]
    assert all(map(torch.equal, together, alone))


# ---- prompts ----


@pytest.mark.parametrize("case", CASES, ids=lambda case: "+".join(case["images"]) or "text")
def test_a_prompt_and_its_images_are_those_of_the_authors_code(loaded, processor, case):
    """Tokens, where the images stand, how many positions they take, pixels and embeddings as far as the file has them."""
    if not case["images"]:
        assert loaded.config.model_config.get_vocab_size() > max(case["prompt_ids"])
        return
    result = processed(processor, case["prompt"], [image(name) for name in case["images"]])
    spans = {span["placeholder_index"]: span for span in case["image_spans"]}
    want = []
    for i, token in enumerate(case["prompt_ids"]):
        want += [PLACEHOLDER] * spans[i]["tokens"] if token == -200 else [token]
    assert result["prompt_token_ids"] == want
    assert len(want) == case["prompt_length"]
    places = result["mm_placeholders"]["image"]
    assert [(p.offset, p.length) for p in places] == [(s["start"], s["tokens"]) for s in spans.values()]
    for item, embeddings, span in zip(items(result), embedded(loaded, result), spans.values(), strict=True):
        pixels = item["pixel_values"]
        assert list(pixels.shape) == span["pixels"]["shape"]
        assert float(pixels.mean()) == pytest.approx(span["pixels"]["mean"], abs=1e-4)
        for tile, centre in zip(pixels, span["pixels"]["centres"], strict=False):
            assert tile[:, 28, 28].tolist() == pytest.approx(centre, abs=1e-4)
        for position, expected in span["embeds"].items():
            row = embeddings[int(position) - span["start"]]
            assert float(row.mean()) == pytest.approx(expected["mean"], abs=1e-3)
            assert row[:4].tolist() == pytest.approx(expected["first"], abs=1e-3)


def test_text_that_spells_the_placeholder_is_no_image(processor):
    result = processed(processor, "<|reserved_token_0|><image>\nWhich<|reserved_token_0|>", [image("wee.png")])
    (place,) = result["mm_placeholders"]["image"]
    ids = result["prompt_token_ids"]
    assert place.offset == 1 and ids[0] == ids[-1] == PLACEHOLDER


def test_token_ids_may_have_the_placeholder_once_for_each_image(processor):
    ids = [2, 91, PLACEHOLDER, 92]
    result = processed(processor, ids, [image("wee.png")])
    (place,) = result["mm_placeholders"]["image"]
    assert result["prompt_token_ids"] == [*ids[:2], *[PLACEHOLDER] * place.length, 92]


# ---- how many positions ----


def test_the_released_tower_takes_as_many_positions_as_its_authors_code():
    assert layout(738, 820, most=4, **RELEASED).positions == 3974  # not rounded: vLLM's own count is 4084
    assert most_positions(most=4, **RELEASED) >= layout(672, 1344, most=4, **RELEASED).positions


def test_no_image_takes_more_positions_than_is_said():
    most = most_positions(most=4, **RELEASED)
    random = torch.randint(2, 4000, (2000, 2), generator=torch.manual_seed(0)).tolist()
    assert max(layout(w, h, most=4, **RELEASED).positions for w, h in random) <= most <= 729 * 6


# ---- the checkpoint ----


def test_defaults_are_the_released_checkpoints():
    config = LLaDAVConfig(vocab_size=126464)
    assert LLADA_V.mask_token_id == 126336
    tower = config.vision_config
    assert config.tower_layers == 26
    assert (tower.hidden_size, tower.intermediate_size, tower.num_attention_heads) == (1152, 4304, 16)
    assert (tower.image_size, tower.patch_size, tower.hidden_act) == (384, 14, "gelu_pytorch_tanh")
    assert config.image_grid_pinpoints == RELEASED["resolutions"]


@pytest.mark.usefixtures("world")
def test_what_of_the_tower_is_not_read_may_be_there_or_not(tmp_path):
    """The last layer, the norm behind it and the head; but not another layer less."""
    weights = load_file(CHECKPOINT / "model.safetensors")
    tower = "model.vision_tower.vision_tower.vision_model."
    last = {
        k.replace("layers.1", "layers.2"): v.clone() for k, v in weights.items() if f"{tower}encoder.layers.1." in k
    }
    save(tmp_path / "more", weights | last | {f"{tower}head.probe": torch.zeros(1, 1, 64)})
    Loaded(tmp_path / "more")
    save(tmp_path / "less", {k: v for k, v in weights.items() if "post_layernorm" not in k})
    Loaded(tmp_path / "less")
    save(tmp_path / "broken", {k: v for k, v in weights.items() if f"{tower}encoder.layers.1." not in k})
    with pytest.raises(ValueError, match="lacks weights for vision_tower"):
        Loaded(tmp_path / "broken")


def save(path, weights) -> None:
    path.mkdir()
    for file in CHECKPOINT.iterdir():
        if file.suffix != ".safetensors":
            (path / file.name).write_bytes(file.read_bytes())
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    "option, said",
    [
        ({"mm_projector_type": "linear"}, "mm_projector_type='linear'"),
        ({"mm_patch_merge_type": "flat"}, "mm_patch_merge_type='flat'"),
        ({"image_aspect_ratio": "pad"}, "anyres_max_ with a number"),
        ({"image_grid_pinpoints": [[56, 57]]}, "multiples of 56"),
        ({"image_grid_pinpoints": "(1x1),...,(6x6)"}, r"a list of \[width, height\]"),
        ({"mm_vision_select_layer": -9}, "mm_vision_select_layer=-9"),
        ({"mm_hidden_size": 32}, "mm_hidden_size=32"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rope"),
    ],
)
def test_what_the_layers_do_not_do_is_refused_by_name(option, said):
    with pytest.raises(Exception, match=said):
        engine_config(CHECKPOINT, hf_overrides=option)


# ---- chats ----


def picture(n: int) -> dict:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{n}"}}


def said(*parts) -> str:
    """The text that a user's message with these parts becomes; a number is an image."""
    content = [picture(p) if isinstance(p, int) else {"type": "text", "text": p} for p in parts]
    system, user = conversation([{"role": "user", "content": content}])
    assert system == {"role": "system", "content": SYSTEM}
    *images, text = user["content"]
    assert images == [picture(p) for p in parts if isinstance(p, int)]
    return text["text"]


def test_images_stand_where_the_client_has_them():
    assert said(1, "Which colours?") == "<image>\nWhich colours?"
    assert said("Which colours?", 1) == "Which colours?\n<image>"
    assert said("Look: ", 1, " Describe it.") == "Look: <image> Describe it."
    assert said(1, 2, "Compare.") == "<image>\n<image>\nCompare."
    assert said(1, "and", 2, "\nCompare.") == "<image>\nand\n<image>\nCompare."
    assert said(1, "Look: <image> What?") == "Look: <image> What?"


def test_the_system_text_is_for_chats_without_one():
    user, own = {"role": "user", "content": "hello"}, {"role": "system", "content": "Be brief."}
    assert conversation([user]) == [{"role": "system", "content": SYSTEM}, user]
    assert conversation([own, user]) == [own, user]
    assert conversation([{"role": "user", "content": [{"type": "video_url"}]}])[1]["content"] == [{"type": "video_url"}]
    assert all(case["system"] == SYSTEM for case in CASES)


def test_text_that_places_another_number_of_images_is_refused():
    with pytest.raises(SettingError, match="2 images whose text says <image> 1 times"):
        said(1, 2, "<image> What?")


def test_fixed_steps_rank_by_confidences_in_float64_as_the_authors_loop_does():
    """Golden case 4 has end tokens that float32 does not tell apart, and takes another pass there."""
    config = engine_config(CHECKPOINT, additional_config={"dllm_steps": 16})
    assert server_settings(config).defaults.score == "confidence64"
    assert server_settings(config).of_request({"dllm_threshold": 0.9}).score == "confidence"
