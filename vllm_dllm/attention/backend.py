"""vLLM's attention, by xformers' split-k kernels."""

from dataclasses import dataclass

import torch
from vllm.platforms import current_platform
from vllm.v1.attention.backend import (
    AttentionBackend,
    AttentionCGSupport,
    AttentionImpl,
    AttentionMetadata,
    AttentionMetadataBuilder,
    CommonAttentionMetadata,
    MultipleOf,
)
from vllm.v1.kv_cache_layout import KVCacheLayout
from xformers.ops.fmha.attn_bias import PagedBlockDiagonalPaddedKeysMask

from vllm_dllm.attention.choice import HEAD_SIZES, PAGE
from vllm_dllm.attention.operator import attend, mask


class SplitKBackend(AttentionBackend):
    """Attention of queries anywhere in a canvas to all of it, from pages laid out token by token."""

    supported_dtypes = [torch.float16, torch.bfloat16, torch.float32]
    supported_kv_cache_dtypes = ["auto", "float16", "bfloat16"]
    forward_includes_kv_cache_update = False

    @staticmethod
    def get_name() -> str:
        return "CUSTOM"  # which vLLM looks it up by

    @staticmethod
    def get_impl_cls() -> type["SplitK"]:
        return SplitK

    @staticmethod
    def get_builder_cls() -> type["SplitKBuilder"]:
        return SplitKBuilder

    @staticmethod
    def get_supported_kernel_block_sizes(kv_cache_spec=None) -> list[int | MultipleOf]:
        return [MultipleOf(PAGE)]

    @classmethod
    def get_supported_head_sizes(cls) -> list[int]:
        return list(HEAD_SIZES)

    @classmethod
    def supported_kv_cache_layouts(cls) -> tuple[KVCacheLayout, ...]:
        return (KVCacheLayout.LBNHC,)  # the kernels step from token to token with one stride, across pages too

    @classmethod
    def supports_non_causal(cls) -> bool:
        return True


@dataclass
class SplitKMetadata(AttentionMetadata):
    mask: PagedBlockDiagonalPaddedKeysMask


class SplitKBuilder(AttentionMetadataBuilder[SplitKMetadata]):
    # what a launch takes from the host follows from the arrays' shapes and the longest query that there can be
    _cudagraph_support = AttentionCGSupport.ALWAYS

    def __init__(self, kv_cache_spec, layer_names, vllm_config, device):
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> SplitKMetadata:
        common = common_attn_metadata
        if common.causal is not False:
            raise NotImplementedError(
                "attention_backend=CUSTOM (vllm-dllm) is for models whose attention is not causal"
            )
        page_size = self.kv_cache_spec.block_size
        longest = common.max_query_len
        return SplitKMetadata(
            mask(common.query_start_loc, common.seq_lens, common.block_table_tensor, page_size, longest)
        )


class SplitK(AttentionImpl[SplitKMetadata]):
    """One layer's. Its cache [pages, kv heads, page size, 2 head size] is a view: in memory, tokens come before heads."""

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int | None = None,
        alibi_slopes: list[float] | None = None,
        sliding_window: int | None = None,
        kv_cache_dtype: str = "auto",
        logits_soft_cap: float | None = None,
        *args,
        **kwargs,
    ) -> None:
        if alibi_slopes is not None or sliding_window is not None or logits_soft_cap:
            raise NotImplementedError("attention_backend=CUSTOM (vllm-dllm) has no ALiBi, sliding window or soft cap")
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads or num_heads
        self.head_size = head_size
        self.scale = float(scale)
        self.kv_cache_dtype = kv_cache_dtype

    def forward(
        self,
        layer: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: SplitKMetadata | None,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if attn_metadata is None:  # a profile run, which has no cache
            return output.zero_()
        keys, values = self._views(kv_cache)
        found = attend(query.view(-1, self.num_heads, self.head_size), keys, values, attn_metadata.mask, self.scale)
        output.view(found.shape).copy_(found)
        return output

    def do_kv_cache_update(
        self,
        layer: torch.nn.Module,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        slot_mapping: torch.Tensor,
    ) -> None:
        """Keys and values [T, kv heads, head size] into their slots; -1 is none."""
        keys, values = self._views(kv_cache)
        if not current_platform.is_cpu():
            from vllm._custom_ops import reshape_and_cache_flash

            reshape_and_cache_flash(
                key, value, keys, values, slot_mapping, self.kv_cache_dtype, layer._k_scale, layer._v_scale
            )
            return
        there = slot_mapping >= 0
        slots = slot_mapping[there]
        keys.flatten(0, 1)[slots] = key[there]
        values.flatten(0, 1)[slots] = value[there]

    def _views(self, kv_cache: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values, [pages, page size, kv heads, head size] each."""
        keys, values = kv_cache.transpose(1, 2).split(self.head_size, -1)
        return keys, values
