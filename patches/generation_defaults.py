"""A checkpoint's own defaults refuse no request.

What: for our architectures, what vLLM takes from a checkpoint's generation_config.json is what can be honoured
  (vllm_dllm.models.generation), with the token that ends an answer where the checkpoint does not name it
  (vllm_dllm.models.ends). What is set aside is said in the log when the server starts (engine_config.py).
Why: vLLM gives a `repetition_penalty` that the file has to every request, which would then be refused for it; a null
  among the `eos_token_id` reaches the engine; and values that transformers does not like keep the server from
  starting. `override_generation_config` could take back the first alone, and is the user's.
Applied: in every process.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: vLLM lets a model say which defaults it takes.
"""

from vllm.config import ModelConfig

from vllm_dllm.models import is_ours
from vllm_dllm.models.ends import with_turn
from vllm_dllm.models.generation import defaults
from vllm_dllm.patches.wrap import wrap


def _try_get_generation_config(original, self):
    return with_turn(self, defaults(self)[0]) if is_ours(self) else original(self)


def apply() -> None:
    wrap(ModelConfig, "try_get_generation_config", _try_get_generation_config)
