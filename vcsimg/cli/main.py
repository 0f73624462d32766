"""`vcsimg` and `git vcsimg`: turning whatever goes wrong into one clear message and an exit status.

    0    done
    1    a clear failure: `vcsimg: what is wrong`, and a line that says what to do
    2    wrong usage
    128+N  ended by signal N: 130 for Ctrl-C

What the commands need is imported by main(): importing takes a while, and Ctrl-C meanwhile shall be as quiet as later.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

_MOMENT = 0.005


class _Ended(BaseException):
    """A signal that asks us to end."""

    def __init__(self, number: int) -> None:
        self.number = number


def main() -> NoReturn:
    """Run a command and exit."""
    _open_standard_streams()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        # Names of files and processes are bytes: one that is not UTF-8 must not end a command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _run()
        sys.stdout.flush()
    except (KeyboardInterrupt, _Ended) as ended:
        status = _behind(ended)
    except BrokenPipeError:
        # Whoever read our output has enough: end as quietly as a program that SIGPIPE ends.
        status = 128 + signal.SIGPIPE
        _discard_output()
    except MemoryError:
        status = _fail("out of memory", "Use --exclude to leave out large regions, or a machine with more memory.")
    except Exception as error:
        status = _behind(error) or _unexpected(error)
        _discard_output()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the interpreter takes a while to end, and would complain
    sys.exit(status)


def _open_standard_streams() -> None:
    """Those that were closed when we were started: else the next files that are opened would be taken for them."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _end(number: int, frame: FrameType | None) -> None:
    if _is_postponed(number, frame):
        return
    signal.signal(number, signal.SIG_IGN)  # once: what is being cleaned up must not be interrupted again
    raise _Ended(number)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not _is_postponed(number, frame):
        raise KeyboardInterrupt


def _is_postponed(number: int, frame: FrameType | None) -> bool:
    """Whether a signal came inside a callback of the import system, where Python prints and forgets an exception. It then comes again in
    a moment."""
    if frame is None or frame.f_code.co_name != "cb" or not frame.f_code.co_filename.startswith("<frozen importlib"):
        return False
    threading.Timer(_MOMENT, os.kill, (os.getpid(), number)).start()
    return True


def _behind(error: BaseException) -> int:
    """The exit status for a signal that is the cause of an error, 0 if none is: while a class is made, as on import, Python puts a RuntimeError in
    the place of any exception (Objects/typeobject.c, type_new_set_names)."""
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    if isinstance(error, _Ended):
        return 128 + error.number
    return _behind(error.__cause__) if error.__cause__ is not None else 0


def _run() -> int:
    """The exit status of the command, after its error, if it is one of those that we know, was printed."""
    import click

    from vcsimg.cli.commands import vcsimg
    from vcsimg.errors import CommandNotStarted, VcsimgError

    name = "git vcsimg" if os.path.basename(sys.argv[0]) == "git-vcsimg" else "vcsimg"
    out = sys.stdout
    try:
        result = vcsimg.main(prog_name=name, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except SystemExit:
        if sys.stdout is not out:  # click's answer to a pipe that nobody reads: other streams, and status 1
            raise BrokenPipeError from None
        raise
    except click.exceptions.Exit as request:
        return request.exit_code
    except click.Abort:
        return 128 + signal.SIGINT
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except CommandNotStarted as error:
        _fail(str(error), error.remedy)
        return error.exit_status
    except VcsimgError as error:
        return _fail(str(error), error.remedy)


def _fail(message: str, remedy: str | None) -> int:
    from vcsimg.cli.output import clean

    print(f"vcsimg: {clean(message)}", file=sys.stderr)
    if remedy:
        print(f"  {clean(remedy)}", file=sys.stderr)
    return 1


def _unexpected(error: Exception) -> int:
    from vcsimg.errors import NO_ROOM

    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return _fail(str(error), f"{NO_ROOM[error.errno][1]}, then try again.")
    if os.environ.get("VCSIMG_DEBUG", "0") not in ("", "0"):
        import traceback

        traceback.print_exception(error)
    from vcsimg import __version__

    text = " ".join(str(error).split())
    command = " ".join(["vcsimg", *sys.argv[1:]])
    return _fail(
        f"unexpected {type(error).__name__}{': ' if text else ''}{text}",
        f"This is a fault of vcsimg {__version__}: please report it with the output of VCSIMG_DEBUG=1 {command}",
    )


def _discard_output() -> None:
    """What is still buffered goes nowhere: else the interpreter would complain when it flushes at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


if __name__ == "__main__":
    main()
