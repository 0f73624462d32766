"""What a core is like for images that no test could make a live process have."""

from __future__ import annotations

import io
import os
import re
import resource
import shutil
import stat
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest

from tests.export.cores import Core
from tests.export.images import anonymous, image
from vcsimg.errors import AccessError, DamagedImage, ExportError, HostileImage
from vcsimg.export import save_core, write_core
from vcsimg.image.pages import ImageMemory, Piece, PieceSource
from vcsimg.image.sections.host import XsaveComponent
from vcsimg.image.sections.item import records
from vcsimg.image.sections.signals import Disposition
from vcsimg.image.sections.status import Identity
from vcsimg.image.sections.thread import Dequeued, Pending, SignalMask
from vcsimg.image.snapshot import GENERAL_REGISTERS, Snapshot, Thread
from vcsimg.image.units import PIECE_SHIFT, PIECE_SIZE

BASE = 0x10000000


def test_more_segments_than_the_elf_header_can_count(tmp_path: Path) -> None:
    count = 70_000
    regions = [anonymous(BASE + index * 8192, 4096) for index in range(count)]
    last = regions[-1].start
    snapshot = image(regions, {last: b"the last page"})
    core = tmp_path / "many.core"
    save_core(snapshot, snapshot.processes[0], core)
    held = Core(core)
    assert len(held.loads) == count
    assert held.read(last, 13) == b"the last page"
    if shutil.which("gdb"):
        done = subprocess.run(["gdb", "-nx", "-batch", "-ex", f"x/s {last:#x}", "-c", core], capture_output=True, text=True)
        assert "the last page" in done.stdout
    if shutil.which("eu-readelf"):
        text = subprocess.check_output(["eu-readelf", "-l", core], text=True)
        assert len(re.findall(r"^ +LOAD ", text, re.M)) == count


def test_the_main_thread_comes_first_then_the_others_by_number() -> None:
    snapshot = image([anonymous(BASE, 4096)], {}, *(Thread(tid, {"rip": tid}) for tid in (30, 100, 99)))
    assert [thread[0] for thread in statuses(snapshot)] == [100, 30, 99]


def test_registers_stand_in_the_order_of_the_kernel() -> None:
    registers = {name: number + 1 for number, name in enumerate(GENERAL_REGISTERS)}
    snapshot = image([anonymous(BASE, 4096)], {}, Thread(100, registers))
    (status,) = (note[2] for note in notes(snapshot) if note[1] == 1)
    assert struct.unpack_from("<27Q", status, 112) == tuple(range(1, 28))
    assert len(status) == 336


def test_signals_of_a_thread_and_of_its_process() -> None:
    info = struct.pack("<iii", 10, 0, -6).ljust(128, b"\0")
    thread = Thread(100, {}, records=records([SignalMask(0x6), Pending(12, -6, None), Dequeued(10, -6, info)]))
    snapshot = image([anonymous(BASE, 4096)], {}, thread)
    process = replace(
        snapshot.processes[0],
        state={
            "signals": records([Disposition(0, 0), Pending(1, 0, None)]),
            "status": records([Identity(100, 7, 55, 44, (100,), None, None, 0, 17, True, 0o22)]),
        },
    )
    written = notes(replace(snapshot, processes=(process,)))
    (status,) = (note[2] for note in written if note[1] == 1)
    signal, _, _, current, pending, held, *ids = struct.unpack_from("<iiihxxQQ4i", status)
    assert (signal, current, pending, held) == (10, 10, 1 | 1 << 11, 6)
    assert ids == [100, 1, 55, 44]
    assert info in [note[2] for note in written if note[1] == 0x53494749]
    (person,) = (note[2] for note in written if note[1] == 3)
    assert person[:2] == b"\x03T"


def test_the_vector_area_of_other_cpus_is_moved_to_where_debuggers_look() -> None:
    """AMD, with AVX-512 and PKRU: CPUID leaf 0xd."""
    components = {2: (576, 256), 5: (832, 64), 6: (896, 512), 7: (1408, 1024), 9: (2432, 8)}
    area = bytearray(2440)
    area[:576] = os.urandom(576)
    for number, (offset, size) in components.items():
        area[offset : offset + size] = bytes([number]) * size
    snapshot = image([anonymous(BASE, 4096)], {}, Thread(100, {}, bytes(area)))
    host = records(XsaveComponent(number, *place) for number, place in components.items())
    written = {note[1]: note[2] for note in notes(replace(snapshot, host=host))}
    moved = written[0x202]
    assert len(moved) == 2696
    assert moved[:576] == bytes(area[:576])
    usual = {2: 576, 5: 1088, 6: 1152, 7: 1664, 9: 2688}
    for number, (_, size) in components.items():
        assert moved[usual[number] : usual[number] + size] == bytes([number]) * size
    described = {row[0]: (row[2], row[1]) for row in struct.iter_unpack("<4I", written[0x205])}
    assert described == {number: (usual[number], components[number][1]) for number in components}
    assert written[2] == bytes(area[:512])


