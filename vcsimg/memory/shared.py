"""Memory through a window that we share with the process: the copying runs in the process, and we see its result without another copy.

    the process                                   we
    its memory ──rep movsb──▶ window ═ the same pages ═ window ──▶ buffer elsewhere, if that is wanted
               ◀─rep movsb───                                  ◀──

This is the method of the second paper (`fast_peekdata`, `fast_pokedata`), with two differences. The thread that copies is not stopped
and started for each copy, but waits a while for the next; and a caller may work in the window itself, and then nothing is copied
twice.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator

from vcsimg.errors import AccessError
from vcsimg.kernel.procfs import read_maps
from vcsimg.memory import x86_64 as cpu
from vcsimg.memory.frozen import FrozenLoan
from vcsimg.memory.protocol import (
    Buffer,
    RangeArray,
    Ranges,
    Reader,
    WritableBuffer,
    as_ranges,
    check_range,
    failed_at,
    flat,
    split,
    total_length,
)
from vcsimg.memory.spans import Spans
from vcsimg.memory.window import CopyCut, Window
from vcsimg.process import HeldProcess, HeldThread
from vcsimg.process.frozen import FrozenChild

STAGING = 512 << 10
"""Size of each of the two parts of the window that stand between the process and buffers elsewhere: one is filled while the other
is emptied. Both fit a level 2 cache."""

_AWAKE_STEP = 128 << 10
"""How much of a part is used for one command while the target lingers, so that a command costs little: the sooner both sides have
something to do. Otherwise a command must be worth waking it."""


class SharedMemory(Reader):
    """Memory of a held process, or of a frozen child, by copies that one of its threads makes. Honours page protection, as that
    thread does.

    It belongs to the OS thread that holds the process, and must be closed before the process is released. The thread that copies
    cannot be borrowed otherwise meanwhile. A frozen child's window may stay open as long as the child lives.
    """

    def __init__(
        self, source: HeldProcess | FrozenChild, size: int = 0, thread: HeldThread | None = None, *, linger: bool = True
    ) -> None:
        """`size`: bytes of the window for buffer() and stream(). `thread`: which one copies, of a held process. `linger`: between
        copies it waits some microseconds for the next, which then needs no system call.

        Raises BorrowError when no thread can be borrowed, or the process refuses the mapping (limits, security module).
        """
        self.pid: int = source.pid
        self.size = size
        self.spans = Spans(read_maps(source.pid))  # before the window is among them
        loan = FrozenLoan(source) if isinstance(source, FrozenChild) else source.borrow(thread)
        self.window = Window(self.pid, loan, 2 * STAGING + size, linger=linger)
        self._map = self.window.map
        self._view = memoryview(self._map)
        self._last = (0, 0)  # the span of the last read: the next is often in the same
        self._first = ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def buffer(self, length: int, offset: int = 0) -> memoryview:
        """Bytes [offset, offset + length) of the window: reads into it and writes from it are not copied a second time.

        Raises ValueError when the window, as large as `size`, does not hold them.
        """
        if not 0 <= offset <= offset + length <= self.size:
            raise ValueError(f"bytes {offset} to {offset + length} of a window of {self.size}")
        start = cpu.DATA + 2 * STAGING + offset
        return self._view[start : start + length]

    def read_into(self, address: int, buffer: WritableBuffer) -> int:
        view = flat(buffer)
        total = view.nbytes
        low, high = self._last
        if low <= address and address + total <= high:
            reach = total
        else:
            reach, self._last = self.spans.reach(address, total, store=False)
        try:
            if reach == total:
                self._load(address, view)
                return total
            check_range(self.pid, address, total)
            self._load(address, view[:reach])
        except CopyCut as cut:
            raise AccessError(self.pid, address, total, cut.done, cut.errno) from None
        raise AccessError(self.pid, address, total, reach)

    def write(self, address: int, data: Buffer) -> int:
        view = flat(data)
        total = view.nbytes
        reach, _ = self.spans.reach(address, total, store=True)
        try:
            if reach == total:
                self._store(address, view)
                return total
            check_range(self.pid, address, total)
            self._store(address, view[:reach])
        except CopyCut as cut:
            raise AccessError(self.pid, address, total, cut.done, cut.errno) from None
        raise AccessError(self.pid, address, total, reach)

    def read_ranges(self, ranges: RangeArray, view: memoryview) -> int:
        whole = self.spans.readable(ranges)
        try:
            done = self._load_many(ranges[:whole], view)
        except CopyCut as cut:
            raise failed_at(self.pid, ranges, cut.done, cut.errno) from None
        if whole < len(ranges):
            address, length = (int(number) for number in ranges[whole])
            try:
                self.read_into(address, view[done : done + length])
            except AccessError as error:
                raise AccessError(self.pid, address, length, error.done, error.errno, earlier=done) from None
        return done

    def stream(self, batches: Iterable[Ranges]) -> Iterator[memoryview]:
        """The contents of each batch of ranges in turn, while the target copies the next one already.

        A batch has at most size / 2 bytes (ValueError) and cpu.RANGES_LIMIT ranges. A view is good until the next one is asked for.
        """
        half = self.size // 2
        coming = iter(batches)
        part = 0
        posted = self._begin(next(coming, None), half, part)
        try:
            while posted is not None:
                try:
                    self.window.wait()
                except CopyCut as cut:
                    batch, posted = posted, None
                    raise failed_at(self.pid, batch, cut.done, cut.errno) from None
                filled = self.buffer(total_length(posted), part * half)
                posted, part = None, 1 - part
                posted = self._begin(next(coming, None), half, part)
                yield filled
        finally:
            if posted is not None:
                self.window.settle()

    def close(self) -> None:
        self._view.release()
        self.window.close()

    def _begin(self, batch: Ranges | None, room: int, part: int) -> RangeArray | None:
        if batch is None:
            return None
        array = as_ranges(self.pid, batch, room)
        whole = self.spans.readable(array)
        if whole < len(array):
            raise AccessError(self.pid, int(array[whole, 0]), int(array[whole, 1]), 0)
        if len(array) > cpu.RANGES_LIMIT:
            raise ValueError(f"{len(array)} ranges in a batch, the window has room for {cpu.RANGES_LIMIT}")
        self.window.post(array, cpu.DATA + 2 * STAGING + part * room, store=False)
        return array

    def _place(self, view: memoryview) -> int | None:
        """The offset in our mapping of a buffer that lies in the window; None if it lies elsewhere."""
        if view.obj is not self._map or not view.nbytes:
            return None
        return ctypes.addressof(ctypes.c_char.from_buffer(view)) - self._first

    def _load(self, address: int, view: memoryview) -> None:
        """Copy to a buffer. Raises CopyCut."""
        window, total = self.window, view.nbytes
        place = self._place(view)
        if place is not None:
            window.post_one(address, total, place, store=False)
            window.wait()
            return
        if not total:
            return
        most = _AWAKE_STEP if window.lingers else STAGING
        window.post_one(address, min(total, most), cpu.DATA, store=False)
        part = 0
        for at in range(0, total, most):
            here, part = cpu.DATA + part * STAGING, 1 - part
            step = min(most, total - at)
            after = at + step
            try:
                window.wait()
            except CopyCut as cut:
                view[at : at + cut.done] = self._view[here : here + cut.done]
                raise CopyCut(at + cut.done, cut.errno) from None
            if after < total:
                there = cpu.DATA + part * STAGING
                window.post_one(address + after, min(most, total - after), there, store=False)
            view[at:after] = self._view[here : here + step]

    def _store(self, address: int, view: memoryview) -> None:
        """Copy from a buffer. Raises CopyCut."""
        window, total = self.window, view.nbytes
        place = self._place(view)
        if place is not None:
            window.post_one(address, total, place, store=True)
            window.wait()
            return
        most = _AWAKE_STEP if window.lingers else STAGING
        step = min(total, most)
        self._view[cpu.DATA : cpu.DATA + step] = view[:step]
        part = 0
        for at in range(0, total, most):
            here, part = cpu.DATA + part * STAGING, 1 - part
            after = at + step
            window.post_one(address + at, step, here, store=True)
            step = min(most, total - after)
            there = cpu.DATA + part * STAGING
            self._view[there : there + step] = view[after : after + step]
            try:
                window.wait()
            except CopyCut as cut:
                raise CopyCut(at + cut.done, cut.errno) from None

    def _load_many(self, ranges: RangeArray, view: memoryview) -> int:
        """Copy ranges to a buffer; returns how many bytes. Raises CopyCut."""
        place = self._place(view)
        done = 0
        for batch in split(ranges, STAGING if place is None else view.nbytes, cpu.RANGES_LIMIT):
            length = total_length(batch)
            here = cpu.DATA if place is None else place + done
            self.window.post(batch, here, store=False)
            try:
                self.window.wait()
            except CopyCut as cut:
                if place is None:
                    view[done : done + cut.done] = self._view[here : here + cut.done]
                raise CopyCut(done + cut.done, cut.errno) from None
            if place is None:
                view[done : done + length] = self._view[here : here + length]
            done += length
        return done
