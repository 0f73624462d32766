"""The frame that rt_sigreturn(2) takes a thread's state from, on x86-64.

A thread whose rsp points to such a frame, and that makes the system call rt_sigreturn, gets all its general registers except segments
and their bases, its FPU and vector registers, and its signal mask from it, in one step (arch/x86/kernel/signal_64.c,
struct rt_sigframe; asm/ucontext.h; asm/sigcontext.h).

    ucontext + 0    uc_flags, uc_link
            16      uc_stack: ss_sp, ss_flags, ss_size
            40      r8 … r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags
            184     cs, gs, fs, ss (2 bytes each)
            192     err, trapno, oldmask, cr2
            224     fpstate: address of the XSAVE area, a multiple of 64
            232     reserved
            296     uc_sigmask
            304     end
"""

from __future__ import annotations

import ctypes
import struct

from vcsimg.kernel.x86_64 import CS, EFLAGS, R8, R9, R10, R11, R12, R13, R14, R15, RAX, RBP, RBX, RCX, RDI, RDX, RIP, RSI, RSP, SS

UCONTEXT_SIZE = 304

_UC_FP_XSTATE = 1
_UC_SIGCONTEXT_SS = 2
_UC_STRICT_RESTORE_SS = 4
_NO_ALTERNATE_STACK_CHANGE = 0x7FFFFFFF
"""No valid ss_flags: the kernel then leaves the alternate stack as it is (kernel/signal.c, restore_altstack)."""

_HEAD = struct.Struct("<QQQi4xQ")
_ORDER = (R8, R9, R10, R11, R12, R13, R14, R15, RDI, RSI, RBP, RBX, RDX, RAX, RCX, RSP, RIP, EFLAGS)
_TAIL = struct.Struct("<18Q4H4QQ8QQ")

# struct _fpx_sw_bytes, in bytes 464 to 511 of the XSAVE area, and what follows the area
_SOFTWARE = struct.Struct("<IIQI28x")
_SOFTWARE_OFFSET = 464
_MAGIC1 = 0x46505853
_MAGIC2 = struct.pack("<I", 0x46505845)
_FEATURES_OFFSET = 512
_LEGACY_SIZE = 576


def area_size(area: bytes, components: tuple[tuple[int, int, int], ...]) -> int:
    """How much of an XSAVE area holds something: the end of its last component in use. `components`: number, offset and size of each.

    The kernel ignores an area that is larger than what the thread may use (AMX has to be asked for), so no more than this is put
    into a frame.
    """
    in_use = int.from_bytes(area[_FEATURES_OFFSET : _FEATURES_OFFSET + 8], "little")
    ends = [offset + size for number, offset, size in components if in_use >> number & 1 and offset + size <= len(area)]
    return max([_LEGACY_SIZE, *ends])


def xsave_frame(area: bytes, size: int) -> bytes:
    """The first `size` bytes of an XSAVE area as the kernel wants it in a frame: marked, and closed by a second mark. To be placed at a
    multiple of 64."""
    features = int.from_bytes(area[_FEATURES_OFFSET : _FEATURES_OFFSET + 8], "little") | 3
    software = _SOFTWARE.pack(_MAGIC1, size + len(_MAGIC2), features, size)
    return area[:_SOFTWARE_OFFSET] + software + area[_FEATURES_OFFSET:size] + _MAGIC2


def ucontext(registers: ctypes.Array[ctypes.c_uint64], signal_mask: int, fpstate: int) -> bytes:
    """The context that brings a thread to these registers and this mask; `fpstate`: where xsave_frame() will be, 0 for none."""
    flags = _UC_FP_XSTATE | _UC_SIGCONTEXT_SS | _UC_STRICT_RESTORE_SS
    head = _HEAD.pack(flags, 0, 0, _NO_ALTERNATE_STACK_CHANGE, 0)
    segments = (registers[CS] & 0xFFFF, 0, 0, registers[SS] & 0xFFFF)
    words = (registers[index] for index in _ORDER)
    return head + _TAIL.pack(*words, *segments, 0, 0, 0, 0, fpstate, *[0] * 8, signal_mask)
