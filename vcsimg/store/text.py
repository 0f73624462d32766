"""Processes as text files and back: everything below proc/<pid>/ but the memory, and the map's cut into files."""

from __future__ import annotations

from vcsimg.errors import HostileImage
from vcsimg.image.records import Record, format_records, parse_records
from vcsimg.image.snapshot import GENERAL_REGISTERS, MappedFile, Process, Thread
from vcsimg.store.layout import parse_id

_XSAVE_LINE = 64
_XSAVE_LIMIT = 64 << 10
_REGISTERS = frozenset(GENERAL_REGISTERS)
_WORD_LIMIT = 1 << 64


def format_thread(thread: Thread) -> bytes:
    """The file threads/<tid>: registers, the XSAVE area by lines of 64 bytes that are not zero, then the other records."""
    values = thread.registers
    # Records, but not by way of a Record: these change in every capture.
    lines = [f"register name={name} value={values[name]:#x}\n" for name in GENERAL_REGISTERS if name in values]
    if thread.xsave:
        lines.append(f"xsave-size bytes={len(thread.xsave)}\n")
        for offset in range(0, len(thread.xsave), _XSAVE_LINE):
            line = thread.xsave[offset : offset + _XSAVE_LINE]
            if any(line):
                lines.append(f"xsave offset={offset} data={line.hex()}\n")
    return "".join(lines).encode() + format_records(thread.records)


def parse_thread(tid: int, data: bytes, where: str) -> Thread:
    """A thread from its file. Raises HostileImage."""
    registers: dict[str, int] = {}
    xsave = bytearray()
    others: list[Record] = []
    for record in parse_records(data, where):
        if record.kind == "register":
            name, value = record["name"], record.int("value")
            if name not in _REGISTERS or name in registers or not 0 <= value < _WORD_LIMIT:
                raise HostileImage(where, f"register {name!r}")
            registers[name] = value
        elif record.kind == "xsave-size":
            size = record.int("bytes")
            if xsave or not 0 < size <= _XSAVE_LIMIT:
                raise HostileImage(where, f"an XSAVE area of {size} bytes")
            xsave = bytearray(size)
        elif record.kind == "xsave":
            offset, line = record.int("offset"), record.bytes("data")
            if not 0 <= offset <= len(xsave) - len(line):
                raise HostileImage(where, f"XSAVE bytes at {offset}, of {len(xsave)}")
            xsave[offset : offset + len(line)] = line
        else:
            others.append(record)
    return Thread(tid, registers, bytes(xsave), tuple(others))


def format_mapped(files: tuple[MappedFile, ...]) -> bytes:
    """The file `mapped`."""
    records = []
    for file in sorted(files, key=lambda file: (file.device, file.inode)):
        fields = {"device": file.device, "inode": str(file.inode), "size": str(file.size)}
        if file.sha256 is not None:
            fields["sha256"] = file.sha256
        if file.build_id is not None:
            fields["build-id"] = file.build_id
        fields["path"] = file.path
        records.append(Record("file", fields))
    return format_records(records)


def parse_mapped(data: bytes, where: str) -> tuple[MappedFile, ...]:
    """The mapped files. Raises HostileImage."""
    files = []
    seen = set()
    for record in parse_records(data, where):
        sha256 = record.get("sha256")
        if sha256 is not None and (len(sha256) != 64 or record.bytes("sha256").hex() != sha256):
            raise HostileImage(where, f"not a SHA-256: {sha256[:80]!r}")
        file = MappedFile(record["device"], record.int("inode"), record["path"], record.int("size"), sha256, record.get("build-id"))
        if (file.device, file.inode) in seen or file.size < 0:
            raise HostileImage(where, f"file {file.device} {file.inode}")
        seen.add((file.device, file.inode))
        files.append(file)
    return tuple(files)


def format_unreadable(starts: frozenset[int]) -> bytes:
    """The file `unreadable`."""
    return format_records(Record("region", {"start": f"{start:#x}"}) for start in sorted(starts))


def parse_unreadable(data: bytes, where: str) -> frozenset[int]:
    """Starts of regions without readable content. Raises HostileImage."""
    return frozenset(record.int("start") for record in parse_records(data, where))


def format_processes(processes: tuple[Process, ...]) -> bytes:
    """The file `tree`: the root process first."""
    return format_records(
        Record.make("process", pid=process.pid, parent=process.parent, name=process.name) for process in processes
    )


def parse_processes(data: bytes, where: str) -> list[tuple[int, int, str]]:
    """(pid, parent, name) of each process, the root first. Raises HostileImage."""
    found: list[tuple[int, int, str]] = []
    for record in parse_records(data, where):
        pid = parse_id(record["pid"])
        if record.kind != "process" or pid is None or any(pid == other for other, _, _ in found):
            raise HostileImage(where, f"not a process: {record.line()[:80]!r}")
        found.append((pid, record.int("parent"), record.get("name") or ""))
    if not found:
        raise HostileImage(where, "no process")
    return found
