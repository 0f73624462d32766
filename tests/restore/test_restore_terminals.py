"""Terminals: pseudo-terminals inside of the tree, and the user's in place of the old one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import compile_target, home_of_nobody, wait_for
from tests.restore.reviving import capture_and_revive
from tests.restore.screen import ROOT, VCSIMG, Screen
from tests.restore.test_restore_programs import as_user
from vcsimg.capture import Options
from vcsimg.kernel import procfs
from vcsimg.recording import Recorder
from vcsimg.store import Repository

CHILD = 'import sys\nprint("re" + "ady", flush=True)\nfor line in sys.stdin: print("got", line.upper(), end="", flush=True)\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a repository, found by those who work there."""
    Repository.init(tmp_path / ".vcsimg").close()
    return tmp_path


@pytest.fixture
def screens() -> Iterator[list[Screen]]:
    made: list[Screen] = []
    yield made
    for screen in made:
        screen.kill()


def capture_tree(pid: int, folder: Path) -> str:
    repository = Repository.open(folder / ".vcsimg")
    with tempfile.TemporaryDirectory() as scratch, Recorder(repository, pid, Options(scratch=Path(scratch), tree=True)) as recorder:
        commit = recorder.capture().commit
    repository.close()
    return commit


def restoring(commit: str, *options: str) -> list[str]:
    return [*VCSIMG, "restore", *options, commit]


def test_terminals_inside_of_the_tree(tmp_path: Path) -> None:
    assert capture_and_revive([compile_target("restore_terminals")], tmp_path) == ("verified\n", 42)


def test_terminals_inside_of_the_tree_as_an_ordinary_user(tmp_path: Path, as_nobody: list[str]) -> None:
    done = as_user(as_nobody, tmp_path, [compile_target("restore_terminals")])
    assert (done.stdout, done.returncode) == ("verified\n\n42\n", 0), done.stderr


@pytest.mark.skipif(shutil.which("vim") is None, reason="no vim")
def test_vim_goes_on_in_another_terminal(folder: Path, screens: list[Screen]) -> None:
    file = folder / "text"
    file.write_text("first\nsecond\n")
    screens.append(before := Screen(["vim", "-u", "NONE", "-N", file], folder))
    before.expect("second")
    before.type("Gonot saved yet")
    before.expect("not saved yet")
    before.type("\x1b")
    wait_for(lambda: procfs.stat(before.pid).state == "S", 30)
    commit = capture_tree(before.pid, folder)
    before.kill()
    assert file.read_text() == "first\nsecond\n"

    screens.append(after := Screen(restoring(commit), folder, (30, 100)))
    shown = after.expect("not saved yet")
    assert "first" in shown  # all of it was drawn anew
    after.type("oand more\x1b:set lines? columns?\r")
    after.expect("lines=30")
    after.expect("columns=100")
    after.type("\r:wq\r")
    assert after.end() == 0
    assert file.read_text() == "first\nsecond\nnot saved yet\nand more\n"


@pytest.mark.skipif(shutil.which("vim") is None, reason="no vim")
def test_vim_as_an_ordinary_user(tmp_path: Path, screens: list[Screen], as_nobody: list[str]) -> None:
    home = home_of_nobody(tmp_path)
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)}

    def vcsimg(*words: str) -> None:
        subprocess.run([*as_nobody, *VCSIMG, *words], cwd=home, env=environment, check=True, capture_output=True, timeout=60)

    vcsimg("init")
    screens.append(before := Screen([*as_nobody, "vim", "-u", "NONE", "-N", home / "text"], home))
    before.expect("~")
    before.type("inot saved yet\x1b")
    before.expect("not saved yet")
    wait_for(lambda: procfs.stat(before.pid).state == "S", 30)
    vcsimg("capture", "--tree", str(before.pid))
    before.kill()
    screens.append(after := Screen([*as_nobody, *VCSIMG, "restore", "HEAD"], home, (30, 100)))
    after.expect("not saved yet")
    after.type(":wq\r")
    assert after.end() == 0
    assert (home / "text").read_text() == "not saved yet\n"


