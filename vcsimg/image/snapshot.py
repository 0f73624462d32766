"""The narrow waist: a Snapshot is what capture makes, the store keeps, and everything else reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vcsimg.image.records import Record
from vcsimg.image.region import RegionMap

if TYPE_CHECKING:
    from vcsimg.image.pages import Memory, PieceChange

GENERAL_REGISTERS = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "orig_rax",
    "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)  # fmt: skip
"""In the order of struct user_regs_struct (x86-64, sys/user.h): 27 words of 8 bytes."""

Section = tuple[Record, ...]

FILE_PART = 64 << 10
"""Bytes: what is stored anew of a file in which one byte has changed."""


@dataclass(frozen=True)
class Thread:
    """One thread: `registers` by the names in GENERAL_REGISTERS, unsigned; `xsave` as PTRACE_GETREGSET(NT_X86_XSTATE) gives it
    (uncompacted, sized by CPUID; empty if unknown); `records`: everything else, one item a line."""

    tid: int
    registers: Mapping[str, int]
    xsave: bytes = b""
    records: Section = ()


@dataclass(frozen=True)
class MappedFile:
    """A file that regions map, known to them by (device, inode).

    `sha256` is None if its content could not be read when captured: then the pages that were readable have own content.
    `build_id` is hexadecimal, or None if the file has none.
    """

    device: str
    inode: int
    path: str
    size: int
    sha256: str | None
    build_id: str | None = None


@dataclass(frozen=True)
class Process:
    """One process of an image.

    `state` maps section names (status, files, signals, …) to records. `unreadable`: starts of regions that had no readable content.
    `memory` reads it; `changes`, only in a Snapshot fresh from a capture, are its memory relative to `Snapshot.base`: read once.
    """

    pid: int
    parent: int
    name: str
    regions: RegionMap
    threads: tuple[Thread, ...]
    mapped: tuple[MappedFile, ...] = ()
    state: Mapping[str, Section] = field(default_factory=dict)
    unreadable: frozenset[int] = frozenset()
    memory: Memory | None = None
    changes: Iterable[PieceChange] | None = None

    def section(self, name: str) -> Section:
        """The records of a section; empty if it has none."""
        return self.state.get(name, ())

    def record(self, section: str, kind: str) -> Record | None:
        """The first record of a kind in a section."""
        return next((record for record in self.section(section) if record.kind == kind), None)

    def backing(self) -> dict[tuple[str, int], str]:
        """sha256 of the content behind (device, inode), for the files whose content is known."""
        return {(file.device, file.inode): file.sha256 for file in self.mapped if file.sha256 is not None}


@dataclass(frozen=True)
class FileContent:
    """Content of a file, read when asked: `read(offset, length)` gives bytes [offset, offset + length).

    `parts`, of a file that may grow or change from capture to capture: a key for each FILE_PART bytes, equal for equal bytes as long as the
    capturing session lasts, so that the store need not ask for those that it has.
    """

    sha256: str
    size: int
    build_id: str | None
    read: Callable[[int, int], bytes]
    parts: tuple[bytes, ...] | None = None


@dataclass
class CaptureFacts:
    """How a capture went: written to the trailers of its commit.

    `monotonic`: the instant, in nanoseconds of CLOCK_MONOTONIC: remaining times of system calls are counted from it.
    `pause`: seconds from the first thread stopped to the last resumed. Counts that are only known when the memory has
    been read through are filled in while it is stored.
    """

    engine: str
    time: float
    pause: float = 0.0
    bytes_read: int = 0
    pages_changed: int = 0
    start_ticks: int = 0
    monotonic: int = 0
    boot_id: str = ""
    host: str = ""
    kernel: str = ""
    source_commit: str | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Snapshot:
    """One instant of one process or process tree; `processes[0]` is the root.

    `base`: the capture (commit id) that `changes` of the processes are relative to; None: they are the whole image.
    `files`: contents of mapped files, by sha256, that the store may not have yet. `crowded`: others wait for the processors; what can be done by one thread
    should be.
    """

    processes: tuple[Process, ...]
    host: Section = ()
    files: Mapping[str, FileContent] = field(default_factory=dict)
    base: str | None = None
    facts: CaptureFacts | None = None
    crowded: bool = False

    def process(self, pid: int) -> Process:
        """The process with this pid. Raises KeyError."""
        for process in self.processes:
            if process.pid == pid:
                return process
        raise KeyError(pid)
