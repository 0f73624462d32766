"""The copying code that runs in the target, and the registers that start it: all that depends on the CPU in this package.

The window's first page holds this code, its second page the mailbox. The code finds the mailbox relative to the instruction
pointer, so it runs wherever the window is mapped. It uses no stack: the target's may be full, tiny (Go) or not a stack at all.

    window:  0       code       readable and executable in the target, the rest readable and writable
             PAGE    mailbox
             RANGES  up to RANGES_LIMIT ranges: address, length (64 bits each)
             DATA    the bytes

The loop. `command` and `done` are equal while there is nothing to do. The tracer describes a copy and then counts `command` up;
the target copies and then stores that number in `done`. Until the next command it looks for one `spins` times, and then parks: it
makes a harmless system call (getpid), at which PTRACE_SYSEMU stops it. So a tracer in a hurry never enters the kernel, and a slow
one does not cost the target's CPU for more than some microseconds. Both sides rely on x86's order of stores: what was written
before `command` or `done` is seen before them (Intel SDM 3A, 9.2.4 for `rep movsb`). A CPU with a weaker order needs a barrier.

When the tracer has died, nobody stops that system call, and there is no new command behind it: the code unmaps the bytes of the
window, puts back every register and goes on where the thread was interrupted. For that the registers are in the mailbox.

`rep movsb` leaves its registers exactly at the byte that faulted, so a copy that is cut short is known to the byte. On CPUs with
ERMS or FSRM (Intel since 2012, AMD since 2020) it is also the fastest loop, or nearly: docs/memory.md has the numbers for AVX-512
and for stores past the cache.
"""

from __future__ import annotations

import ctypes
import struct

from vcsimg.kernel.syscalls import NR
from vcsimg.kernel.x86_64 import (
    EFLAGS,
    ERESTART_RESTARTBLOCK,
    ERESTARTNOHAND,
    ERESTARTNOINTR,
    ERESTARTSYS,
    NO_SYSTEM_CALL,
    ORIG_RAX,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
    RAX,
    RBP,
    RBX,
    RCX,
    RDI,
    RDX,
    RIP,
    RSI,
    RSP,
    SYSCALL,
    RegisterBuffer,
    signed,
)

PAGE = 4096
MAILBOX = PAGE
RANGES = 2 * PAGE
RANGES_LIMIT = 4096
DATA = RANGES + RANGES_LIMIT * 16

COMMAND, DONE, PARKED, SPINS, STORE, COUNT, CURSOR, UNMAP, MASK, SAVED = 0, 0x40, 0x44, 0x80, 0x84, 0x88, 0x90, 0x98, 0xA8, 0x100
"""Offsets in the mailbox. 32 bits: command, done, parked (1: about to stop), spins, store (0: target to window, 1: window to
target). 64 bits: count of ranges, cursor (address in the target of the bytes to use), unmap (address, length), mask (of signals).
What the target writes has a cache line of its own, so that neither side's looking slows down the other's writing."""

ASSEMBLY = """
        .intel_syntax noprefix
        .set    COMMAND, 0x00
        .set    DONE, 0x40
        .set    PARKED, 0x44
        .set    SPINS, 0x80
        .set    STORE, 0x84
        .set    COUNT, 0x88
        .set    CURSOR, 0x90
        .set    UNMAP, 0x98
        .set    MASK, 0xa8
        .set    SAVED, 0x100

entry:  lea     rbx, [rip + entry + 0x1000]
        cld
idle:   mov     ecx, [rbx + SPINS]
look:   mov     eax, [rbx + COMMAND]
        cmp     eax, [rbx + DONE]
        jne     work
        pause
        sub     ecx, 1
        jns     look
        mov     dword ptr [rbx + PARKED], 1
        mov     eax, 39                         # getpid
        syscall
resume: mov     dword ptr [rbx + PARKED], 0
        mov     eax, [rbx + COMMAND]
        cmp     eax, [rbx + DONE]
        je      home
work:   mov     ebp, eax
        mov     r13, [rbx + COUNT]
        lea     r14, [rbx + 0x1000]
        mov     r15, [rbx + CURSOR]
        cmp     dword ptr [rbx + STORE], 0
        jne     store
load:   sub     r13, 1
        jb      finish
        mov     rsi, [r14]
        mov     rcx, [r14 + 8]
        mov     rdi, r15
        rep     movsb
        mov     r15, rdi
        add     r14, 16
        jmp     load
store:  sub     r13, 1
        jb      finish
        mov     rdi, [r14]
        mov     rcx, [r14 + 8]
        mov     rsi, r15
        rep     movsb
        mov     r15, rsi
        add     r14, 16
        jmp     store
finish: mov     [rbx + DONE], ebp
        jmp     idle

home:   mov     rdi, [rbx + UNMAP]
        mov     rsi, [rbx + UNMAP + 8]
        mov     eax, 11                         # munmap
        syscall
        lea     rsp, [rbx + SAVED + 16 * 8]
        popfq                                   # from here on nothing may change the flags
        mov     rsp, [rbx + SAVED + 15 * 8]
        mov     edi, 2                          # SIG_SETMASK
        lea     rsi, [rbx + MASK]
        mov     edx, 0
        mov     r10d, 8
        mov     eax, 14                         # rt_sigprocmask
        syscall
        mov     rax, [rbx + SAVED + 0 * 8]
        mov     rcx, [rbx + SAVED + 2 * 8]
        mov     rdx, [rbx + SAVED + 3 * 8]
        mov     rsi, [rbx + SAVED + 4 * 8]
        mov     rdi, [rbx + SAVED + 5 * 8]
        mov     rbp, [rbx + SAVED + 6 * 8]
        mov     r8, [rbx + SAVED + 7 * 8]
        mov     r9, [rbx + SAVED + 8 * 8]
        mov     r10, [rbx + SAVED + 9 * 8]
        mov     r11, [rbx + SAVED + 10 * 8]
        mov     r12, [rbx + SAVED + 11 * 8]
        mov     r13, [rbx + SAVED + 12 * 8]
        mov     r14, [rbx + SAVED + 13 * 8]
        mov     r15, [rbx + SAVED + 14 * 8]
        mov     rbx, [rbx + SAVED + 1 * 8]
        jmp     [rip + entry + 0x1000 + SAVED + 17 * 8]
"""

