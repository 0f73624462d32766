"""`make demo`: a program is recorded while it runs, and its history is looked at. Every command is shown as you would type it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "tests" / "targets" / "demo_exchange.c"
SECONDS = 5
BOLD, DIM, RESET = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if sys.stdout.isatty() and "NO_COLOR" not in os.environ else ("", "", "")


def say(text: str) -> None:
    """What comes next, and why."""
    print("\n" + "\n".join(f"{BOLD}# {line}{RESET}" for line in textwrap.wrap(text, 100)), flush=True)


def run(command: str, *, shown: str | None = None) -> str:
    """Show a command, run it, show what it prints; returns its standard output. Ends the demo if it fails."""
    print(f"$ {command}", flush=True)
    done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = done.stdout.splitlines()
    if shown is not None and done.returncode == 0:
        lines = [line for line in lines if shown in line]
    for line in lines:
        print(f"{DIM}  {line}{RESET}", flush=True)
    if done.returncode != 0:
        sys.exit(f"demo: this command failed with exit status {done.returncode}")
    return "\n".join(lines)


def record(command: str, meanwhile: str, after: float) -> None:
    """Start a command, and another one in a second terminal while it runs."""
    print(f"$ {command}", flush=True)
    with subprocess.Popen(shlex.split(command)) as recorder:
        time.sleep(after)
        print(f"  (in another terminal) $ {meanwhile}", flush=True)
        subprocess.run(meanwhile, shell=True, check=True)
    if recorder.returncode != 0:
        sys.exit(f"demo: the recording failed with exit status {recorder.returncode}")


def demo() -> None:
    say("A multi-threaded program: three traders and a matcher share an order book in a global variable.")
    shutil.copy(SOURCE, "exchange.c")
    run("cc -g -O1 -pthread -o exchange exchange.c")

    say("A repository for captures: a bare git repository in .vcsimg, readable by you alone.")
    run("vcsimg init")

    say(
        f"Run the program for {SECONDS} seconds and capture it every 300 ms. It is stopped for a moment each time, and never notices. "
        "Half way, ask for one more capture, with a message."
    )
    record(f"vcsimg run --every 300ms -- ./exchange {SECONDS}", 'vcsimg snap --in . -m "half time"', SECONDS / 2)

    say("Each capture is a git commit. Plain git shows them:")
    count = len(run("git -C .vcsimg log --oneline").splitlines())
    if count < 10:
        sys.exit(f"demo: only {count} captures were made")

    say("What changed between two captures, by region of memory? (vcsimg diff without --stat tells pages, with --hex bytes.)")
    run("vcsimg diff HEAD~9 HEAD --stat")

    say("The process is gone. Rebuild an old image of it, and the newest one, as core files, and ask a debugger:")
    run("vcsimg checkout HEAD~9 --core old.core")
    old = run("gdb -batch -ex 'print market.trades' ./exchange old.core", shown="$1 =")
    run("vcsimg checkout HEAD --core new.core")
    new = run("gdb -batch -ex 'print market.trades' ./exchange new.core", shown="$1 =")
    if old == new or not old:
        sys.exit(f"demo: the value should have changed: {old!r}, {new!r}")

    say("Or without a debugger and a core, straight from the repository:")
    run("vcsimg show HEAD~9 --variable market.last_price")

    say("A capture is more than memory. What else is in it?")
    run("vcsimg show HEAD~9")

    say("The full images would take many times the space: only what changed is stored, and all of it is git objects.")
    run("ls -lsh old.core new.core; du -sh .vcsimg")
    say(f"Done. The value of market.trades was {old.split()[-1]} then, and {new.split()[-1]} in the newest capture.")


def main() -> None:
    for tool in ("cc", "gdb", "git", "vcsimg"):
        if shutil.which(tool) is None:
            sys.exit(f"demo: {tool} is not on PATH; `make demo` sets everything up")
    os.environ.pop("VCSIMG_REPO", None)
    with tempfile.TemporaryDirectory(prefix="vcsimg-demo-") as folder:
        os.chdir(folder)
        try:
            demo()
        finally:
            os.chdir("/")


if __name__ == "__main__":
    main()
