"""Word by word with PTRACE_PEEKDATA and PTRACE_POKEDATA: what the others are measured against, and the last resort.

It ignores page protection on every kernel, and it never moves more than a word for one system call. See ptrace(2).
"""

from __future__ import annotations

import errno
import os
from ctypes import c_ulong, get_errno, sizeof
from sys import byteorder

from ptrace.binding.func import PTRACE_PEEKDATA, PTRACE_POKEDATA

from vcsimg.errors import AccessError, NotPermitted, VcsimgError
from vcsimg.kernel.procfs import stat as read_stat
from vcsimg.kernel.ptrace import call, request
from vcsimg.memory.proc import process_gone
from vcsimg.memory.protocol import Buffer, Reader, WritableBuffer, check_range, flat

WORD = sizeof(c_ulong)


class PtraceMemory(Reader):
    """Memory by ptrace words. The calling thread must be tracing thread `pid`, and it must be stopped.

    Words are read and written aligned, so that none reaches into a page that the caller did not ask for; of a word that is written
    in part, the rest is read first and stays as it was.
    """

    def __init__(self, pid: int) -> None:
        self.pid: int = pid

    def read_into(self, address: int, buffer: WritableBuffer) -> int:
        view = flat(buffer)
        total = view.nbytes
        check_range(self.pid, address, total)
        done = 0
        try:
            while done < total:
                skip = (address + done) % WORD
                word = self._peek(address + done - skip)
                step = min(WORD - skip, total - done)
                view[done : done + step] = word[skip : skip + step]
                done += step
        except OSError as error:
            raise self._failed(address, total, done, error) from None
        return total

    def write(self, address: int, data: Buffer) -> int:
        view = flat(data)
        total = view.nbytes
        check_range(self.pid, address, total)
        done = 0
        try:
            while done < total:
                skip = (address + done) % WORD
                step = min(WORD - skip, total - done)
                word = bytes(view[done : done + step])
                if step < WORD:
                    old = self._peek(address + done - skip)
                    word = old[:skip] + word + old[skip + step :]
                call(PTRACE_POKEDATA, self.pid, address + done - skip, int.from_bytes(word, byteorder))
                done += step
        except OSError as error:
            raise self._failed(address, total, done, error) from None
        return total

    def close(self) -> None:
        pass

    def _peek(self, address: int) -> bytes:
        word = int(request(PTRACE_PEEKDATA, self.pid, address, 0))
        if word == -1:  # a word like any other, unless errno says that it is not one: the C library clears it before
            error = get_errno()
            if error:
                raise OSError(error, os.strerror(error))
        return word.to_bytes(WORD, byteorder, signed=True)

    def _failed(self, address: int, length: int, done: int, error: OSError) -> VcsimgError:
        if error.errno != errno.ESRCH:
            return AccessError(self.pid, address, length, done)
        try:
            ended = read_stat(self.pid).state in "ZX"
        except OSError:
            ended = True
        if ended:
            return process_gone(self.pid)
        return NotPermitted(self.pid, "the calling thread does not trace it, or it is not stopped")
