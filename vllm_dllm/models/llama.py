"""What the families have in common: Llama's layers, without a causal mask."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from vllm.config import CompilationMode, VllmConfig
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.models.interfaces import SupportsQuant
from vllm.model_executor.models.llama import LlamaDecoderLayer, LlamaModel
from vllm.model_executor.models.utils import AutoWeightsLoader, WeightsMapper, maybe_prefix
from vllm.platforms import current_platform

from vllm_dllm.models.weights import WeightCheck


class BidirectionalLlama(nn.Module, SupportsQuant):
    """vLLM's Llama with an output head.

    Not vLLM's LlamaForCausalLM, which also claims LoRA, pipeline parallelism and speculative decoding.
    Attention is bidirectional because the model runner says so in the attention metadata.
    """

    hf_to_vllm_mapper = LlamaModel.hf_to_vllm_mapper
    packed_modules_mapping = {
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }
    layer_type: Callable[..., nn.Module] = LlamaDecoderLayer

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = ""):
        super().__init__()
        config = vllm_config.model_config.hf_config
        self.config = config
        self.model = LlamaModel(
            vllm_config=vllm_config, prefix=maybe_prefix(prefix, "model"), layer_type=self.layer_type
        )
        self.lm_head = ParallelLMHead(
            config.vocab_size,
            config.hidden_size,
            bias=config.head_bias,
            quant_config=vllm_config.quant_config,
            prefix=maybe_prefix(prefix, "lm_head"),
        )
        if config.tie_word_embeddings:
            self.lm_head = self.lm_head.tie_weights(self.model.embed_tokens)
        self.logits_processor = LogitsProcessor(config.vocab_size, scale=config.logit_scale)
        self.weights = 0  # how often they were changed, so that nobody goes on with keys and values of others
        if current_platform.is_cpu() and vllm_config.compilation_config.mode == CompilationMode.NONE:
            for layer in self.model.layers:  # not as an operator, which only torch.compile needs
                layer.self_attn.attn.use_direct_call = True
        # the first load must bring every weight; later ones, or one over dummy weights, may be an update
        self.has_weights = vllm_config.load_config.load_format == "dummy"

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.model.embed_input_ids(input_ids)

    def forward(
        self, input_ids: torch.Tensor | None, positions: torch.Tensor, inputs_embeds: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Hidden states [tokens, hidden_size] of `input_ids` [tokens] at `positions` [tokens]."""
        return self.model(input_ids, positions, None, inputs_embeds)

    def layer_queries(self, layer: nn.Module, positions: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """The queries [N, heads, head size] that `layer`'s attention would get at canvas `positions` [N], were `hidden`
        [N, hidden_size] the layer's input there.

        What the layer itself does up to its attention: a family whose layers do more (norms of q and k) says so here.
        """
        attention = layer.self_attn
        qkv, _ = attention.qkv_proj(layer.input_layernorm(hidden))
        q, k, _ = qkv.split([attention.q_size, attention.kv_size, attention.kv_size], dim=-1)
        q, _ = attention.rotary_emb(positions, q.contiguous(), k.contiguous())
        return q.view(len(q), attention.num_heads, attention.head_dim)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """[rows, vocabulary]; None on tensor-parallel ranks other than the first."""
        bias = self.lm_head.bias if self.config.head_bias else None
        return self.logits_processor(self.lm_head, hidden_states, bias)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        # without the stacking: LlamaModel.load_weights puts q, k, v and gate, up together by itself
        names = WeightsMapper(orig_to_new_regex=self.hf_to_vllm_mapper.orig_to_new_regex)
        check = WeightCheck(self, names)
        self.weights += 1  # first: whatever fails on the way, they are not what they were
        loaded = AutoWeightsLoader(self).load_weights(check.watch(weights), mapper=names)
        if not self.has_weights:
            check.refuse_missing()
            self.has_weights = True
        return loaded
