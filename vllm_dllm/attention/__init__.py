"""An attention backend for vLLM on xformers' split-k kernels (`--attention-backend CUSTOM`)."""
