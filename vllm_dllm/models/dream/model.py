"""Dream (arXiv:2508.15487): a Qwen2.5 adapted to diffusion; row i predicts position i+1."""

from vllm_dllm.models.llama import BidirectionalLlama


class DreamModel(BidirectionalLlama):
    """Architecture `DreamModel`: Dream-org/Dream-v0-Base/-Instruct-7B, Dream-Coder, DiffuCoder.

    The layers are Llama's with a bias on query, key and value; the weight names are Qwen2's, which
    are Llama's.
    """
