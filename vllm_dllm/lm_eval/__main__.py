"""The harness's own command line, with one model class more: `--model vllm-dllm`."""

import importlib.util
import sys

from vllm_dllm.options import SettingError


def main() -> None:
    if importlib.util.find_spec("lm_eval") is None:
        sys.exit("lm-evaluation-harness is not installed: pip install 'vllm-dllm[lm-eval]'")
    from lm_eval.__main__ import cli_evaluate

    from vllm_dllm.lm_eval import model  # noqa: F401  (registers the class)

    try:
        cli_evaluate()
    except SettingError as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":  # vLLM's processes import this file, too
    main()
