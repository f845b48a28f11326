"""What the families have in common: Llama's layers, without a causal mask."""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import nn
from vllm.config import CompilationMode, VllmConfig
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.models.interfaces import SupportsQuant
from vllm.model_executor.models.llama import LlamaAttention, LlamaDecoderLayer, LlamaModel
from vllm.model_executor.models.utils import AutoWeightsLoader, WeightsMapper, maybe_prefix
from vllm.platforms import current_platform

from vllm_dllm.models import cpu_swiglu
from vllm_dllm.models.weights import WeightCheck


class BidirectionalAttention(LlamaAttention):
    """Llama's attention in two steps, the first of which others may ask for by itself.

    A family whose layers do more to queries, keys and values overrides `before_rotation`.
    """

    def project(self, positions: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries [N, heads * head size], keys and values [N, KV heads * head size] as attention gets them, of this rank's
        heads, at canvas `positions` [N]; `hidden` [N, hidden_size] are the layer's normed inputs."""
        qkv, _ = self.qkv_proj(hidden)
        q, k, v = self.before_rotation(*qkv.split([self.q_size, self.kv_size, self.kv_size], dim=-1))
        return *self.rotary_emb(positions, q, k), v

    def before_rotation(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return q, k, v

    def forward(self, positions: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        output, _ = self.o_proj(self.attn(*self.project(positions, hidden_states)))
        return output


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
    layer_type: Callable[..., nn.Module] = staticmethod(
        partial(LlamaDecoderLayer, attn_layer_type=BidirectionalAttention)
    )

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = ""):
        super().__init__()
        config = vllm_config.model_config.hf_config
        self.config = config
        self.model = LlamaModel(
            vllm_config=vllm_config, prefix=maybe_prefix(prefix, "model"), layer_type=self.layer_type
        )
        # which stacks q, k, v and gate, up by itself
        self.model.hf_to_vllm_mapper = WeightsMapper(orig_to_new_stacked=self.hf_to_vllm_mapper.orig_to_new_stacked)
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
            cpu_swiglu.use(self.model)
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
        """
        attention = layer.self_attn
        q, _, _ = attention.project(positions, layer.input_layernorm(hidden))
        return q.reshape(len(q), attention.num_heads, attention.head_dim)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """[rows, vocabulary]; None on tensor-parallel ranks other than the first."""
        bias = self.lm_head.bias if self.config.head_bias else None
        return self.logits_processor(self.lm_head, hidden_states, bias)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        # without the stacking, which is the inner model's
        names = WeightsMapper(orig_to_new_regex=self.hf_to_vllm_mapper.orig_to_new_regex)
        check = WeightCheck(self, names)
        self.weights += 1  # first: whatever fails on the way, they are not what they were
        loaded = AutoWeightsLoader(self).load_weights(check.watch(weights), mapper=names)
        if not self.has_weights:
            check.refuse_missing()
            self.has_weights = True
        return loaded
