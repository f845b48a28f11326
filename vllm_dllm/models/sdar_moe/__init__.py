"""SDAR-MoE (arXiv:2510.06303): JetLM/SDAR-30B-A3B-Sci, SDAR-30B-A3B-Chat."""

from dataclasses import replace

from vllm_dllm.models.sdar import SDAR
from vllm_dllm.models.sdar_moe.checks import check
from vllm_dllm.models.sdar_moe.config import SDARMoeConfig

SDAR_MOE = replace(
    SDAR,  # it is decoded as that is
    name="SDAR-MoE",
    architectures=("SDARMoeForCausalLM",),
    model="vllm_dllm.models.sdar_moe.model:SDARMoeForCausalLM",
    config=SDARMoeConfig,
    check=check,
)
