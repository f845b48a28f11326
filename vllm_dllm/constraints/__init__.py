"""What a request's tokens must be, whatever the model says: each constraint bars tokens before they are read."""

from vllm_dllm.constraints.base import Constraint, admitted, bars_all, edits_of

__all__ = ["Constraint", "admitted", "bars_all", "edits_of"]
