"""A drgn Program over a process of an image: memory from the image, programs and libraries from the image too.

drgn learns threads, registers, auxiliary vector and mapped files from a core that has notes but no memory (in RAM only), finds
the libraries by walking the dynamic linker's lists in the image's memory, and asks for their files when it wants them.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from vcsimg.errors import AccessError, MissingPackage, SymbolError
from vcsimg.export import write_core
from vcsimg.export.filecontent import file_content
from vcsimg.export.notes import auxiliary_vector
from vcsimg.image.pages import Memory
from vcsimg.image.region import Region
from vcsimg.image.snapshot import Process, Snapshot
from vcsimg.image.units import PIECE_SIZE

if TYPE_CHECKING:
    import drgn

_AT_PHDR = 3
_ADDRESS_SPACE = (1 << 64) - 1


def load_drgn() -> Any:
    """The module drgn. Raises MissingPackage."""
    try:
        import drgn
    except ImportError:
        raise MissingPackage("drgn", "Looking at types, variables and stacks", "symbols") from None
    _silence()
    return drgn


@cache
def _silence() -> None:
    """drgn says on its logger which modules lack debugging information; here `missing` does."""
    logging.getLogger("drgn").addHandler(logging.NullHandler())


def program(snapshot: Snapshot, process: Process) -> drgn.Program:
    """A drgn Program for one process of an image, its debugging information loaded as far as it can be found.

    It reads memory when it needs it. Debugging information comes from the mapped files in the image, else from where the system
    keeps it (/usr/lib/debug, by build id). Raises MissingPackage, SymbolError, AccessError if the process has no memory.
    """
    if process.memory is None:
        raise AccessError(process.pid, 0, 0, 0)
    memory = process.memory
    return build(snapshot, process, lambda: memory)


def build(snapshot: Snapshot, process: Process, memory: Callable[[], Memory]) -> drgn.Program:
    """The same, with memory that can be exchanged: `memory` is called at every read."""
    drgn = load_drgn()
    out = drgn.Program()
    try:
        out.set_core_dump(_notes_only(snapshot, process))
    except ValueError as error:
        raise SymbolError(f"process {process.pid}", f"drgn does not take it: {error}") from None

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        try:
            return memory().read(address, count)
        except AccessError as error:
            raise drgn.FaultError("the image has no content there", error.address + error.done) from None

    # One segment for everything: a capture in whose place another is put may have other regions.
    out.add_memory_segment(0, _ADDRESS_SPACE, read)
    finder = _Finder(snapshot, process, drgn)
    out.register_debug_info_finder("vcsimg", finder, enable_index=0)
    for module, _ in out.loaded_modules():
        out.load_module_debug_info(module)
        with contextlib.suppress(LookupError):
            out.object(" ")  # drgn indexes what is loaded at the first look: of equal names, the one that was loaded first is found
    return out


def missing(program: drgn.Program) -> list[str]:
    """Names of the program and libraries for which no debugging information was found."""
    want = load_drgn().ModuleFileStatus.WANT
    return sorted(module.name for module in program.modules() if module.debug_file_status == want)


def _notes_only(snapshot: Snapshot, process: Process) -> int:
    """A descriptor of a core in RAM with all notes and segments, and no bytes in them."""
    unreadable = frozenset(region.start for region in process.regions)
    descriptor = os.memfd_create("vcsimg core", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as stream:
        write_core(snapshot, replace(process, unreadable=unreadable), stream)
    return descriptor  # drgn closes it


class _Finder:
    """Gives drgn the files that it asks for: from the image, by the place where they are mapped."""

    def __init__(self, snapshot: Snapshot, process: Process, drgn: Any) -> None:
        self._snapshot = snapshot
        self._process = process
        self._drgn = drgn
        self._files = {(file.device, file.inode): file for file in process.mapped}

    def __call__(self, modules: Sequence[drgn.Module]) -> None:
        for module in modules:
            if isinstance(module, self._drgn.VdsoModule):
                self._give_vdso(module)
                continue
            region = self._region(module)
            file = self._files.get((region.device, region.inode)) if region is not None and region.has_file else None
            content = file_content(self._snapshot, self._process, file) if file is not None else None
            if file is not None and content is not None:
                size, read = content
                descriptor = os.memfd_create(os.path.basename(file.path)[:200], os.MFD_CLOEXEC)
                with open(descriptor, "wb", closefd=False) as stream:
                    for offset in range(0, size, PIECE_SIZE):
                        stream.write(read(offset, min(PIECE_SIZE, size - offset)))
                self._give(module, file.path, descriptor)

    def _region(self, module: drgn.Module) -> Region | None:
        """A region in which the module's file is mapped."""
        main = isinstance(module, self._drgn.MainModule)
        address = auxiliary_vector(self._process).get(_AT_PHDR, 0) if main else getattr(module, "dynamic_address", 0)
        return self._process.regions.find(address)

    def _give_vdso(self, module: drgn.Module) -> None:
        """The kernel's library is a whole ELF file in memory. No debugging information for it exists here."""
        region = self._process.regions.find(module.dynamic_address)
        module.debug_file_status = self._drgn.ModuleFileStatus.DONT_NEED
        if region is None or self._process.memory is None:
            return
        try:
            data = self._process.memory.read(region.start, region.end - region.start)
        except AccessError:
            return
        descriptor = os.memfd_create("vdso", os.MFD_CLOEXEC)
        with open(descriptor, "wb", closefd=False) as stream:
            stream.write(data)
        self._give(module, "[vdso]", descriptor)

    def _give(self, module: drgn.Module, name: str, descriptor: int) -> None:
        """drgn closes the descriptor. A file without a build id cannot be checked, and is the right one by its place."""
        module.try_file(name, fd=descriptor, force=module.build_id is None)
