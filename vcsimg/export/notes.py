"""The notes of a core file: what is not memory. Sources: include/uapi/linux/elfcore.h, linux/elf.h, fs/binfmt_elf.c, core(5).

prstatus (x86-64, 336 bytes)                      prpsinfo (x86-64, 136 bytes)
  0 si_signo, si_code, si_errno   3 × 4             0 state, sname, zombie, nice   4 × 1, padding 4
 12 cursig 2, padding 2                             8 flags 8
 16 sigpend 8, sighold 8                           16 uid 4, gid 4
 32 pid, ppid, pgrp, sid          4 × 4            24 pid, ppid, pgrp, sid         4 × 4
 48 utime, stime, cutime, cstime  4 × 16           40 fname 16
112 user_regs_struct              27 × 8           56 psargs 80
328 fpvalid 4, padding 4
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TypeVar

from vcsimg.errors import HostileImage
from vcsimg.export import elf
from vcsimg.export.xsave import LEGACY_SIZE, Layout
from vcsimg.image.region import RegionMap
from vcsimg.image.sections.item import Item, select
from vcsimg.image.sections.program import Argument, AuxvEntry
from vcsimg.image.sections.status import Credentials, Identity
from vcsimg.image.sections.thread import Dequeued, Pending, Scheduling, SignalMask
from vcsimg.image.snapshot import GENERAL_REGISTERS, Process, Section, Snapshot, Thread
from vcsimg.image.units import PAGE_SIZE

_Kind = TypeVar("_Kind", bound=Item)
_Ids = tuple[int, int, int]
"""Parent, process group, session."""

_CORE, _LINUX = b"CORE", b"LINUX"
_NT_PRSTATUS = 1
_NT_FPREGSET = 2
_NT_PRPSINFO = 3
_NT_AUXV = 6
_NT_FILE = 0x46494C45
_NT_SIGINFO = 0x53494749
_NT_X86_XSTATE = 0x202
_NT_X86_XSAVE_LAYOUT = 0x205

_SIGINFO_SIZE = 128
_STATES = "RSDTZW"
"""The kernel's order, so that pr_state is the index (fs/binfmt_elf.c, fill_psinfo)."""
_COMMAND_SIZE = 80


def notes(snapshot: Snapshot, process: Process) -> bytes:
    """All notes of a process, the main thread's first: debuggers begin with the first thread that they meet.

    What the image does not say stands as zeros, or is left out. Raises HostileImage for numbers that no process has.
    """
    layout = Layout.of(snapshot.host)
    identity = _first(process.section("status"), Identity)
    ids = (process.parent, identity.group if identity else 0, identity.session if identity else 0)
    main_first = sorted(process.threads, key=lambda thread: (thread.tid != process.pid, thread.tid))
    try:
        groups = [list(_thread_notes(process, thread, ids, layout)) for thread in main_first] or [[]]
        groups[0][1:1] = _process_notes(process, main_first[0] if main_first else None, ids, layout)
    except struct.error as error:
        raise HostileImage(f"process {process.pid}", str(error)) from None
    return b"".join(part for group in groups for part in group)


def auxiliary_vector(process: Process) -> dict[int, int]:
    """The auxiliary vector (getauxval(3)), without its end mark; empty if the image has none."""
    return {entry.key: entry.value for entry in select(process.section("auxv"), AuxvEntry)}


def _thread_notes(process: Process, thread: Thread, ids: _Ids, layout: Layout) -> Iterator[bytes]:
    """What follows an NT_PRSTATUS note, up to the next one, belongs to its thread."""
    dequeued = _first(thread.records, Dequeued)
    has_xsave = len(thread.xsave) >= LEGACY_SIZE
    yield elf.note(_CORE, _NT_PRSTATUS, _prstatus(process, thread, ids, dequeued.signal if dequeued else 0, has_xsave))
    if has_xsave:
        yield elf.note(_CORE, _NT_FPREGSET, thread.xsave[:LEGACY_SIZE])
        yield elf.note(_LINUX, _NT_X86_XSTATE, layout.area(thread.xsave))
    yield elf.note(_CORE, _NT_SIGINFO, (dequeued.info if dequeued else b"")[:_SIGINFO_SIZE].ljust(_SIGINFO_SIZE, b"\0"))


def _process_notes(process: Process, main: Thread | None, ids: _Ids, layout: Layout) -> Iterator[bytes]:
    yield elf.note(_CORE, _NT_PRPSINFO, _prpsinfo(process, main, ids))
    vector = auxiliary_vector(process)
    if vector:  # from it debuggers learn where the program and its dynamic linker were loaded
        yield elf.note(_CORE, _NT_AUXV, b"".join(struct.pack("<QQ", *pair) for pair in [*vector.items(), (0, 0)]))
    yield elf.note(_CORE, _NT_FILE, _files(process.regions))
    if layout.offsets:
        yield elf.note(_LINUX, _NT_X86_XSAVE_LAYOUT, layout.description())


def _prstatus(process: Process, thread: Thread, ids: _Ids, signal: int, has_xsave: bool) -> bytes:
    mask = _first(thread.records, SignalMask)
    pending = 0
    for waiting in (*select(thread.records, Pending), *select(process.section("signals"), Pending)):
        pending |= 1 << max(0, waiting.signal - 1)
    head = struct.pack("<iiihxxQQ", signal, 0, 0, signal, pending, mask.mask if mask else 0)
    registers = struct.pack("<27Q", *(thread.registers.get(name, 0) for name in GENERAL_REGISTERS))
    times = bytes(4 * 16)
    return head + struct.pack("<4i", thread.tid, *ids) + times + registers + struct.pack("<ixxxx", has_xsave)


def _prpsinfo(process: Process, main: Thread | None, ids: _Ids) -> bytes:
    identity = _first(process.section("status"), Identity)
    credentials = _first(process.section("status"), Credentials)
    scheduling = _first(main.records, Scheduling) if main else None
    state = "T" if identity and identity.stopped else "S"
    command = b" ".join(_bytes(argument.value) for argument in select(process.section("cmdline"), Argument))
    head = struct.pack("<bcbb4xQ", _STATES.index(state), state.encode(), 0, scheduling.nice if scheduling else 0, 0)
    users = struct.pack("<II", credentials.uid[0] if credentials else 0, credentials.gid[0] if credentials else 0)
    names = struct.pack(f"16s{_COMMAND_SIZE}s", _bytes(process.name)[:15], command[: _COMMAND_SIZE - 1])
    return head + users + struct.pack("<4i", process.pid, *ids) + names


def _files(regions: RegionMap) -> bytes:
    """count, page size, then start, end, offset in pages of every region with a file, then their names, each with a NUL."""
    mapped = [region for region in regions if region.has_file]
    numbers = [number for region in mapped for number in (region.start, region.end, region.offset // PAGE_SIZE)]
    names = b"".join(_bytes(region.name) + b"\0" for region in mapped)
    return struct.pack(f"<{2 + len(numbers)}Q", len(mapped), PAGE_SIZE, *numbers) + names


def _first(section: Section, kind: type[_Kind]) -> _Kind | None:
    return next(iter(select(section, kind)), None)


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
