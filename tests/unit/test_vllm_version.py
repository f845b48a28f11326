"""Which vLLM is admitted, by its number."""

import logging

import pytest
import vllm
from common import CHECKPOINTS
from vllm.engine.arg_utils import EngineArgs

from vllm_dllm.vllm_version import check_vllm


@pytest.mark.parametrize("version", ["0.31.2", "0.34.0", "0.3.2", "1.0.0", "0.320.0"])
def test_an_unknown_version_is_refused_by_number(monkeypatch, version):
    monkeypatch.setattr(vllm, "__version__", version)
    with pytest.raises(RuntimeError, match=rf"with vllm {version}: it must be 0\.32\.x or 0\.33\.x .*tools/seams\.py"):
        check_vllm()


@pytest.fixture
def lines(caplog):
    """What is logged about the version; vLLM's own set-up is left alone."""
    logger = logging.getLogger("vllm.vllm_dllm.vllm_version")
    logger.setLevel(logging.INFO)
    logger.addHandler(caplog.handler)
    yield lambda: [r.getMessage() for r in caplog.records if r.name == logger.name]
    logger.removeHandler(caplog.handler)
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("version", ["0.32.0", "0.32.1+cpu", "0.33.0"])
def test_a_version_that_nobody_has_run_is_admitted_with_a_line_in_the_log(monkeypatch, lines, version):
    monkeypatch.setattr(vllm, "__version__", version)
    check_vllm()
    EngineArgs(str(CHECKPOINTS / "tiny-llada"), dtype="float32", max_model_len=512).create_engine_config()
    said = f"vLLM {version}: vllm-dllm was checked against its source, not run"
    assert set(lines()) == ({said} if version.startswith("0.33") else set())
