"""Every backend keeps the same promises; they differ only in whether they heed protection."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from tests.memory.conftest import FORCING, HEEDING, Ways, checksum
from vcsimg.errors import AccessError
from vcsimg.memory import BytesMemory, Memory, read_pages
from vcsimg.memory.protocol import Reader

every = pytest.mark.parametrize("way", [*FORCING, *HEEDING])
PAGE = 4096


@every
@pytest.mark.parametrize("length", [1, 7, 8, 9, 64, PAGE - 1, PAGE, PAGE + 1, 20_000])
def test_reads_what_the_program_wrote(ways: Ways, way: str, length: int) -> None:
    memory = ways.open(way)
    for offset in (0, 1, 5, 8, PAGE - 3):
        buffer = bytearray(length + 2)
        assert memory.read_into(ways.layout.area + offset, memoryview(buffer)[1:-1]) == length
        assert buffer == b"\0" + ways.layout.content(offset, length) + b"\0"


@pytest.mark.parametrize("way", [way for way in [*FORCING, *HEEDING] if way != "ptrace"])
def test_reads_a_megabyte(ways: Ways, way: str) -> None:
    layout = ways.layout
    buffer = bytearray(layout.size)
    ways.open(way).read_into(layout.area, buffer)
    assert buffer == layout.content(0, layout.size)


@every
@pytest.mark.parametrize(("offset", "length"), [(0, 8), (3, 1), (3, 5), (6, 5), (PAGE - 1, 2), (11, 9001)])
def test_the_program_sees_what_was_written_and_nothing_else_changed(ways: Ways, way: str, offset: int, length: int) -> None:
    layout = ways.layout
    data = bytes(index * 13 % 256 for index in range(length))
    assert ways.open(way).write(layout.area + offset, data) == length
    ways.release()
    expected = layout.content(0, offset) + data + layout.content(offset + length, 4 * PAGE - offset - length)
    assert layout.checksum(layout.area, 4 * PAGE) == checksum(expected)


@pytest.mark.parametrize("way", [way for way in [*FORCING, *HEEDING] if way != "ptrace"])
def test_writes_a_megabyte(ways: Ways, way: str) -> None:
    layout = ways.layout
    data = np.random.default_rng(5).bytes(layout.size)
    ways.open(way).write(layout.area, data)
    ways.release()
    assert layout.checksum(layout.area, layout.size) == checksum(data)


@every
def test_many_ranges_follow_one_another_in_the_buffer(ways: Ways, way: str) -> None:
    layout = ways.layout
    wanted = [(0, 10), (PAGE, 0), (3 * PAGE - 5, 10), (17, 3), (5 * PAGE, PAGE)]
    buffer = bytearray(sum(length for _, length in wanted) + 1)
    done = ways.open(way).read_many([(layout.area + offset, length) for offset, length in wanted], buffer)
    assert done == len(buffer) - 1
    assert buffer == b"".join(layout.content(offset, length) for offset, length in wanted) + b"\0"


@every
def test_more_ranges_than_one_call_takes(ways: Ways, way: str) -> None:
    layout = ways.layout
    offsets = np.arange(5000, dtype=np.uint64) * np.uint64(200) + np.uint64(1)
    ranges = np.column_stack((offsets + np.uint64(layout.area), np.full(5000, 3, np.uint64)))
    buffer = bytearray(15_000)
    assert ways.open(way).read_many(ranges, buffer) == 15_000
    assert buffer == b"".join(layout.content(offset, 3) for offset in offsets.tolist())


@every
def test_no_ranges_are_nothing_to_read(ways: Ways, way: str) -> None:
    assert ways.open(way).read_many([], bytearray()) == 0


@every
@pytest.mark.parametrize("address", [0, 0x1000, (1 << 47) - PAGE, 1 << 62])
@pytest.mark.parametrize("length", [1, 8, 20_000])
def test_memory_that_is_not_mapped(ways: Ways, way: str, address: int, length: int) -> None:
    memory = ways.open(way)
    buffer = bytearray(length)
    for attempt in (lambda: memory.read_into(address, buffer), lambda: memory.write(address, buffer)):
        with pytest.raises(AccessError) as caught:
            attempt()
        error = caught.value
        assert (error.pid, error.address, error.length, error.done) == (ways.layout.pid, address, length, 0)
        assert error.errno == errno.EFAULT
    assert not any(buffer)


@every
@pytest.mark.parametrize("before", [1, 4, 8, 13, PAGE, PAGE + 5])
@pytest.mark.parametrize("behind", [1, 8, 30_000])
def test_a_read_into_a_hole_says_how_far_it_came(ways: Ways, way: str, before: int, behind: int) -> None:
    buffer = bytearray(before + behind)
    with pytest.raises(AccessError) as caught:
        ways.open(way).read_into(ways.layout.end - before, buffer)
    assert (caught.value.done, caught.value.length) == (before, before + behind)
    assert buffer == b"e" * before + bytes(behind)


@every
@pytest.mark.parametrize("before", [1, 4, 8, 13, PAGE + 5])
@pytest.mark.parametrize("behind", [1, 8, 30_000])
def test_a_write_into_a_hole_says_how_far_it_came(ways: Ways, way: str, before: int, behind: int) -> None:
    layout = ways.layout
    with pytest.raises(AccessError) as caught:
        ways.open(way).write(layout.end - before, b"w" * (before + behind))
    assert (caught.value.done, caught.value.length) == (before, before + behind)
    ways.release()
    assert layout.checksum(layout.end - 2 * PAGE, 2 * PAGE) == checksum(b"e" * (2 * PAGE - before) + b"w" * before)


@every
def test_several_ranges_of_which_one_is_not_mapped(ways: Ways, way: str) -> None:
    layout = ways.layout
    ranges = [(layout.area, 5000), (layout.area, 0), (layout.end - 100, 5000), (layout.area, 7)]
    buffer = bytearray(10_007)
    with pytest.raises(AccessError) as caught:
        ways.open(way).read_many(ranges, buffer)
    error = caught.value
    assert (error.address, error.length, error.earlier, error.done) == (layout.end - 100, 5000, 5000, 100)
    assert buffer == layout.content(0, 5000) + b"e" * 100 + bytes(4907)


@pytest.mark.parametrize("way", FORCING)
@pytest.mark.parametrize("length", [8, 2 * PAGE])
def test_protection_does_not_hinder_a_debugger(ways: Ways, way: str, length: int) -> None:
    memory, layout = ways.open(way), ways.layout
    buffer = bytearray(length)
    memory.read_into(layout.hidden, buffer)
    assert buffer == b"h" * length
    memory.write(layout.readonly, b"x" * length)
    ways.release()
    assert layout.checksum(layout.readonly, length) == checksum(b"x" * length)


@pytest.mark.parametrize("way", HEEDING)
@pytest.mark.parametrize("length", [8, 2 * PAGE])
def test_protection_is_heeded(ways: Ways, way: str, length: int) -> None:
    memory, layout = ways.open(way), ways.layout
    with pytest.raises(AccessError, match="Bad address"):
        memory.read_into(layout.hidden, bytearray(length))
    with pytest.raises(AccessError, match="Bad address"):
        memory.write(layout.readonly, bytes(length))
    ways.release()
    assert layout.checksum(layout.readonly, length) == checksum(b"r" * length)


@pytest.mark.parametrize("way", ["auto", "auto with a window"])
def test_auto_goes_on_where_protection_stopped_the_quick_way(ways: Ways, way: str) -> None:
    memory, layout = ways.open(way), ways.layout
    length = layout.size + PAGE  # its last page has no access
    buffer = bytearray(length)
    memory.read_into(layout.area, buffer)
    assert buffer == layout.content(0, layout.size) + bytes(PAGE)
    memory.write(layout.area, b"w" * length)
    memory.read_many([(layout.area, length), (layout.hidden, 5), (layout.readonly, 5)], big := bytearray(length + 10))
    assert big == b"w" * length + b"hhhhhrrrrr"


@every
@pytest.mark.parametrize("address", [0, 0x1234, 1 << 46])
def test_nothing_can_be_read_anywhere(ways: Ways, way: str, address: int) -> None:
    memory = ways.open(way)
    assert memory.read_into(address, bytearray()) == 0
    assert memory.write(address, b"") == 0


@every
@pytest.mark.parametrize("address", [1 << 63, (1 << 64) - 8, 1 << 64, 1 << 80, -8])
def test_addresses_that_no_program_has(ways: Ways, way: str, address: int) -> None:
    memory = ways.open(way)
    for attempt in (
        lambda: memory.read_into(address, bytearray(8)),
        lambda: memory.write(address, bytes(8)),
        lambda: memory.read_many([(address, 8)], bytearray(8)),
    ):
        with pytest.raises(AccessError) as caught:
            attempt()
        assert (caught.value.address, caught.value.length, caught.value.done) == (address, 8, 0)


@every
@pytest.mark.parametrize("length", [-1, 1 << 40, 1 << 62, 1 << 63, 1 << 64])
def test_lengths_that_no_memory_has(ways: Ways, way: str, length: int) -> None:
    memory = ways.open(way)
    assert isinstance(memory, Reader)
    with pytest.raises(AccessError) as caught:
        memory.read(ways.layout.area, length)
    assert (caught.value.address, caught.value.length) == (ways.layout.area, length)
    with pytest.raises(AccessError if length < 0 or length >= 1 << 63 else ValueError):
        memory.read_many([(ways.layout.area, length)], bytearray(8))


@every
def test_a_buffer_of_rows_counts_in_bytes(ways: Ways, way: str) -> None:
    rows = np.zeros((3, PAGE), np.uint8)
    memory: Memory = ways.open(way)
    assert memory.read_into(ways.layout.area, rows) == 3 * PAGE
    assert rows.tobytes() == ways.layout.content(0, 3 * PAGE)
    # As many bytes as it has rows must not count as all of it.
    with pytest.raises(AccessError) as caught:
        memory.read_into(ways.layout.end - 3, rows)
    assert caught.value.done == 3


def test_auto_without_process_vm(ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    """VCSIMG_DISABLE stands for a kernel, or a container, that has it not."""
    monkeypatch.setenv("VCSIMG_DISABLE", "process_vm")
    memory, layout = ways.open("auto"), ways.layout
    assert memory.read_many([(layout.area, 100_000), (layout.hidden, 10)], buffer := bytearray(100_010)) == 100_010
    assert buffer == layout.content(0, 100_000) + b"h" * 10
    memory.write(layout.area, b"w" * 100_000)
    with pytest.raises(AccessError) as caught:
        memory.read_into(layout.end - 50_000, bytearray(100_000))
    assert caught.value.done == 0
    ways.release()
    assert layout.checksum(layout.area, 100_000) == checksum(b"w" * 100_000)


def test_bytes_take_the_place_of_a_process() -> None:
    memory = BytesMemory({0x2000: bytearray(b"b" * 16), 0x1000: bytearray(b"a" * 0x1000), 0x5000: bytearray(b"z" * 4)})
    assert memory.read(0x1FF8, 16) == b"a" * 8 + b"b" * 8
    memory.write(0x1FFC, b"12345678")
    assert memory.read(0x1FFA, 12) == b"aa12345678bb"
    buffer = bytearray(6)
    assert memory.read_many([(0x5001, 3), (0x2004, 0), (0x1000, 3)], buffer) == 6
    assert buffer == b"zzzaaa"
    with pytest.raises(AccessError) as caught:
        memory.write(0x5002, b"####")
    assert caught.value.done == 2
    assert memory.read(0x5000, 4) == b"zz##"
    with pytest.raises(AccessError) as caught:
        memory.read_many([(0x1000, 2), (0x200C, 8)], bytearray(10))
    assert (caught.value.earlier, caught.value.done, caught.value.address) == (2, 4, 0x200C)
    assert memory.read_into(0, bytearray()) == 0


@pytest.mark.parametrize("way", ["auto", "auto with a window", "shared", "proc"])
def test_a_stream_brings_the_batches_in_their_order(ways: Ways, way: str) -> None:
    memory, area = ways.open(way), ways.layout.area
    assert isinstance(memory, Reader)
    batches = [[(area + index * 60_000, 50_000), (area + index, 9)] for index in range(15)]
    found = [bytes(view) for view in memory.stream(batches)]
    assert found == [ways.layout.content(index * 60_000, 50_000) + ways.layout.content(index, 9) for index in range(15)]


@every
def test_pages_that_cannot_be_read_are_left_out(ways: Ways, way: str) -> None:
    memory, layout = ways.open(way), ways.layout
    area, end = layout.area // PAGE, layout.end // PAGE
    numbers = np.array(sorted([end - 2, end - 1, end, end + 1, end + 5, area, area + 1, area + 2, area + 7]))
    rows, readable = read_pages(memory, numbers)
    assert rows.shape == (9, PAGE)
    assert {int(number) for number in numbers[~readable]} == {end, end + 1, end + 5}
    expected = [b"e" * PAGE] * 2 + [bytes(PAGE)] * 3 + [layout.content(page * PAGE, PAGE) for page in (0, 1, 2, 7)]
    assert [row.tobytes() for row in rows] == expected
    rows, readable = read_pages(memory, numbers[:0])
    assert (rows.shape, readable.shape) == ((0, PAGE), (0,))
