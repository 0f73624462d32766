"""fast_peekdata and fast_pokedata: ptrace's calls, for any length."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from tests.conftest import Target, compile_target
from tests.memory.conftest import Layout, Start, as_ordinary_user, checksum, layout_of
from vcsimg.errors import AccessError
from vcsimg.memory import AutoMemory, BytesMemory, attached, fast_peekdata, fast_pokedata, forget, peek
from vcsimg.process import hold


@pytest.mark.parametrize("length", [0, 1, 8, 100, 4096, 300_000])
def test_peek_fills_our_buffer_from_their_memory(layout: Layout, length: int) -> None:
    buffer = bytearray(length + 3)
    assert fast_peekdata(layout.pid, buffer, layout.area + 5, length) == length
    assert buffer == layout.content(5, length) + bytes(3)


@pytest.mark.parametrize("length", [0, 1, 8, 100, 4096, 300_000])
def test_poke_stores_our_bytes_in_their_memory(layout: Layout, length: int) -> None:
    data = bytes(index % 253 for index in range(length + 3))
    assert fast_pokedata(layout.pid, layout.area + 5, data, length) == length
    expected = layout.content(0, 5) + data[:length] + layout.content(5 + length, 10)
    assert layout.checksum(layout.area, length + 15) == checksum(expected)


def test_they_work_while_the_process_is_held_with_and_without_a_window(layout: Layout) -> None:
    buffer = bytearray(200_000)
    with hold(layout.pid) as held:
        fast_peekdata(layout.pid, buffer, layout.area, len(buffer))
        assert buffer == layout.content(0, len(buffer))
        with AutoMemory(held, window=0) as memory, attached(memory):
            fast_pokedata(layout.pid, layout.area, b"w" * 200_000, 200_000)
            fast_peekdata(layout.pid, buffer, layout.area, len(buffer))
    assert buffer == b"w" * 200_000
    assert layout.checksum(layout.area, 200_000) == checksum(buffer)


def test_they_go_through_the_memory_that_is_attached() -> None:
    memory = BytesMemory({0x1000: bytearray(b"elsewhere")})
    with pytest.raises(ValueError, match="no process"), attached(memory):
        pass
    memory.pid = 77  # type: ignore[assignment]
    buffer = bytearray(9)
    with attached(memory):
        fast_pokedata(77, 0x1000, b"E", 1)
        with attached(memory):
            pass
        fast_peekdata(77, buffer, 0x1000, 9)
    assert buffer == b"Elsewhere"


def test_protection_does_not_hinder_them(layout: Layout) -> None:
    buffer = bytearray(5000)
    fast_peekdata(layout.pid, buffer, layout.hidden, 5000)
    assert buffer == b"h" * 5000
    fast_pokedata(layout.pid, layout.readonly, b"breakpoint", 10)
    assert layout.checksum(layout.readonly, 10) == checksum(b"breakpoint")


@pytest.mark.parametrize("length", [-1, 17, 1 << 40, 1 << 64])
def test_a_length_that_our_buffer_does_not_have(layout: Layout, length: int) -> None:
    buffer = bytearray(16)
    for call in (
        lambda: fast_peekdata(layout.pid, buffer, layout.area, length),
        lambda: fast_pokedata(layout.pid, layout.area, buffer, length),
    ):
        with pytest.raises(AccessError) as caught:
            call()
        error = caught.value
        assert (error.pid, error.address, error.length, error.done) == (layout.pid, layout.area, length, 0)
        assert error.errno == errno.EINVAL
    assert not any(buffer)


@pytest.mark.parametrize("length", [200, 100_000])
def test_a_hole_is_said_to_the_byte(layout: Layout, length: int) -> None:
    buffer = bytearray(length)
    with pytest.raises(AccessError) as caught:
        fast_peekdata(layout.pid, buffer, layout.end - 100, length)
    assert caught.value.done == 100
    assert buffer == b"e" * 100 + bytes(length - 100)
    with pytest.raises(AccessError) as caught:
        fast_pokedata(layout.pid, layout.end - 100, b"w" * length, length)
    assert caught.value.done == 100


def test_a_read_only_buffer_cannot_be_filled(layout: Layout) -> None:
    with pytest.raises((TypeError, BufferError)):
        fast_peekdata(layout.pid, bytes(8), layout.area, 8)  # type: ignore[arg-type]


def test_any_contiguous_buffer_will_do(layout: Layout) -> None:
    words = np.zeros(1000, np.uint64)
    fast_peekdata(layout.pid, words, layout.area, words.nbytes)
    assert words.tobytes() == layout.content(0, 8000)
    with pytest.raises((TypeError, BufferError)):
        fast_peekdata(layout.pid, words[::2], layout.area, 8)


def test_few_processes_are_kept_open(start: Start) -> None:
    layouts = [layout_of(start("mem_layout", 4096)) for _ in range(12)]
    before = len(os.listdir("/proc/self/fd"))
    buffer = bytearray(8)
    for _ in range(2):
        for layout in layouts:
            fast_peekdata(layout.pid, buffer, layout.area, 8)
            assert buffer == layout.content(0, 8)
    assert len(peek._known) == 8
    for layout in layouts:
        forget(layout.pid)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_number_that_another_process_has_got(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept for a number is dropped when its process is gone, even if the old memory can still be read."""
    buffer = bytearray(8)
    fast_peekdata(layout.pid, buffer, layout.area, 8)
    stale = peek._known[layout.pid]
    ended = Target("/bin/true")
    pidfd = os.pidfd_open(ended.pid)
    ended.process.wait()
    monkeypatch.setitem(peek._known, layout.pid, peek._Known(stale.memory, pidfd))
    fast_peekdata(layout.pid, buffer, layout.area, 8)
    assert peek._known[layout.pid].memory is not stale.memory
    os.close(stale.process)
    ended.end()


@pytest.mark.skipif(os.getuid() != 0, reason="already an ordinary user")
def test_an_ordinary_user_needs_no_privilege(as_nobody: list[str], start: Start) -> None:
    layout = layout_of(start("/usr/bin/setpriv", *as_nobody[1:], str(compile_target("mem_layout"))))

    def use() -> bytes:
        buffer = bytearray(300_000)
        fast_pokedata(layout.pid, layout.area, b"ordinary", 8)
        with hold(layout.pid) as held, AutoMemory(held, window=0) as memory, attached(memory):
            assert memory.refused is None
            fast_peekdata(layout.pid, buffer, layout.area, len(buffer))
        return bytes(buffer)

    assert as_ordinary_user(use) == b"ordinary" + layout.content(8, 299_992)
