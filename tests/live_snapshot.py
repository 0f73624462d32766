"""A Snapshot of a stopped live process, made here by simple means, to test what reads Snapshots without a capture engine."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from subprocess import check_output

import numpy as np

from tests.conftest import Target, compile_target, wait_for
from vcsimg.errors import AccessError
from vcsimg.image.pages import DictPieces, ImageMemory, Memory, Piece, PieceSource
from vcsimg.image.records import Record
from vcsimg.image.region import Region, RegionMap, backing_of
from vcsimg.image.sections.host import XsaveComponent
from vcsimg.image.sections.item import records
from vcsimg.image.sections.program import Argument, AuxvEntry
from vcsimg.image.snapshot import GENERAL_REGISTERS, FileContent, MappedFile, Process, Snapshot, Thread
from vcsimg.image.units import PAGE_SIZE, PIECE_SIZE

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_LIBC.ptrace.restype = ctypes.c_long
_SEIZE, _INTERRUPT, _DETACH, _GETREGS, _GETREGSET = 0x4206, 0x4207, 17, 12, 0x4204
_NT_X86_XSTATE = 0x202
_WALL = 0x40000000


class LiveMemory:
    """/proc/PID/mem through the Memory protocol."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self.fd)

    def read(self, address: int, length: int) -> bytes:
        data = b""
        while len(data) < length:
            try:
                part = os.pread(self.fd, length - len(data), address + len(data))
            except (OSError, OverflowError):
                part = b""
            if not part:
                raise AccessError(self.pid, address, length, len(data))
            data += part
        return data


class LivePieces(PieceSource):
    """Pieces read from /proc/PID/mem when asked: own content is what differs from the backing."""

    def __init__(self, memory: LiveMemory, regions: RegionMap, files: LiveFiles, backing: dict[tuple[str, int], str]) -> None:
        self.memory, self.regions, self.files, self.backing = memory, regions, files, backing
        self.candidates = {number for region in regions if len(region.range) < 1 << 32 for number in region.range.pieces()}

    def numbers(self) -> Iterable[int]:
        return [number for number in sorted(self.candidates) if self.piece(number) is not None]

    def piece(self, number: int) -> Piece | None:
        piece = Piece.empty()
        base = number * PIECE_SIZE
        for region in self.regions.overlapping(base, base + PIECE_SIZE):
            sha256 = backing_of(region, self.backing)
            for address in range(max(region.start, base), min(region.end, base + PIECE_SIZE), PAGE_SIZE):
                try:
                    data = self.memory.read(address, PAGE_SIZE)
                except AccessError:
                    continue
                behind = self.files.read(sha256, region.offset + address - region.start, PAGE_SIZE) if sha256 else b""
                if data != behind.ljust(PAGE_SIZE, b"\0"):
                    page = (address - base) // PAGE_SIZE
                    piece.own[page] = True
                    piece.data[page] = np.frombuffer(data, np.uint8)
        return piece if piece.own.any() else None


