"""The content of private memory, from the image into a process.

Pieces are rebuilt by several threads, and each puts what it has rebuilt into place. Writing to memory that is not populated costs a fault and a
page of zeros for each page; UFFDIO_COPY makes the page with its content at once, which takes half as long. Where transparent huge pages are
made at the first fault, writing is as quick: then it is left at that.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from vcsimg.errors import RestoreError
from vcsimg.image.pages import ImageMemory, Piece
from vcsimg.image.region import Region
from vcsimg.image.units import PIECE_SHIFT, PIECE_SIZE
from vcsimg.kernel import pidfd, userfaultfd
from vcsimg.kernel.syscalls import NR
from vcsimg.restore.runs import runs
from vcsimg.restore.skeleton import TASK_SIZE, Skeleton

_AHEAD = 2
"""Pieces a thread that may be rebuilt and wait for the threads before."""
_WORTHWHILE = 4
"""Pieces: for fewer, threads and a userfaultfd cost more than they bring."""
_HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage/enabled"


def fill(skeleton: Skeleton) -> None:
    """Write what the image holds of private memory, after the mappings were made. Raises RestoreError, DamagedImage."""
    memory = skeleton.process.memory
    assert isinstance(memory, ImageMemory)
    numbers = list(memory.pieces.numbers())
    filler = _Filler(skeleton, memory)
    if len(numbers) < _WORTHWHILE:
        for number in numbers:
            filler.put(number)
        return
    filler.begin_copying()
    threads = min(4, len(os.sched_getaffinity(0)))
    try:
        with ThreadPoolExecutor(threads) as pool:
            waiting: deque[Future[None]] = deque()
            try:
                for number in numbers:
                    waiting.append(pool.submit(filler.put, number))
                    if len(waiting) > _AHEAD * threads:
                        waiting.popleft().result()
                while waiting:
                    waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()
    finally:
        filler.close()


class _Filler:
    def __init__(self, skeleton: Skeleton, memory: ImageMemory) -> None:
        self._skeleton = skeleton
        self._memory = memory
        self._uffd = -1
        self._copied: set[int] = set()

    def begin_copying(self) -> None:
        """Where it can be done, and pays."""
        if _huge_pages_always():
            return
        remote = self._skeleton.main
        (number,) = remote.batch([(NR["userfaultfd"], (userfaultfd.OPEN_FLAGS,))])
        if number < 0:
            return
        with suppress(OSError):
            process = pidfd.open(self._skeleton.tid)
            try:
                self._uffd = pidfd.getfd(process, number)
                userfaultfd.enable_filling(self._uffd)
            finally:
                os.close(process)
            for region in self._skeleton.process.regions:
                if _is_anonymous(region):
                    with suppress(OSError):
                        userfaultfd.register_missing(self._uffd, region.start, region.end)
                        self._copied.add(region.start)
        remote.call(NR["close"], number)

    def close(self) -> None:
        """The last descriptor takes the registrations with it."""
        if self._uffd >= 0:
            os.close(self._uffd)

    def put(self, number: int) -> None:
        """Rebuild a piece, and put it where it belongs. Raises RestoreError, DamagedImage."""
        piece = self._memory.pieces.piece(number)
        if piece is None:
            return
        base = number << PIECE_SHIFT
        for region in self._skeleton.process.regions.overlapping(base, base + PIECE_SIZE):
            if region.special or region.shared or region.start >= TASK_SIZE:
                continue
            for address, data in runs(piece, base, region):
                done = self._copy(piece, address, len(data)) if region.start in self._copied else 0
                self._write(address + done, data[done:])

    def _copy(self, piece: Piece, address: int, length: int) -> int:
        source = piece.data.__array_interface__["data"][0] + address % PIECE_SIZE
        try:
            return userfaultfd.copy(self._uffd, address, source, length)
        except OSError:
            return 0

    def _write(self, address: int, data: memoryview) -> None:
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self._skeleton.memory, data[done:], address + done)
        except OSError as error:
            raise RestoreError(
                f"process {self._skeleton.pid} memory at {address + done:#x}", f"it cannot be written: {error.strerror}"
            ) from None


def _is_anonymous(region: Region) -> bool:
    return not (region.special or region.shared or region.has_file or "ht" in region.flags or region.start >= TASK_SIZE)


def _huge_pages_always() -> bool:
    try:
        with open(_HUGE_PAGES) as file:
            return "[always]" in file.read()
    except OSError:
        return False
