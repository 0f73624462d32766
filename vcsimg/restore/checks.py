"""What is checked of an image before anything is started: it is untrusted."""

from __future__ import annotations

import platform

from vcsimg.errors import HostileImage, RestoreError
from vcsimg.image.pages import ImageMemory
from vcsimg.image.sections import HOST, SECTIONS, THREAD
from vcsimg.image.sections.host import CpuFeatures, Kernel, Machine
from vcsimg.image.sections.item import Item, select
from vcsimg.image.snapshot import GENERAL_REGISTERS, Process, Section, Snapshot
from vcsimg.image.units import PAGE_SIZE
from vcsimg.kernel.x86_64 import CS_64BIT
from vcsimg.restore.skeleton import TASK_SIZE

_LARGEST_PID = 1 << 22
_LOWEST = 1 << 12
_MOST_THREADS = 100_000
_FILE_LIMIT = 1 << 62


def check(snapshot: Snapshot) -> None:
    """Raises HostileImage for what vcsimg would not write, RestoreError for what cannot run here."""
    if not snapshot.processes:
        raise HostileImage("image", "it has no process")
    _check_host(snapshot.host)
    seen: set[int] = set()
    for process in snapshot.processes:
        where = f"process {process.pid}"
        ids = [thread.tid for thread in process.threads]
        if not 0 < len(ids) <= _MOST_THREADS:
            raise HostileImage(where, f"{len(ids)} threads")
        # A main thread that has ended is not among them; nobody else has its id.
        for number in ids if process.pid in ids else [process.pid, *ids]:
            if not 0 < number < _LARGEST_PID or number in seen:
                raise HostileImage(where, f"{number} is no thread id, or that of two threads")
            seen.add(number)
        _check_sections(process.state, SECTIONS, where)
        _check_regions(process, where)
        for thread in process.threads:
            _check_section(thread.records, THREAD, f"thread {thread.tid}")
            _check_registers(process, thread.tid, thread.registers)
    _check_parents(snapshot)


def _check_host(host: Section) -> None:
    _check_section(host, HOST, "host")
    for kernel in select(host, Kernel):
        if kernel.machine != platform.machine():
            raise RestoreError("image", f"it was captured on {kernel.machine}, and this is {platform.machine()}")
    for machine in select(host, Machine):
        if machine.page_size != PAGE_SIZE:
            raise RestoreError("image", f"it has pages of {machine.page_size} bytes")
    for features in select(host, CpuFeatures):
        missing = sorted(set(features.names.split("|")) - _own_features())
        if missing:
            raise RestoreError("image", f"this processor lacks features that its programs may use: {', '.join(missing)}")


def _own_features() -> set[str]:
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("flags"):
                return set(line.partition(":")[2].split())
    return set()


def _check_sections(state: object, known: object, where: str) -> None:
    assert isinstance(state, dict)
    assert isinstance(known, dict)
    for name, section in state.items():
        if name in known:
            _check_section(section, known[name], f"{where} {name}")


def _check_section(section: Section, kinds: tuple[type[Item], ...], where: str) -> None:
    """Every record must be one that we know, and well-formed."""
    by_name = {kind.kind: kind for kind in kinds}
    for record in section:
        kind = by_name.get(record.kind)
        if kind is None:
            raise HostileImage(where, f"unknown kind of record: {record.kind!r}")
        kind.parse(record)


def _check_regions(process: Process, where: str) -> None:
    if not isinstance(process.memory, ImageMemory):
        raise HostileImage(where, "it has no memory")
    for region in process.regions:
        if region.name == "[vsyscall]":
            continue
        if region.start < _LOWEST or region.end > TASK_SIZE:
            raise HostileImage(where, f"region {region.start:#x}-{region.end:#x} is outside of what a process can have")
        if not 0 <= region.offset < _FILE_LIMIT or region.offset % PAGE_SIZE:
            raise HostileImage(where, f"region {region.start:#x}: an offset of {region.offset:#x}")
        if "\0" in region.name:
            raise HostileImage(where, f"region {region.start:#x}: its name has a zero byte")
        if region.has_file and region.name.startswith("/") and "/../" in f"{region.name}/":
            raise HostileImage(where, f"region {region.start:#x}: its path has '..'")
    for file in process.mapped:
        if not 0 <= file.size < _FILE_LIMIT:
            raise HostileImage(where, f"mapped file {file.path}: a size of {file.size}")


def _check_registers(process: Process, tid: int, registers: object) -> None:
    assert isinstance(registers, dict)
    where = f"process {process.pid} thread {tid}"
    if set(registers) != set(GENERAL_REGISTERS):
        raise HostileImage(where, "it has not the registers of x86-64")
    if registers["cs"] != CS_64BIT:
        raise RestoreError(where, "it runs 32-bit code")
    region = process.regions.find(registers["rip"])
    if region is None or region.perms[2] != "x":
        raise HostileImage(where, f"its instruction pointer {registers['rip']:#x} leads to no code")
    for name in ("fs_base", "gs_base"):
        if registers[name] >= TASK_SIZE:
            raise HostileImage(where, f"its {name} is {registers[name]:#x}")


def _check_parents(snapshot: Snapshot) -> None:
    """Parents come before their children, and the root's is not among them."""
    known: set[int] = set()
    for process in snapshot.processes:
        if known and process.parent not in known:
            raise HostileImage(f"process {process.pid}", f"its parent {process.parent} does not come before it")
        known.add(process.pid)
