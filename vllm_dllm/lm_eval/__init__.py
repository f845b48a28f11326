"""lm-evaluation-harness on a diffusion model: `python -m vllm_dllm.lm_eval --model vllm-dllm ...`.

    arguments.py   --model_args, checked
    model.py       the harness's model class, with the authors' conventions; the one file that imports the harness
    offline.py     its answers and scores from an engine of this process, or ...
    served.py      ... from a running server

The rest of the package does not know of it, and does not need the harness. docs/evaluation.md has the commands.
"""
