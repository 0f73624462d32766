"""What is particular to x86-64: registers, instructions, the errors by which the kernel restarts a system call."""

from __future__ import annotations

import ctypes
from typing import TypeAlias

from ptrace.binding import ptrace_registers_t

REGISTERS: tuple[str, ...] = tuple(name for name, _ in ptrace_registers_t._fields_)
"""Names in the order of struct user_regs_struct (sys/user.h): 27 words of 8 bytes."""

RegisterBuffer = ctypes.c_uint64 * len(REGISTERS)
"""struct user_regs_struct as an array: what PTRACE_GETREGS fills."""

RegisterWords: TypeAlias = ctypes.Array[ctypes.c_uint64]
"""What a RegisterBuffer is to a type checker; reading an element gives an int."""

(R15, R14, R13, R12, RBP, RBX, R11, R10, R9, R8, RAX, RCX, RDX, RSI, RDI, ORIG_RAX, RIP, CS, EFLAGS, RSP, SS) = range(21)
"""Indexes into a RegisterBuffer."""

ARGUMENTS = (RDI, RSI, RDX, R10, R8, R9)
"""Where a system call's arguments stand."""

WORD = 1 << 64
NO_SYSTEM_CALL = WORD - 1
"""orig_rax of a thread that is not in a system call."""

CS_64BIT = 0x33
CS_32BIT = 0x23
SYSCALL = b"\x0f\x05"

CALL_LOOP = bytes.fromhex(
    "488b03"  # loop: mov rax, [rbx]
    "488b7b08"  # mov rdi, [rbx+8]
    "488b7310"  # mov rsi, [rbx+16]
    "488b5318"  # mov rdx, [rbx+24]
    "4c8b5320"  # mov r10, [rbx+32]
    "4c8b4328"  # mov r8, [rbx+40]
    "4c8b4b30"  # mov r9, [rbx+48]
    "0f05"  # syscall
    "48894500"  # mov [rbp], rax
    "4883c338"  # add rbx, 56
    "4883c508"  # add rbp, 8
    "49ffcc"  # dec r12
    "75d2"  # jnz loop
)
"""System calls in a row. rbx: table of calls (number and six arguments, 56 bytes each), rbp: results (8 bytes each), r12: how many."""

# What a system call that a signal or a stop interrupted returns inside the kernel (linux/errno.h). The kernel turns these
# into a restart, or into EINTR if a handler runs, on the way back to user mode; a program never sees them.
ERESTARTSYS = 512
ERESTARTNOINTR = 513
ERESTARTNOHAND = 514
ERESTART_RESTARTBLOCK = 516

MAX_ERRNO = 4095


def signed(word: int) -> int:
    """A register's value as a signed number."""
    return word - WORD if word >> 63 else word


def is_error(word: int) -> bool:
    """Whether a system call's result in rax is a negative errno (include/linux/err.h, IS_ERR_VALUE)."""
    return word > WORD - 1 - MAX_ERRNO
