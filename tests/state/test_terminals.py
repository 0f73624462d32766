"""Terminals."""

from __future__ import annotations

from collections.abc import Callable

from tests.conftest import Target
from tests.state.reading import every, numbers, one, read_state, still_well
from vcsimg.image.sections.terminals import Control, Terminal

ICANON, ECHO = 0x2, 0x8


def test_both_ends_of_a_pty(start: Callable[..., Target]) -> None:
    target = start("state_terminal")
    child, slave, master, number = numbers(target)
    outer, inner = read_state(target.pid), read_state(child)

    end = one(outer, Terminal, fd=master)
    assert (end.role, end.pty, end.rows, end.columns, end.width, end.height) == ("ptmx", number, 33, 77, 1, 2)
    assert (end.session, end.foreground, end.locked) == (child, child, False)
    end = one(inner, Terminal, fd=slave)
    assert (end.role, end.device, end.rows, end.columns) == ("tty", f"88:{number:02x}", 33, 77)
    assert end.local_flags & (ICANON | ECHO) == 0
    assert (end.input_speed, end.output_speed) == (9600, 9600)
    assert one(inner, Control) == Control(f"88:{number:02x}", child)
    assert [item.device for item in every(outer, Control)] != [f"88:{number:02x}"]
    still_well(target)
