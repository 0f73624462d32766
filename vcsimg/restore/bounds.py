"""What the kernel knows of the layout of a process: brk, arguments, environment, auxiliary vector, program (prctl PR_SET_MM_MAP)."""

from __future__ import annotations

import os
import struct
from socket import socket

from vcsimg.errors import RestoreError
from vcsimg.image.pages import ImageMemory
from vcsimg.image.sections.item import select
from vcsimg.image.sections.program import AuxvEntry
from vcsimg.image.sections.status import Command, MemoryBounds
from vcsimg.image.snapshot import MappedFile
from vcsimg.kernel.prctl_set import SET_MM, SET_MM_MAP
from vcsimg.kernel.syscalls import NR
from vcsimg.restore.mapped import MappedFiles
from vcsimg.restore.remote import failed, words
from vcsimg.restore.skeleton import Skeleton
from vcsimg.restore.transport import hand_over

_NO_FILE = 0xFFFFFFFF


def restore_bounds(skeleton: Skeleton, sender: socket, files: MappedFiles, notes: list[str]) -> None:
    """After the mappings were made. Raises RestoreError."""
    process = skeleton.process
    status = process.section("status")
    bounds = select(status, MemoryBounds)
    if not bounds:
        return
    found = bounds[0]
    remote = skeleton.main
    entries = select(process.section("auxv"), AuxvEntry)
    vector = words([word for entry in entries for word in (entry.key, entry.value)] + [0, 0])
    brk = found.brk if found.brk is not None else found.start_brk
    addresses = (
        found.start_code, found.end_code, found.start_data, found.end_data, found.start_brk, brk, found.start_stack,
        found.arg_start, found.arg_end, found.env_start, found.env_end,
    )  # fmt: skip
    program = _program(skeleton, sender, files)  # before: it clears what was put
    auxv = remote.put(vector)
    for exe in [program, _NO_FILE] if program is not None else [_NO_FILE]:
        content = struct.pack("<11Q", *addresses) + struct.pack("<QII", auxv, len(vector) if entries else 0, exe)
        at = remote.put(content)
        (result,) = remote.batch([(NR["prctl"], (SET_MM, SET_MM_MAP, at, len(content), 0))])
        if not failed(result):
            break
    else:
        raise RestoreError(f"process {process.pid} memory bounds", os.strerror(-result))
    if exe == _NO_FILE:
        notes.append(f"process {process.pid}: /proc/{process.pid}/exe does not name its program")
    if program is not None:
        remote.call(NR["close"], program)
    remote.clear()


def _program(skeleton: Skeleton, sender: socket, files: MappedFiles) -> int | None:
    """A descriptor of the skeleton for its program."""
    process = skeleton.process
    commands = select(process.section("status"), Command)
    if not commands or commands[0].device is None:
        return None
    file = _mapped(process.mapped, commands[0])
    memory = process.memory
    if file is None or not isinstance(memory, ImageMemory):
        return None
    own = files.same_content(file, memory.files)
    return hand_over(skeleton, sender, [own])[0] if own is not None else None


def _mapped(mapped: tuple[MappedFile, ...], command: Command) -> MappedFile | None:
    for file in mapped:
        if file.inode == command.inode and file.device == command.device:
            return file
    return next((file for file in mapped if command.exe is not None and file.path == command.exe), None)
