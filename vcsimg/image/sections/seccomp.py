"""Section `seccomp`: the filters of the main thread, the oldest first. A thread whose filters differ has its own records."""

from __future__ import annotations

from dataclasses import dataclass

from vcsimg.image.sections.item import Hex, Item


@dataclass(frozen=True, slots=True)
class SeccompFilter(Item, kind="seccomp_filter"):
    """A filter: `flags` SECCOMP_FILTER_FLAG_* bits, `instructions` struct sock_filter, 8 bytes each."""

    index: int
    flags: Hex
    instructions: bytes
