"""Pipes and FIFOs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.conftest import Target
from tests.state.reading import every, numbers, one, read_state, still_well
from vcsimg.image.sections.files import File
from vcsimg.image.sections.pipes import Pipe, PipeData


def test_what_waits_in_pipes_is_read_and_left_there(start: Callable[..., Target], tmp_path: Path) -> None:
    target = start("state_pipes", tmp_path)
    reader, writer, packets, empty, fifo = numbers(target)
    state = read_state(target.pid)

    pipe = one(state, Pipe, fd=reader)
    assert (pipe.capacity, pipe.queued) == (262144, 100003)
    assert b"".join(part.data for part in every(state, PipeData, fd=reader)) == b"x" * 100000 + b"end"
    assert one(state, Pipe, fd=writer).inode == pipe.inode
    assert one(state, Pipe, fd=writer).queued is None
    assert [part.data for part in every(state, PipeData, fd=packets)] == [b"one", b"four"]
    assert one(state, Pipe, fd=empty).queued == 0
    assert one(state, File, fd=fifo).path == str(tmp_path / "fifo")
    assert one(state, PipeData, fd=fifo).data == b"through a name"
    still_well(target)
