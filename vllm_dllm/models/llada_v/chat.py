"""A chat as the authors' conversation class has it, before the checkpoint's template makes a prompt of it.

The template has no system text and knows no images. The conversation supplies the one, and writes `<image>` where an
image stands. Source: `conversation.py` in LLaDA-V's repository.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vllm_dllm.options import SettingError

IMAGE = "<image>"
IMAGE_PARTS = ("image_url", "image_pil", "input_image")  # OpenAI's name, vLLM's for Pillow's, the Responses API's
TEXT_PARTS = ("text", "input_text", "output_text")
SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)


def conversation(messages: Sequence[Any]) -> list[Any]:
    """The messages, with the system text in front if they have none, and `<image>` in the text where an image stands.

    Raises SettingError for text that says where images go, but not as many as there are.
    """
    placed = [_placed(message) if isinstance(message, Mapping) else message for message in messages]
    roles = [message.get("role") for message in placed if isinstance(message, Mapping)]
    if "system" in roles or "developer" in roles:
        return placed
    return [{"role": "system", "content": SYSTEM}, *placed]


def _placed(message: Mapping[str, Any]) -> Any:
    """A message whose one text has an `<image>` for each of its images, in the order of its parts."""
    parts = message.get("content")
    if isinstance(parts, str) or not isinstance(parts, Sequence) or not all(map(_is_known, parts)):
        return message
    images = [part for part in parts if _is_image(part)]
    if not images:
        return message
    text = "\n".join(map(_text, filter(_is_text, parts)))
    said = text.count(IMAGE)
    if not said:
        text = _joined([IMAGE if _is_image(part) else _text(part) for part in parts])
    elif said != len(images):
        raise SettingError(
            f"a message with {len(images)} images whose text says {IMAGE} {said} times is not allowed: it must say it once "
            "for each image, where that stands, or not at all"
        )
    return {**message, "content": [*images, {"type": "text", "text": text}]}


def _joined(pieces: list[str]) -> str:
    """A newline between pieces, unless there is white space already."""
    text = pieces[0]
    for piece in pieces[1:]:
        close = text[-1:].isspace() or piece[:1].isspace()
        text += piece if close else f"\n{piece}"
    return text


def _is_image(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") in IMAGE_PARTS


def _is_text(part: Any) -> bool:
    return isinstance(part, str) or (isinstance(part, Mapping) and part.get("type") in TEXT_PARTS)


def _is_known(part: Any) -> bool:
    return _is_image(part) or _is_text(part)


def _text(part: Any) -> str:
    return part if isinstance(part, str) else str(part.get("text") or "")
