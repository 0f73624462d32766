"""/proc/PID as values: proc(5), fs/proc/ of the kernel.

Parsers are pure functions of bytes, so that they can be tested; readers open the file and call them. Readers raise OSError:
FileNotFoundError or ProcessLookupError when there is no such process any more, PermissionError when it may not be looked at.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from vcsimg.image.region import Region

PF_KTHREAD = 0x00200000

_ESCAPE = b"\\012"


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that vcsimg uses. `starttime` in clock ticks since boot; `flags` are the kernel's PF_*."""

    pid: int
    comm: str
    state: str
    ppid: int
    pgrp: int
    session: int
    tty_nr: int
    tpgid: int
    flags: int
    num_threads: int
    starttime: int
    start_code: int
    end_code: int
    start_stack: int
    exit_signal: int
    start_data: int
    end_data: int
    start_brk: int
    arg_start: int
    arg_end: int
    env_start: int
    env_end: int
    exit_code: int


# Positions behind the ")" that ends the name (proc_pid_stat(5) counts from 1 and the state is field 3).
_STAT_FIELDS = (1, 2, 3, 4, 5, 6, 17, 19, 23, 24, 25, 35, 42, 43, 44, 45, 46, 47, 48, 49)


def parse_stat(content: bytes) -> Stat:
    """A line of stat. The name may hold spaces and parentheses: it ends at the last one."""
    head, _, rest = content.rpartition(b")")
    pid, _, comm = head.partition(b" (")
    words = rest.split()
    numbers = [int(words[index]) for index in _STAT_FIELDS]
    return Stat(int(pid), os.fsdecode(comm), words[0].decode(), *numbers)


def parse_status(content: bytes) -> dict[str, str]:
    """Lines of status by their name, values stripped. The kernel escapes newlines and backslashes in the process's name."""
    lines = (line.partition(":") for line in os.fsdecode(content).split("\n"))
    return {key: value.strip() for key, colon, value in lines if colon}


def status_line(content: bytes, name: str) -> str:
    """The value of one line of status, stripped: for those who need few. Raises ValueError if there is no such line."""
    start = content.index(b"\n%s:\t" % name.encode()) + len(name) + 3
    return os.fsdecode(content[start : content.index(b"\n", start)]).strip()


def parse_maps(content: bytes) -> list[Region]:
    """Regions of a maps file, without VmFlags. The kernel writes a newline in a file's name as \\012, and escapes nothing else: a
    name that holds those four characters itself cannot be told apart."""
    return [_region(line) for line in content.split(b"\n") if line]


def _region(line: bytes) -> Region:
    words = line.split(None, 5)
    start, _, end = words[0].partition(b"-")
    name = words[5] if len(words) > 5 else b""
    return Region(
        int(start, 16),
        int(end, 16),
        words[1].decode(),
        int(words[2], 16),
        words[3].decode(),
        int(words[4]),
        os.fsdecode(name.replace(_ESCAPE, b"\n")),
    )


def parse_smaps_flags(content: bytes) -> dict[int, tuple[str, ...]]:
    """VmFlags by the start of the region, in the kernel's order."""
    found: dict[int, tuple[str, ...]] = {}
    start = -1
    for line in content.split(b"\n"):
        if line.startswith(b"VmFlags:"):
            found[start] = tuple(flag.decode() for flag in line.split()[1:])
        elif line and line[0] in b"0123456789abcdef":  # field names begin with a capital letter
            start = int(line[: line.index(b"-")], 16)
    return found


def read(pid: int, name: str) -> bytes:
    """The content of /proc/PID/NAME."""
    fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def available_memory() -> int:
    """Bytes that programs can still get without swapping: MemAvailable of proc_meminfo(5)."""
    with open("/proc/meminfo", "rb") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(b"MemAvailable:")) << 10


def read_maps(pid: int) -> list[Region]:
    """All regions, ascending, without VmFlags. Consistent only if the process is stopped."""
    return parse_maps(read(pid, "maps"))


def read_smaps_flags(pid: int) -> dict[int, tuple[str, ...]]:
    """VmFlags of every region by its start. Costs a walk of all page tables: some ms per GiB."""
    return parse_smaps_flags(read(pid, "smaps"))


def status(pid: int, tid: int | None = None) -> dict[str, str]:
    """status of the process, or of one of its threads."""
    return parse_status(read(pid, "status" if tid is None else f"task/{tid}/status"))


def stat(pid: int, tid: int | None = None) -> Stat:
    """stat of the process, or of one of its threads."""
    return parse_stat(read(pid, "stat" if tid is None else f"task/{tid}/stat"))


def threads(pid: int) -> list[int]:
    """Thread ids, ascending."""
    return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))


def speaker(pid: int) -> int:
    """A thread that has the process's memory and files: the main one, unless it has ended while others live."""
    own = stat(pid)
    if own.state not in "ZX" or own.num_threads <= 1:
        return pid
    for tid in threads(pid):
        try:
            if stat(pid, tid).state not in "ZX":
                return tid
        except OSError:
            continue  # it has ended meanwhile
    return pid


def thread_count(pid: int) -> int:
    """The number of threads, a dead main thread included: the link count of /proc/PID/task is that plus 2 (proc_task_getattr). A
    tenth of the price of listing them."""
    return os.stat(f"/proc/{pid}/task").st_nlink - 2


def children(pid: int) -> list[int]:
    """Child processes of all threads, zombies included, ascending."""
    found: list[int] = []
    try:
        for tid in threads(pid):
            found += map(int, read(pid, f"task/{tid}/children").split())
    except FileNotFoundError:
        # No CONFIG_PROC_CHILDREN, or a thread that ended meanwhile: search all processes.
        Path(f"/proc/{pid}/stat").stat()
        found = []
        for other in processes():
            try:
                if stat(other).ppid == pid:
                    found.append(other)
            except OSError:
                continue
    return sorted(found)


def descendants(pid: int) -> list[int]:
    """All processes below one, parents before children. Those that end meanwhile may be missing."""
    found: list[int] = []
    for child in children(pid):
        found.append(child)
        try:
            found += descendants(child)
        except OSError:
            continue
    return found


def processes() -> list[int]:
    """Ids of all processes that are visible here, ascending."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def boot_id() -> str:
    """A name for this boot of the kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def auxv(pid: int) -> bytes:
    """The auxiliary vector as the program was given it: it tells one address space from the next (exec makes a new one)."""
    return read(pid, "auxv")


def comm(pid: int) -> str:
    """The name of the process's main thread: at most 15 bytes, any but NUL."""
    return os.fsdecode(read(pid, "comm").removesuffix(b"\n"))


def start_time(pid: int) -> float:
    """When the process was started, in seconds since 1970; exact to a clock tick."""
    boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    return int(boot.split()[1]) + stat(pid).starttime / os.sysconf("SC_CLK_TCK")
