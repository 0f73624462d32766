"""The copying code that runs in the target, and the registers that start it: all that depends on the CPU in this package.

The window's first page holds this code, its second page the mailbox. The code finds the mailbox relative to the instruction
pointer, so it runs wherever the window is mapped. It uses no stack, but for that way home.

    window:  0       code       readable and executable in the target, the rest readable and writable
             PAGE    mailbox
             RANGES  up to RANGES_LIMIT ranges: address, length (64 bits each)
             DATA    the bytes

The loop. `command` and `done` are equal while there is nothing to do. The tracer describes a copy and then counts `command` up;
the target copies and then stores that number in `done`. Until the next command it looks for one `spins` times, and then parks: it
makes a harmless system call (getpid), at which PTRACE_SYSEMU stops it. So a tracer in a hurry never enters the kernel, and a slow
one does not cost the target's CPU for more than some microseconds. Both sides rely on x86's order of stores: what was written
before `command` or `done` is seen before them (Intel SDM volume 3, "Memory Ordering", also for `rep movsb`). A CPU with a weaker
order needs a barrier.

When the tracer has died, nobody stops that system call, and there is no new command behind it: the code unmaps the window it stands
in, by a `syscall; ret` of the process, which returns to the borrowed thread's way home (process/borrow.py).

`rep movsb` leaves its registers exactly at the byte that faulted, so a copy that is cut short is known to the byte. On CPUs with
ERMS or FSRM (Intel since 2012, AMD since 2020) it is also the fastest loop, or nearly: docs/memory.md has the numbers for AVX-512
and for stores past the cache.
"""

from __future__ import annotations

from collections.abc import Sequence

from vcsimg.kernel.x86_64 import (
    ARGUMENTS,
    NO_SYSTEM_CALL,
    ORIG_RAX,
    R15,
    RAX,
    RDI,
    RIP,
    RSI,
    WORD,
    RegisterBuffer,
    RegisterWords,
    is_error,
    signed,
)

PAGE = 4096
MAILBOX = PAGE
RANGES = 2 * PAGE
RANGES_LIMIT = 4096
DATA = RANGES + RANGES_LIMIT * 16

COMMAND, DONE, PARKED, SPINS, STORE, COUNT, CURSOR, UNMAP, CALL = 0, 0x40, 0x44, 0x80, 0x84, 0x88, 0x90, 0x98, 0xA8
"""Offsets in the mailbox. 32 bits: command, done, parked (1: about to stop), spins, store (0: target to window, 1: window to
target). 64 bits: count of ranges, cursor (address in the target of the bytes to use), unmap (address and length of the window),
call (address of `syscall; ret`). What the target writes has a cache line of its own, so that neither side's looking slows down the
other's writing."""

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
        .set    CALL, 0xa8

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
        jmp     [rbx + CALL]
"""

CODE = bytes.fromhex(
    "488d1df90f0000fc8b8b800000008b033b43407523f39083e90179f2c7434401000000b8270000000f05c74344000000"
    "008b033b4340745e89c54c8bab880000004c8db3001000004c8bbb9000000083bb8400000000751b4983ed017230498b"
    "36498b4e084c89fff3a44989ff4983c610ebe54983ed017215498b3e498b4e084c89fef3a44989f74983c610ebe5896b"
    "40e972ffffff488bbb98000000488bb3a0000000b80b000000ffa3a8000000"
)
"""ASSEMBLY, assembled."""

SYSTEM_CALL_AND_EXIT = bytes.fromhex("0f05 31ff b8e7000000 0f05")
"""syscall; xor edi, edi; mov eax, 231 (exit_group); syscall"""

ENTRY, LOAD, STORE_LOOP = 0x00, 0x58, 0x73
"""Offsets of its labels entry, load and store."""

_COPYING = (0x68, 0x6A, 0x83, 0x85)
"""Where the instruction pointer is at, and right after, the two `rep movsb`: the only places where the cursor is not in r15."""


def in_code(registers: RegisterWords, base: int) -> bool:
    """Whether a thread with these registers runs the code."""
    return base <= registers[RIP] < base + len(CODE)


def page_of(registers: RegisterWords) -> int:
    """The page in which a thread with these registers stands."""
    return int(registers[RIP]) & -PAGE


def running(registers: RegisterWords, code: int) -> RegisterWords:
    """The registers with which the thread runs code of ours at an address."""
    fresh = RegisterBuffer(*registers)
    fresh[RIP] = code
    fresh[ORIG_RAX] = NO_SYSTEM_CALL
    return fresh


def calling(registers: RegisterWords, code: int, number: int, args: Sequence[int]) -> RegisterWords:
    """The registers with which the thread makes a system call by the instruction at an address."""
    fresh = running(registers, code)
    fresh[RAX] = number
    for index, value in zip(ARGUMENTS, args, strict=False):
        fresh[index] = value % WORD
    return fresh


def returned(registers: RegisterWords) -> int:
    """What a system call returned: its result, or a negative errno."""
    result = int(registers[RAX])
    return signed(result) if is_error(result) else result


def progress(registers: RegisterWords, base: int, start: int) -> int:
    """Bytes that a copy, begun with the cursor at `start`, had moved when it was stopped with these registers."""
    where = registers[RIP] - base
    if where < LOAD:
        return 0
    loading = where < STORE_LOOP
    cursor = registers[RDI if loading else RSI] if where in _COPYING else registers[R15]
    return int(cursor - start)