def test_interrupt_goes_through_the_terminal(folder: Path, screens: list[Screen]) -> None:
    script = 'import time\nprint("ready", flush=True)\ntry: time.sleep(1000)\nexcept KeyboardInterrupt: print("caught", flush=True)\ninput()\n'
    screens.append(before := Screen([sys.executable, "-c", script], folder))
    before.expect("ready")
    commit = capture_tree(before.pid, folder)
    before.kill()
    screens.append(after := Screen(restoring(commit), folder))
    after.wait_for_relay()
    after.type("\x03")
    after.expect("caught")
    after.type("\x04")
    assert after.end() == 1  # EOFError


def test_stopped_from_the_terminal_and_continued(folder: Path, screens: list[Screen]) -> None:
    """A shell's job: Ctrl-Z stops the restored program, and vcsimg with it; fg goes on with both."""
    screens.append(shell := Screen(["bash", "--norc", "--noprofile", "-i"], folder))
    shell.expect("$ ")
    shell.type(f"{sys.executable} -c '{CHILD}'\n")
    shell.expect("ready")
    (child,) = procfs.children(shell.pid)
    shell.type("one\n")
    shell.expect("got ONE")
    commit = capture_tree(child, folder)
    shell.type("\x04")
    shell.expect("$ ")

    shell.type(" ".join(restoring(commit)) + "\n")
    shell.expect("restore")
    shell.wait_for_relay()
    shell.type("two\n")
    shell.expect("got TWO")
    shell.type("\x1a")
    shell.expect("Stopped")
    shell.expect("$ ")
    shell.type("fg\n")
    shell.expect("restore")
    shell.wait_for_relay()
    shell.type("three\n")
    shell.expect("got THREE")
    shell.type("\x04")
    shell.expect("$ ")
    shell.type("exit\n")
    assert shell.end() == 0


def test_job_control_of_a_shell(folder: Path, screens: list[Screen]) -> None:
    def has(name: str, text: str) -> None:
        wait_for(lambda: (folder / name).exists() and (folder / name).read_text() == text, 30)

    screens.append(before := Screen(["bash", "--norc", "--noprofile", "-i"], folder))
    before.expect("$ ")
    before.type("x=42; cat > one & sleep 1000 & cat > three\n")
    before.expect("[2]")
    before.type("typed\n")
    has("three", "typed\n")
    commit = capture_tree(before.pid, folder)
    before.kill()

    screens.append(after := Screen(restoring(commit), folder))
    after.wait_for_relay()
    after.type("again\n")
    has("three", "typed\nagain\n")
    after.type("\x1a")
    after.expect("Stopped")
    after.expect("$ ")
    after.type("jobs; echo value $x $(tty)\n")
    after.expect("sleep 1000")
    after.expect("value 42 /dev/pts/")
    after.type("kill %2; fg %1\n")
    after.type("to one\n")
    has("one", "to one\n")
    after.type("\x04")
    after.expect("$ ")
    after.type("fg %3\n")
    after.type("more\n")
    has("three", "typed\nagain\nmore\n")
    after.type("\x03")
    after.expect("^C")
    after.expect("$ ")
    after.type("exit 7\n")
    assert after.end() == 7


def test_without_a_terminal_it_has_one_at_which_nobody_sits(folder: Path, screens: list[Screen]) -> None:
    script = folder / "script.py"
    script.write_text(
        'import os, sys, time\nprint("ready", flush=True)\nwhile not os.path.exists("go"): time.sleep(.05)\n'
        'print("x" * 300000, flush=True)\nopen("result", "w").write(f"{os.ttyname(0)} {os.get_terminal_size()} {os.tcgetpgrp(0) == os.getpgrp()}")\n'
    )
    screens.append(before := Screen([sys.executable, script], folder))
    before.expect("ready")
    tty = os.readlink(f"/proc/{before.pid}/fd/0")
    commit = capture_tree(before.pid, folder)
    before.kill()
    done = subprocess.run(
        restoring(commit, "--detach"), cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert "nobody sits" in done.stderr
    (folder / "go").touch()
    wait_for(lambda: (folder / "result").exists() and (folder / "result").read_text() != "", 30)
    assert (folder / "result").read_text() == f"{tty} os.terminal_size(columns=80, lines=24) True"
