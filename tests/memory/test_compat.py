"""A program written for python-ptrace's process object, with that object and with ours."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ptrace import PtraceError
from ptrace.debugger import PtraceDebugger

from tests.memory.conftest import Layout, checksum
from vcsimg.errors import AccessError, ProcessChanged
from vcsimg.memory import BytesMemory, FastProcess
from vcsimg.process import hold


@pytest.fixture
def debugger(layout: Layout) -> Iterator[PtraceDebugger]:
    """Lets go of the process before it is ended."""
    debugger = PtraceDebugger()
    yield debugger
    for process in debugger:
        close_file(process)
    debugger.quit()


def close_file(process: Any) -> None:
    """python-ptrace leaves /proc/PID/mem to the garbage collector, which warns."""
    if process.read_mem_file:
        process.read_mem_file.close()


both = pytest.mark.parametrize("wrap", [lambda process: process, FastProcess], ids=["python-ptrace", "FastProcess"])
Wrap = Callable[[Any], Any]


@both
def test_the_example_of_its_documentation(debugger: PtraceDebugger, layout: Layout, wrap: Wrap) -> None:
    """doc/usage.rst of python-ptrace: "Hello World", "Get status", "Modify the process"."""
    process = wrap(debugger.addProcess(layout.pid, False))
    regs = process.getregs()
    before = process.getInstrPointer()
    code = process.readBytes(before, 10)
    stack = process.readBytes(regs.rsp, 10)
    assert len(stack) == 10

    shellcode = b"\x90" * 10
    ip = process.getInstrPointer()
    process.writeBytes(ip, shellcode)
    assert process.readBytes(ip, 10) == shellcode
    rbx = process.getreg("rbx")
    process.setreg("rbx", 0)
    assert process.getreg("rbx") == 0
    orig_rax = process.getreg("orig_rax")
    process.setreg("orig_rax", -1)  # or the interrupted read would begin again
    process.singleStep()
    process.waitSignals(signal.SIGTRAP)
    assert process.getInstrPointer() == before + 1, "one of our instructions has run"

    process.writeBytes(ip, code)
    process.setreg("rbx", rbx)
    process.setreg("orig_rax", orig_rax)
    process.setInstrPointer(before)
    process.detach()
    close_file(process)
    assert layout.checksum(layout.area, 100) == checksum(layout.content(0, 100))


@both
def test_words_structures_and_strings(debugger: PtraceDebugger, layout: Layout, wrap: Wrap) -> None:
    process = wrap(debugger.addProcess(layout.pid, False))
    at = layout.area + 64
    process.writeBytes(at, b"a string\0" + b"x" * 300 + b"\0")
    assert process.readCString(at, 1000) == (b"a string", False)
    assert process.readCString(at + 9, 1000) == (b"x" * 300, False)
    assert process.readCString(at + 9, 5) == (b"xxxxx", True)
    process.writeWord(at, 0xFEDCBA9876543210)
    assert process.readWord(at) == 0xFEDCBA9876543210
    assert process.readBytes(at, 9) == struct.pack("<Q", 0xFEDCBA9876543210) + b"\0"

    class Pair(ctypes.Structure):
        _fields_ = (("low", ctypes.c_uint32), ("high", ctypes.c_uint32))

    pair = process.readStruct(at, Pair)
    assert (pair.low, pair.high) == (0x76543210, 0xFEDCBA98)
    assert process.readStruct(at, ctypes.c_uint16) == 0x3210
    assert list(process.readArray(at, ctypes.c_uint16, 4)) == [0x3210, 0x7654, 0xBA98, 0xFEDC]


@both
@pytest.mark.parametrize(("offset", "length"), [(0, 8), (1, 3), (3, 8), (5, 200), (4093, 6)])
def test_bytes_of_any_length_and_alignment(debugger: PtraceDebugger, layout: Layout, wrap: Wrap, offset: int, length: int) -> None:
    process = wrap(debugger.addProcess(layout.pid, False))
    data = os.urandom(length)
    process.writeBytes(layout.area + offset, data)
    assert process.readBytes(layout.area, 4200) == layout.content(0, offset) + data + layout.content(
        offset + length, 4200 - offset - length
    )


@both
def test_errors_are_python_ptraces(debugger: PtraceDebugger, layout: Layout, wrap: Wrap) -> None:
    process = wrap(debugger.addProcess(layout.pid, False))
    for call in (
        lambda: process.readBytes(0x1000, 8),
        lambda: process.readWord(0x1000),
        lambda: process.writeBytes(0x1000, b"12345678"),
        lambda: process.writeWord(0x1000, 1),
        lambda: process.readCString(0x1000, 10),
    ):
        with pytest.raises(PtraceError):
            call()


def test_errors_are_ours_too(layout: Layout) -> None:
    process = FastProcess(layout.pid)
    with pytest.raises(AccessError) as caught:
        process.readBytes(layout.end - 5, 10)
    assert (caught.value.pid, caught.value.done, caught.value.length) == (layout.pid, 5, 10)
    layout.target.end()
    with pytest.raises(ProcessChanged):
        process.readWord(layout.area)
    with pytest.raises(PtraceError):
        process.writeWord(layout.area, 1)
    process.close()
    process.close()


def test_words_need_not_be_aligned_and_may_be_negative(layout: Layout) -> None:
    process = FastProcess(layout.pid)
    process.writeWord(layout.area + 3, -2)
    assert process.readWord(layout.area + 3) == 2**64 - 2
    assert process.readBytes(layout.area, 3) == layout.content(0, 3)


def test_a_string_that_ends_before_a_hole(layout: Layout) -> None:
    process = FastProcess(layout.pid)
    process.writeBytes(layout.end - 4, b"end\0")
    assert process.readCString(layout.end - 300, 1000) == (b"e" * 296 + b"end", False)
    process.writeBytes(layout.end - 1, b"!")
    with pytest.raises(AccessError):
        process.readCString(layout.end - 300, 1000)
    assert process.readCString(layout.end - 4, 4) == (b"end!", True)
    assert process.readCString(layout.end - 4, 0) == (b"", True)


def test_it_takes_a_held_process_and_any_memory(layout: Layout) -> None:
    with hold(layout.pid) as held:
        process = FastProcess(held)
        process.writeBytes(layout.area, b"held")
        assert process.readCString(layout.area, 4) == (b"held", True)
        process.close()
        assert os.pread(held.memory, 4, layout.area) == b"held", "the holder's descriptor is still open"
    assert FastProcess(BytesMemory({8: bytearray(range(16))})).readWord(9) == 0x0807060504030201


def test_breakpoints_of_python_ptrace_stay_possible(debugger: PtraceDebugger, layout: Layout) -> None:
    process = FastProcess(debugger.addProcess(layout.pid, False))
    address = process.getInstrPointer()
    before = process.readBytes(address, 1)
    point = process.createBreakpoint(address, 1)
    assert process.readBytes(address, 1) == b"\xcc"
    point.desinstall()
    assert process.readBytes(address, 1) == before


def test_what_it_does_not_have_is_an_attribute_error(layout: Layout) -> None:
    with pytest.raises(AttributeError, match="getregs"):
        FastProcess(layout.pid).getregs()
