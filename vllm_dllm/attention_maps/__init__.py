"""What the policies measure in attention: read from the paged keys, beside vLLM's own attention kernels."""
