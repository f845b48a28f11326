"""Attention weights read from the paged keys, beside vLLM's own attention kernels: what probes measure with."""
