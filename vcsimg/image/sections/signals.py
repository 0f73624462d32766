"""Section `signals`: how the process takes signals, and those that wait for it as a whole (`pending`, see thread.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from vcsimg.image.sections.item import Coding, Hex, Item
from vcsimg.image.sections.names import SigactionFlags, SignalNumber

_ACTIONS = {"default": 0, "ignore": 1}


def _write_action(value: int) -> str:
    return {0: "default", 1: "ignore"}.get(value) or hex(value)


def _read_action(text: str) -> int:
    return _ACTIONS[text] if text in _ACTIONS else int(text, 16)


Action = Annotated[int, Coding(_write_action, _read_action)]


@dataclass(frozen=True, slots=True)
class Disposition(Item, kind="disposition"):
    """What /proc/PID/status says of all signals: bit n - 1 stands for signal n."""

    ignored: Hex
    caught: Hex


@dataclass(frozen=True, slots=True)
class Handler(Item, kind="handler"):
    """rt_sigaction(2) of one signal. A signal without a record has the default action, no flags and an empty mask."""

    signal: SignalNumber
    action: Action
    flags: SigactionFlags
    mask: Hex
    restorer: Hex
