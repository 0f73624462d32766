"""What the tests share: real programs, compiled by the system's compiler, started and ended here."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from vcsimg.kernel import procfs

TARGETS = Path(__file__).parent / "targets"
_BUILD = Path(tempfile.gettempdir()) / f"vcsimg-test-targets-{os.getuid()}"


for _number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:
    # Whoever runs the tests may ignore signals (nohup, a shell's background jobs), and the programs here would inherit that.
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)


def compile_target(name: str, *flags: str) -> Path:
    """The program tests/targets/NAME.c, compiled once for each content and flags; world-readable, so that nobody can run it."""
    source = TARGETS / f"{name}.c"
    key = hashlib.sha256(source.read_bytes() + repr((str(source), flags)).encode()).hexdigest()[:12]
    _BUILD.mkdir(mode=0o755, exist_ok=True)
    program = _BUILD / f"{name}-{key}"
    if not program.exists():
        partial = program.with_suffix(f".{os.getpid()}")
        subprocess.run(
            ["cc", "-g", "-O1", "-pthread", "-Wall", "-o", partial, source, *flags, "-lm", "-lrt"], check=True, capture_output=True
        )
        partial.rename(program)
    return program


class Target:
    """A program under test: its stdin and stdout are pipes; the first line it prints says that it is ready."""

    def __init__(self, *command: str | Path, **options: object) -> None:
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **options,  # type: ignore[call-overload]
        )
        self.pid: int = self.process.pid

    def line(self) -> str:
        """The next line of its output; fails when it ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line, f"target ended with {self.process.wait(10)}"
        return line.rstrip("\n")

    def send(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def stop(self) -> None:
        """SIGSTOP, and wait until it is stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        wait_for(lambda: Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt")

    def end(self) -> None:
        """End the program and what it has started, some of which may hold its pipes open."""
        if self.process.poll() is None:
            for pid in [*procfs.descendants(self.pid), self.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        self.process.wait(10)


def on_one_processor() -> None:
    """Before exec. The kernel writes the number of the processor into each thread's struct rseq whenever it goes on, a borrowed one too: on
    several, that would differ between a capture and what is read before or after it."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Until a condition holds; fails after a generous time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)


@pytest.fixture
def start() -> Iterator[Callable[..., Target]]:
    """start(name, *arguments): compile tests/targets/NAME.c and run it; start(path, …) runs a program. Ended after the test."""
    targets: list[Target] = []

    def run(program: str | Path, *arguments: object, flags: tuple[str, ...] = (), **options: object) -> Target:
        path = program if os.sep in str(program) else compile_target(str(program), *flags)
        target = Target(path, *(str(argument) for argument in arguments), **options)
        targets.append(target)
        return target

    yield run
    for target in targets:
        target.end()


def home_of_nobody(folder: Path) -> Path:
    """A folder in `folder` that belongs to an ordinary user, who is let through to it. pytest makes its own for root alone."""
    for above in (folder, *folder.parents):
        mode = above.stat().st_mode
        if not mode & stat.S_IXOTH:
            above.chmod(stat.S_IMODE(mode) | 0o055)
    home = folder / "home"
    home.mkdir(exist_ok=True)
    os.chown(home, 65534, 65534)
    return home


@pytest.fixture
def as_nobody() -> list[str]:
    """The prefix of a command that runs as an ordinary user; skips when the tests themselves run as one."""
    if os.getuid() != 0:
        pytest.skip("already an ordinary user: every test is this test")
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
