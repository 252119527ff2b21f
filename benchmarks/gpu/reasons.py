"""What went wrong, in a line that can stand in a table."""

from __future__ import annotations


_LONGEST = 300


def reason_of(error: BaseException) -> str:
    """The kind of an exception and the first line of what it says."""
    text = str(error).strip().partition("\n")[0][:_LONGEST] or "no message"
    return f"{type(error).__name__}: {text}"


def is_out_of_memory(reason: str) -> bool:
    """Whether it was memory of the device that was missing, or planned to be."""
    return any(word in reason for word in ("RESOURCE_EXHAUSTED", "InfeasibleBudget"))
