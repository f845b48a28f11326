"""`--dllm-*` flags.

What: vLLM's argument parser gets one flag for each `dllm_*` setting, and `--dllm-config JSON` for any of them;
  their values go into `additional_config`, where the settings live. A server of another model refuses them. What is
  refused when vLLM builds its configuration is the last thing said.
Why: `vllm serve MODEL --dllm-cache entropy` is shorter than `--additional-config '{"dllm_cache": "entropy"}'`,
  and `vllm serve --help` shows what there is.
Applied: in every process.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: vLLM lets a plugin add arguments (it loads plugins before it builds its parser, but then asks them nothing).
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError
from vllm.engine.arg_utils import EngineArgs

from vllm_dllm.catalogue import options
from vllm_dllm.models import is_ours
from vllm_dllm.options import Option, SettingError
from vllm_dllm.patches.wrap import wrap
from vllm_dllm.settings import given

CONFIG = "dllm_config"


def _value(option: Option) -> Callable[[str], Any]:
    """A parser for one flag's text: numbers as numbers, lists as JSON."""

    def parse(text: str) -> Any:
        try:
            value = text if option.type is str else json.loads(text)
            return option.check(value)
        except (json.JSONDecodeError, SettingError):
            raise argparse.ArgumentTypeError(str(option.refusal(text))) from None

    return parse


def _settings(text: str) -> dict[str, Any]:
    try:
        settings = json.loads(text)
        if not isinstance(settings, dict):
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"{CONFIG}={text!r} is not allowed: it must be a JSON object") from None
    return {key if key.startswith("dllm_") else f"dllm_{key}": value for key, value in settings.items()}


def _add_cli_args(original, parser):
    parser = original(parser)
    group = parser.add_argument_group(
        title="DllmConfig", description="Diffusion language models (vllm-dllm). Requests may override most."
    )
    group.add_argument(
        "--dllm-config",
        type=_settings,
        metavar="JSON",
        default=argparse.SUPPRESS,
        help="Any dllm_* settings, as JSON.",
    )
    for option in options().values():
        if option.request_only:
            continue
        default = "" if option.default is None else f" Default: {option.default}."
        group.add_argument(
            option.flag,
            type=_value(option),
            metavar=option.name.upper(),
            default=argparse.SUPPRESS,  # or the help ends in vLLM's "(default: None)"
            help=f"{option.help[0].upper()}{option.help[1:]}: {option.allowed}.{default}".replace("%", "%%"),
        )
    return parser


def _from_cli_args(original, args):
    settings = dict(getattr(args, CONFIG, None) or {})
    settings |= {key: getattr(args, key) for key in options() if getattr(args, key, None) is not None}
    if settings:
        args = argparse.Namespace(**vars(args))
        args.additional_config = (args.additional_config or {}) | settings
    return original(args)


def _create_engine_config(original, self, usage_context=None, headless=False):
    try:
        config = original(self, usage_context, headless)
    except ValidationError as e:
        # pydantic's own text goes on behind what is refused
        refused = [error.get("ctx", {}).get("error") for error in e.errors()]
        raise next((r for r in refused if isinstance(r, SettingError)), e) from None
    extra = config.additional_config
    if isinstance(extra, dict) and given(extra) and not is_ours(config.model_config):
        key, value = next(iter(given(extra).items()))
        raise SettingError(f"{key}={value!r} is not allowed: {config.model_config.model} is no diffusion model")
    return config


def apply() -> None:
    wrap(EngineArgs, "add_cli_args", _add_cli_args)
    wrap(EngineArgs, "from_cli_args", _from_cli_args)
    wrap(EngineArgs, "create_engine_config", _create_engine_config)