def test_the_vector_area_stays_as_it_is_where_debuggers_agree() -> None:
    area = os.urandom(832)
    snapshot = image([anonymous(BASE, 4096)], {}, Thread(100, {}, area))
    for host in ((), records([XsaveComponent(2, 576, 256)])):
        written = {note[1]: note[2] for note in notes(replace(snapshot, host=host))}
        assert written[0x202] == area


def test_numbers_that_no_process_has_are_refused() -> None:
    for thread in (Thread(1 << 40, {}), Thread(100, {"rip": 1 << 64})):
        snapshot = image([anonymous(BASE, 4096)], {}, thread)
        with pytest.raises(HostileImage):
            write_core(snapshot, snapshot.processes[0], io.BytesIO())


def test_a_process_without_memory_is_refused() -> None:
    snapshot = image([anonymous(BASE, 4096)], {})
    with pytest.raises(AccessError):
        write_core(snapshot, replace(snapshot.processes[0], memory=None), io.BytesIO())


def test_a_core_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "core"
    save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


class Damaged(PieceSource):
    """Pieces of which one cannot be read."""

    def numbers(self) -> list[int]:
        return [BASE >> PIECE_SHIFT, (BASE >> PIECE_SHIFT) + 1]

    def piece(self, number: int) -> Piece | None:
        if number != BASE >> PIECE_SHIFT:
            raise DamagedImage("piece", "for the test")
        piece = Piece.empty()
        piece.own[:] = True
        piece.data[:] = 1
        return piece


def test_a_core_that_failed_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    snapshot = image([anonymous(BASE, 2 * PIECE_SIZE)], {})
    process = snapshot.processes[0]
    assert isinstance(process.memory, ImageMemory)
    memory = ImageMemory(process.regions, Damaged(), {}, process.memory.files)
    path = tmp_path / "core"
    path.write_text("the core of yesterday")
    with pytest.raises(DamagedImage):
        save_core(snapshot, replace(process, memory=memory), path)
    assert path.read_text() == "the core of yesterday"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no/such/core: No such file"):
        save(tmp_path / "no" / "such" / "core")


def test_a_file_that_cannot_grow_is_named_and_removed(tmp_path: Path) -> None:
    """As on a full disk: the write fails half way. Python ignores SIGXFSZ, so that it is an error."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    snapshot = image([anonymous(BASE, 4 << 20)], {BASE + (index << 12): b"x" for index in range(1024)})
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(ExportError, match=r"core: File too large") as caught:
            save_core(snapshot, snapshot.processes[0], tmp_path / "core")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.remedy == "Raise the limit of the shell (ulimit -f), or write to another file system."
    assert list(tmp_path.iterdir()) == []


def test_progress_ends_at_the_total() -> None:
    snapshot = image([anonymous(BASE, 8 << 20)], {BASE: b"x", BASE + (5 << 20): b"y"})
    seen: list[tuple[int, int]] = []
    stream = io.BytesIO()
    write_core(snapshot, snapshot.processes[0], stream, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(stream.getvalue()), len(stream.getvalue()))
    assert seen == sorted(seen)


def save(path: Path) -> None:
    snapshot = image([anonymous(BASE, 4096)], {BASE: b"x"})
    save_core(snapshot, snapshot.processes[0], path)


def notes(snapshot: Snapshot) -> list[tuple[bytes, int, bytes]]:
    with NamedTemporaryFile() as file:
        save_core(snapshot, snapshot.processes[0], Path(file.name))
        return Core(Path(file.name)).notes


def statuses(snapshot: Snapshot) -> list[tuple[int, bytes]]:
    """(tid, registers) of each thread."""
    return [(struct.unpack_from("<i", note[2], 32)[0], note[2][112:328]) for note in notes(snapshot) if note[1] == 1]
