"""What vLLM's reader of images says of URLs that it is not to read."""

import asyncio
import base64

import pytest
from common import GOLDEN
from vllm.multimodal.media import MediaConnector

from vllm_dllm.patches import image_urls
from vllm_dllm.validation import Refusal

IMAGE = sorted((GOLDEN / "images").iterdir())[0]


@pytest.fixture(autouse=True)
def patched():
    image_urls.apply()


def fetch(url: str, allowed: str = ""):
    return asyncio.run(MediaConnector(allowed_local_media_path=allowed).fetch_image_async(url))


def test_what_may_be_read_is_read():
    data = base64.b64encode(IMAGE.read_bytes()).decode()
    found = [fetch(IMAGE.as_uri(), str(IMAGE.parent)), fetch(f"data:image/png;base64,{data}")]
    assert found[0].size == found[1].size


@pytest.mark.parametrize(
    ("url", "folder", "allowed"),
    [
        (IMAGE.as_uri(), "", "an http or https URL, a data URL in base64, or with --allowed-local-media-path a file's"),
        ("data:text/plain,hi", "", "an http or https URL, a data URL in base64, or with --allowed"),
        ((IMAGE.parent / "none.png").as_uri(), str(IMAGE.parent), f"that of a file below {IMAGE.parent} that can be"),
        (IMAGE.parent.as_uri() + "/.", str(IMAGE.parent.parent), f"that of a file below {IMAGE.parent.parent} that"),
    ],
)
def test_what_may_not_be_read_is_refused_by_name(url, folder, allowed):
    with pytest.raises(Refusal) as refused:
        fetch(url, folder)
    message = str(refused.value)
    assert message.startswith(f"image_url={url!r} is not allowed: it must be an http or https URL, ")
    assert allowed in message and refused.value.parameter == "image_url"


def test_what_is_no_image_stays_vllms_to_refuse(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ValueError, match="image"):
        fetch((tmp_path / "text.png").as_uri(), str(tmp_path))


def test_what_may_pass_is_not_the_clients_fault():
    with pytest.raises(OSError):
        fetch("http://127.0.0.1:9/a.png")