class LiveFiles:
    """Contents of mapped files, in memory."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}

    def add(self, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        self.contents[sha256] = data
        return sha256

    def size(self, sha256: str) -> int | None:
        return len(self.contents[sha256]) if sha256 in self.contents else None

    def read(self, sha256: str, offset: int, length: int) -> bytes:
        return self.contents[sha256][offset : offset + length]

    def file(self, sha256: str) -> FileContent:
        return FileContent(sha256, len(self.contents[sha256]), None, lambda offset, length: self.read(sha256, offset, length))


def snapshot_of(*pids: int, image: bool = True, frozen: bool = False, wide: tuple[int, ...] = ()) -> Snapshot:
    """A Snapshot of stopped processes (SIGSTOP); with `image`, of own pages over mapped files; else of plain live memory.

    `frozen`: with a copy of all own pages, so that the process can go on. Regions of 4 GiB and more are taken to hold nothing
    but the pieces at the addresses `wide`.
    """
    files = LiveFiles()
    processes = tuple(_process(pid, files, image, wide) for pid in pids)
    if frozen:
        processes = tuple(replace(process, memory=_copy(process.memory)) for process in processes)
    return Snapshot(processes, host=xsave_layout(), files={sha256: files.file(sha256) for sha256 in files.contents})


def _copy(memory: Memory | None) -> Memory:
    assert isinstance(memory, ImageMemory)
    pieces = {number: memory.pieces.piece(number) for number in memory.pieces.numbers()}
    held = DictPieces({number: piece for number, piece in pieces.items() if piece is not None})
    return ImageMemory(memory.regions, held, memory.backing, memory.files, memory.unreadable)


def _process(pid: int, files: LiveFiles, image: bool, wide: tuple[int, ...]) -> Process:
    regions = _regions(pid)
    memory = LiveMemory(pid)
    mapped, backing = _mapped(pid, regions, files)
    unreadable = frozenset(region.start for region in regions if not _readable(memory, region))
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    threads = tuple(_thread(tid) for tid in sorted(map(int, os.listdir(f"/proc/{pid}/task"))))
    pieces = LivePieces(memory, regions, files, backing)
    pieces.candidates.update(address // PIECE_SIZE for address in wide)
    return Process(
        pid=pid,
        parent=int(fields[1]),
        name=Path(f"/proc/{pid}/comm").read_text().rstrip("\n"),
        regions=regions,
        threads=threads,
        mapped=mapped,
        state=_state(pid),
        unreadable=unreadable,
        memory=ImageMemory(regions, pieces, backing, files, unreadable) if image else memory,
    )


def _regions(pid: int) -> RegionMap:
    line = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (....) ([0-9a-f]+) (\S+) (\d+) *(.*)")
    regions = []
    with open(f"/proc/{pid}/maps") as maps:
        for found in map(line.match, maps.read().splitlines()):
            assert found is not None
            start, end, offset = (int(found[index], 16) for index in (1, 2, 4))
            regions.append(Region(start, end, found[3], offset, found[5], int(found[6]), found[7]))
    return RegionMap(regions)


def _readable(memory: LiveMemory, region: Region) -> bool:
    try:
        memory.read(region.start, 1)
    except AccessError:
        return False
    return True


def _mapped(pid: int, regions: RegionMap, files: LiveFiles) -> tuple[tuple[MappedFile, ...], dict[tuple[str, int], str]]:
    mapped: dict[tuple[str, int], MappedFile] = {}
    for region in regions:
        key = (region.device, region.inode)
        if not region.has_file or key in mapped:
            continue
        try:
            data = Path(f"/proc/{pid}/map_files/{region.start:x}-{region.end:x}").read_bytes()
        except OSError:
            try:
                data = Path(region.name).read_bytes()
            except OSError:
                mapped[key] = MappedFile(*key, region.name, 0, None)
                continue
        mapped[key] = MappedFile(*key, region.name, len(data), files.add(data), build_id_of(data))
    return tuple(mapped.values()), {key: file.sha256 for key, file in mapped.items() if file.sha256}


def build_id_of(data: bytes) -> str | None:
    """The GNU build id in the notes of an ELF file."""
    at = data.find(b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0")
    return data[at + 16 : at + 36].hex() if data.startswith(b"\x7fELF") and at >= 0 else None


def _thread(tid: int) -> Thread:
    general = (ctypes.c_uint64 * len(GENERAL_REGISTERS))()
    area = ctypes.create_string_buffer(1 << 16)
    vector = (ctypes.c_uint64 * 2)(ctypes.addressof(area), len(area))
    _ptrace(_SEIZE, tid)
    try:
        _ptrace(_INTERRUPT, tid)
        os.waitpid(tid, _WALL)
        _ptrace(_GETREGS, tid, 0, ctypes.addressof(general))
        _ptrace(_GETREGSET, tid, _NT_X86_XSTATE, ctypes.addressof(vector))
    finally:
        _ptrace(_DETACH, tid)
    return Thread(tid, dict(zip(GENERAL_REGISTERS, general, strict=True)), area.raw[: vector[1]])


def _ptrace(request: int, tid: int, address: int = 0, data: int = 0) -> None:
    if _LIBC.ptrace(request, tid, address, data) < 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of {tid}")


def _state(pid: int) -> dict[str, tuple[Record, ...]]:
    """The sections that exporters need most."""
    words = np.frombuffer(Path(f"/proc/{pid}/auxv").read_bytes(), np.uint64).reshape(-1, 2).tolist()
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    return {
        "auxv": records(AuxvEntry(key, value) for key, value in words if key),
        "cmdline": records(Argument(argument.decode("utf-8", "surrogateescape")) for argument in arguments),
    }


def xsave_layout() -> tuple[Record, ...]:
    """The records of this machine's XSAVE components, from CPUID leaf 0xd."""
    return records(XsaveComponent(*words) for words in json.loads(check_output([compile_target("export_xsave")])))


def stop_in_read(target: Target) -> None:
    """Stop a target once every thread of it waits in read(2)."""
    tasks = Path(f"/proc/{target.pid}/task")
    wait_for(lambda: all((task / "syscall").read_text().startswith("0 ") for task in tasks.iterdir()))
    target.stop()
