"""A chat is completed as a family's own code does it, before its template makes a prompt of it.

What: for families whose description says so (`Family.conversation`), the messages of a chat are handed to it first: what
  it gives back is what vLLM reads images from and fills the checkpoint's template with.
Why: LLaDA-V's template has no system text, which its authors' code puts in front, and knows no images; vLLM would put all
  of a message's images in front of its text, wherever the client has them.
Applied: in every process.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: vLLM lets a model have a say in how its chats are rendered.
"""

from vllm.renderers.hf import HfRenderer

from vllm_dllm import validation
from vllm_dllm.models import family_of, is_ours
from vllm_dllm.options import SettingError
from vllm_dllm.patches.wrap import wrap


def _completed(renderer, messages):
    family = family_of(renderer.model_config) if is_ours(renderer.model_config) else None
    if family is None or family.conversation is None:
        return messages
    try:
        return family.conversation(messages)
    except SettingError as e:
        raise validation.Refusal.of(e) from e


def _render_messages(original, self, messages, params):
    return original(self, _completed(self, messages), params)


async def _render_messages_async(original, self, messages, params):
    return await original(self, _completed(self, messages), params)


def apply() -> None:
    wrap(HfRenderer, "render_messages", _render_messages)
    wrap(HfRenderer, "render_messages_async", _render_messages_async)
