"""A URL that names no image that may be read gets HTTP 400.

What: in a server of one of our models, a file's URL where files are not served or there is no such file, and a data URL
  that is not in base64, are refused as what they are: a client's mistake.
Why: vLLM answers with HTTP 500 or 501. What goes wrong with http and https it judges itself: that may pass.
Applied: by server.py.
Checked on: vLLM 0.32.0.
Until: vLLM refuses them itself.
"""

from PIL import UnidentifiedImageError
from vllm.multimodal.media import MediaConnector

from vllm_dllm.options import SettingError
from vllm_dllm.patches.wrap import wrap
from vllm_dllm.validation import Refusal


async def _load_from_url_async(original, self, url, *args, **kwargs):
    try:
        return await original(self, url, *args, **kwargs)
    except UnidentifiedImageError:
        raise  # an OSError, of which vLLM makes a refusal
    except (OSError, RuntimeError) as e:
        if url.lower().startswith("http"):
            raise
        allowed = "an http or https URL, a data URL in base64"
        if self.allowed_local_media_path is None:
            allowed += ", or with --allowed-local-media-path a file's"
        else:
            allowed += f", or that of a file below {self.allowed_local_media_path} that can be read"
        shown = repr(url if len(url) <= 80 else url[:80] + "...")
        raise Refusal.of(SettingError(f"image_url={shown} is not allowed: it must be {allowed}")) from e


def apply() -> None:
    """For a process that serves one of our models."""
    wrap(MediaConnector, "load_from_url_async", _load_from_url_async)
