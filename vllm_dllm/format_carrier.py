"""How a guaranteed format gets from where its request arrives to the engine: in the request's `extra_args`."""

from collections.abc import Sequence
from typing import Any

from vllm.sampling_params import SamplingParams

CARRIER = "vllm_dllm.format"  # the format's key and the packed format (`Automaton.pack`)


def carrier_of(params: SamplingParams) -> Sequence[Any] | None:
    """The key and the packed format that a request has brought."""
    return (params.extra_args or {}).get(CARRIER)