CODE = bytes.fromhex(
    "488d1df90f0000fc8b8b800000008b033b43407523f39083e90179f2c7434401000000b8270000000f05c74344000000"
    "008b033b4340745e89c54c8bab880000004c8db3001000004c8bbb9000000083bb8400000000751b4983ed017230498b"
    "36498b4e084c89fff3a44989ff4983c610ebe54983ed017215498b3e498b4e084c89fef3a44989f74983c610ebe5896b"
    "40e972ffffff488bbb98000000488bb3a0000000b80b0000000f05488da3800100009d488ba378010000bf0200000048"
    "8db3a8000000ba0000000041ba08000000b80e0000000f05488b8300010000488b8b10010000488b9318010000488bb3"
    "20010000488bbb28010000488bab300100004c8b83380100004c8b8b400100004c8b93480100004c8b9b500100004c8b"
    "a3580100004c8bab600100004c8bb3680100004c8bbb70010000488b9b08010000ff2541100000"
)
"""ASSEMBLY, assembled."""

ENTRY, RESUME, LOAD, STORE_LOOP = 0x00, 0x2A, 0x58, 0x73
"""Offsets of its labels entry, resume, load and store."""

_COPYING = (0x68, 0x6A, 0x83, 0x85)
"""Where the instruction pointer is at, and right after, the two `rep movsb`: the only places where the cursor is not in r15."""

_SAVED_ORDER = (RAX, RBX, RCX, RDX, RSI, RDI, RBP, R8, R9, R10, R11, R12, R13, R14, R15, RSP, EFLAGS, RIP)


def going_home(registers: ctypes.Array[ctypes.c_uint64]) -> bytes:
    """What belongs at SAVED: the registers with which the thread goes on by itself.

    A system call that the stop interrupted is begun again by its own instruction, as the kernel would do it
    (arch/x86/kernel/signal.c, arch_do_signal_or_restart()).
    """
    fresh = RegisterBuffer(*registers)
    code = -signed(fresh[RAX])
    if fresh[ORIG_RAX] != NO_SYSTEM_CALL and code in (ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK):
        fresh[RIP] -= len(SYSCALL)
        fresh[RAX] = NR["restart_syscall"] if code == ERESTART_RESTARTBLOCK else fresh[ORIG_RAX]
    return struct.pack(f"<{len(_SAVED_ORDER)}Q", *(fresh[index] for index in _SAVED_ORDER))


def start_registers(registers: ctypes.Array[ctypes.c_uint64], base: int, label: int) -> ctypes.Array[ctypes.c_uint64]:
    """The registers of a thread that is to run the code from a label on, in a window that is mapped at `base`."""
    fresh = RegisterBuffer(*registers)
    fresh[RIP] = base + label
    fresh[RBX] = base + MAILBOX
    fresh[ORIG_RAX] = NO_SYSTEM_CALL
    return fresh


def in_code(registers: ctypes.Array[ctypes.c_uint64], base: int) -> bool:
    """Whether a thread with these registers runs the code."""
    return base <= registers[RIP] < base + len(CODE)


def progress(registers: ctypes.Array[ctypes.c_uint64], base: int, start: int) -> int:
    """Bytes that a copy, begun with the cursor at `start`, had moved when it was stopped with these registers."""
    where = registers[RIP] - base
    if where < LOAD:
        return 0
    loading = where < STORE_LOOP
    cursor = registers[RDI if loading else RSI] if where in _COPYING else registers[R15]
    return int(cursor - start)
