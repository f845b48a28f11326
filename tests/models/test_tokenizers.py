"""The official tokenizers load without remote code and encode as their own vocabulary says."""

import json
from pathlib import Path

import pytest
from common import CHECKPOINTS, EOS, MASK
from official import DREAM, LLADA
from served import text_prompt
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer
from vllm.tokenizers import get_tokenizer

import vllm_dllm
from vllm_dllm.models.dream.tokenizer import DreamTokenizer

# Qwen2's split into words, each digit alone
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DREAM_SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|beginoftext|>", "<|mask|>"]
LLADA_SPECIALS = ["<|startoftext|>", "<|endoftext|>", "[CLS]", "[gMASK]", "<|eot_id|>", "<|mdm_mask|>"]
TEXTS = [
    "def f(x): return  x\n\n",
    "It's 12345 WE'RE",
    "Größe e\u0301 caf\u00e9",  # a combining accent: NFC makes one letter of it
    "中文 日本語 🙂\r\n\t end   ",
    "<|im_start|>user\nhi<|im_end|>\n<|mask|><|mask|>  x<|endoftext|>",
    "<|startoftext|>hi<|mdm_mask|><|eot_id|>",
    " leading",
    "",
]


@pytest.fixture(scope="module", autouse=True)
def registered():
    vllm_dllm.register()


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    """A byte-level BPE of 600 tokens, as the official ones are built."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(WORDS), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    corpus = [p.read_text() for p in sorted(Path(vllm_dllm.__file__).parent.rglob("*.py"))] + TEXTS * 20
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    assert tokenizer.get_vocab_size() == 600
    return tokenizer


def added_tokens(specials: list[str]) -> dict[str, dict]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {str(600 + i): {"content": token} | flags for i, token in enumerate(specials)}


@pytest.fixture(scope="module")
def dream_dir(trained, tmp_path_factory) -> Path:
    """The files of Dream-org/Dream-v0-Instruct-7B: vocab.json, merges.txt, a class of its own, no tokenizer.json."""
    path = tmp_path_factory.mktemp("dream-tokenizer")
    trained.model.save(str(path))
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added_tokens(DREAM_SPECIALS),
        "additional_special_tokens": DREAM_SPECIALS[1:],
        "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        "bos_token": "<|beginoftext|>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|endoftext|>",
        "errors": "replace",
        "mask_token": "<|mask|>",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "DreamTokenizer",
        "unk_token": None,
    }
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    (path / "config.json").write_text(json.dumps(DREAM))
    return path


@pytest.mark.parametrize("trust", [False, True])
def test_dream_tokenizer_needs_no_remote_code(dream_dir, trust):
    """Even with trust_remote_code: there is no tokenization_dream.py here, and the authors' class is a slow one."""
    tokenizer = AutoTokenizer.from_pretrained(dream_dir, trust_remote_code=trust)
    assert isinstance(tokenizer, DreamTokenizer)
    served = get_tokenizer(str(dream_dir), trust_remote_code=trust)
    for t in (tokenizer, served):
        assert t.is_fast
        assert (t.mask_token_id, t.bos_token_id, t.eos_token_id, t.pad_token_id) == (604, 603, 600, 600)
        assert len(t) == 605
        assert t.model_max_length == 131072


def test_dream_ids_are_qwen2s(dream_dir):
    tokenizer = AutoTokenizer.from_pretrained(dream_dir)
    vocab = json.loads((dream_dir / "vocab.json").read_text())
    merges = [tuple(line.split()) for line in (dream_dir / "merges.txt").read_text().splitlines()[1:]]
    qwen2 = Qwen2Tokenizer(vocab=vocab, merges=merges)
    qwen2.add_special_tokens({"additional_special_tokens": DREAM_SPECIALS[1:]})
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert ids == qwen2(text)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=False) == normalizers.NFC().normalize_str(text)


def test_dream_ids_are_the_trained_ones(dream_dir, trained):
    """No token at either end, and the words of `trained`."""
    tokenizer = AutoTokenizer.from_pretrained(dream_dir)
    for text in TEXTS:
        if "<|" not in text:
            assert tokenizer(text)["input_ids"] == trained.encode(text).ids
    assert tokenizer("<|im_start|>hi<|im_end|>")["input_ids"] == [601, *trained.encode("hi").ids, 602]


def test_llada_tokenizer_loads_as_it_is(trained, tmp_path):
    """The files of GSAI-ML/LLaDA-8B-Instruct: tokenizer.json, and options that are nobody's."""
    tokenizer = Tokenizer.from_str(trained.to_str())
    tokenizer.add_special_tokens(LLADA_SPECIALS)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = {
        "added_tokens_decoder": added_tokens(LLADA_SPECIALS),
        "bos_token": "<|startoftext|>",
        "clean_up_tokenization_spaces": False,
        "cls_token": "[CLS]",
        "eos_token": "<|endoftext|>",
        "fast_tokenizer": True,
        "gmask_token": "[gMASK]",
        "merges_file": None,
        "model_max_length": 1000000000000000019884624838656,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "trust_remote_code": True,
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text(json.dumps(LLADA))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    served = get_tokenizer(str(tmp_path))
    for t in (loaded, served):
        assert t.is_fast
        assert (t.bos_token_id, t.eos_token_id, t.pad_token_id) == (600, 601, 601)
        assert t.convert_tokens_to_ids("<|mdm_mask|>") == 605
        for text in TEXTS:
            assert t(text)["input_ids"] == tokenizer.encode(text).ids


@pytest.mark.parametrize("model", ["tiny-llada", "tiny-dream"])
def test_bundled_tokenizers_are_of_a_class_that_transformers_4_knows_too(model):
    """What transformers 5 writes by itself, TokenizersBackend, is unknown to 4."""
    path = CHECKPOINTS / model
    assert json.loads((path / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    plain, loaded = Tokenizer.from_file(str(path / "tokenizer.json")), AutoTokenizer.from_pretrained(path)
    assert loaded.is_fast
    assert (loaded.eos_token_id, loaded.mask_token_id) == (EOS, MASK)
    for text in (text_prompt("count 3 by 4 x6"), *TEXTS):
        assert loaded(text)["input_ids"] == plain.encode(text).ids
    asked = loaded.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True)
    assert asked == text_prompt("hi")
