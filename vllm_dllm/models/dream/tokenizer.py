"""Dream's tokenizer without remote code."""

from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer


class DreamTokenizer(Qwen2Tokenizer):
    """`tokenizer_class` of Dream-org/Dream-v0-7B: Qwen2's byte-level BPE (`vocab.json`, `merges.txt`).

    The authors' tokenization_dream.py is a copy of Qwen2's slow tokenizer: same pre-tokenizer, NFC, no token
    added at either end. Special tokens come from `tokenizer_config.json`.
    """
