"""Changes to vLLM's own behaviour, one file each: its docstring says what, why, checked on which versions, until when."""
