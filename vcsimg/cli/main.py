"""`vcsimg` and `git vcsimg`: finding the command, and turning whatever goes wrong into one clear message and an exit status.

0    done
1    a clear failure: `vcsimg: what is wrong`, and a line that says what to do
2    wrong usage
128+N  ended by signal N: 130 for Ctrl-C
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from vcsimg import __version__
from vcsimg.errors import CommandNotStarted, VcsimgError

_COMMANDS = {
    "init": "repository",
    "run": "record",
    "record": "record",
    "snap": "record",
    "capture": "record",
    "log": "log",
    "show": "show",
    "diff": "diff",
    "checkout": "checkout",
    "doctor": "doctor",
    "textconv": "textconv",
    "version": "version",
}
"""Command → module of this package. A module is imported when its command is called: `vcsimg log` need not wait for ptrace."""


class _Commands(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(f"vcsimg.cli.{_COMMANDS[name]}")
        command = getattr(module, name)
        assert isinstance(command, click.Command)
        return command


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="vcsimg %(version)s")
@click.option(
    "--repo",
    envvar="VCSIMG_REPO",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The repository; else $VCSIMG_REPO, else the nearest one from the current folder upward.",
)
@click.pass_context
def vcsimg(context: click.Context, repo: Path | None) -> None:
    """The history of running processes, kept in git: every capture of a process is a commit."""
    context.obj = repo


class _Ended(BaseException):
    """A signal that asks us to end."""

    def __init__(self, number: int) -> None:
        self.number = number


def main() -> NoReturn:
    """Run a command and exit."""
    for stream in (sys.stdout, sys.stderr):
        # Names of files and processes are bytes: one that is not UTF-8 must not end a command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)
    name = "git vcsimg" if Path(sys.argv[0]).name == "git-vcsimg" else "vcsimg"
    status = _status(lambda: vcsimg.main(prog_name=name, standalone_mode=False), sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = _broken_pipe()
    except OSError as error:
        _say("cannot write the output", os.strerror(error.errno or 0))
        _discard_output()
        status = status or 1
    sys.exit(status)


def _end(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once: what is being cleaned up must not be interrupted again
    raise _Ended(number)


def _status(command: Callable[[], Any], arguments: Sequence[str]) -> int:
    """The exit status of a command, after its error, if any, was printed."""
    try:
        result = command()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as request:
        return request.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 128 + signal.SIGINT
    except _Ended as ended:
        return 128 + ended.number
    except BrokenPipeError:
        return _broken_pipe()
    except VcsimgError as error:
        _say(str(error), error.remedy)
        return error.exit_status if isinstance(error, CommandNotStarted) else 1
    except MemoryError:
        _say("out of memory", "Use --exclude to leave out large regions, or a machine with more memory.")
        return 1
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _say(str(error), "Make room, then try again.")
            return 1
        return _unexpected(error, arguments)
    except Exception as error:
        return _unexpected(error, arguments)


def _unexpected(error: Exception, arguments: Sequence[str]) -> int:
    if os.environ.get("VCSIMG_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(error)
    text = " ".join(str(error).split())
    _say(
        f"unexpected {type(error).__name__}{': ' if text else ''}{text}",
        f"This is a fault of vcsimg {__version__}: please report it with the output of VCSIMG_DEBUG=1 vcsimg {' '.join(arguments)}",
    )
    return 1


def _say(message: str, remedy: str | None) -> None:
    from vcsimg.cli.output import clean

    print(f"vcsimg: {clean(message)}", file=sys.stderr)
    if remedy:
        print(f"  {clean(remedy)}", file=sys.stderr)


def _broken_pipe() -> int:
    """Whoever read our output has enough: end as quietly as a program that SIGPIPE ends."""
    _discard_output()
    return 128 + signal.SIGPIPE


def _discard_output() -> None:
    """What is still buffered goes nowhere: else the interpreter would complain when it flushes at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


if __name__ == "__main__":
    main()
