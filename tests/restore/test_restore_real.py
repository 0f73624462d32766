"""Real programs: captured in the middle of their work, killed, restored, and left to finish it; as whoever runs the tests and as an
ordinary user."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.restore.reviving import capture_and_revive
from tests.restore.test_restore_programs import as_user

PROGRAMS = Path(__file__).parent / "programs"
EVERYBODYS = Path("/usr/bin/python3")
"""Ours may lie where only we may go."""

PIPELINE = """
seq 1 20000 > numbers
mkfifo steps answers
exec 3<>steps 4<>answers
{ while read -r number; do [ $number = 10000 ] && { echo half >&4; read -r go <&3; }; echo $number; done < numbers; } | sort -n | tail -n 1 > result &
read -r half <&4
array=(one "two words" three); declare -A table=([key]=value)
trap 'echo trapped >> traps' USR1
echo ready
read -r line
kill -USR1 $$
echo go >&3
wait
[ "$(cat result)" = 20000 ] && [ "${array[1]}" = "two words" ] && [ "${table[key]}" = value ] && [ "$(cat traps)" = trapped ] || exit 1
echo verified
exit 42
"""

MAKEFILE = """
all: $(patsubst %,out%,1 2 3 4 5 6 7 8)
\tcat $^ > all
out%:
\tif [ -e begun$* ]; then exit 1; fi; touch begun$*; while [ ! -e go ]; do sleep 0.05; done; echo $* > $@
"""
MAKE = """
make -j4 &
while [ "$(ls | grep -c begun)" -lt 4 ]; do sleep 0.02; done
echo ready
read -r line
touch go
wait $! && [ "$(tr -d '\\n' < all)" = 12345678 ] || exit 1
echo verified
exit 42
"""


def command(name: str, folder: Path) -> list[str | Path]:
    if name == "interpreter":
        return [EVERYBODYS, PROGRAMS / "real_interpreter.py"]
    if name == "sqlite":
        return [EVERYBODYS, PROGRAMS / "transaction.py"]
    if name == "redis":
        return [EVERYBODYS, PROGRAMS / "redis.py", shutil.which("redis-server") or pytest.skip("no redis-server"), folder]
    if name == "pipeline":
        return ["/bin/bash", "-c", PIPELINE]
    if shutil.which("make") is None:
        pytest.skip("no make")
    (folder / "Makefile").write_text(MAKEFILE)
    return ["/bin/bash", "-c", MAKE.replace("make -j4", "make -s -j4")]


NAMES = ("interpreter", "sqlite", "redis", "pipeline", "make")


@pytest.fixture(autouse=True)
def python() -> None:
    if not EVERYBODYS.exists():
        pytest.skip("no interpreter for everybody")


@pytest.mark.parametrize("name", NAMES)
def test_goes_on(name: str, tmp_path: Path) -> None:
    text, status = capture_and_revive(command(name, tmp_path), tmp_path)
    assert (text.split("\n")[-2], status) == ("verified", 42), text


@pytest.mark.parametrize("name", NAMES)
def test_goes_on_as_an_ordinary_user(name: str, tmp_path: Path, as_nobody: list[str]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    words = command(name, home)
    done = as_user(as_nobody, tmp_path, words)
    assert done.stdout.split("\n")[-4:] == ["verified", "", "42", ""], done.stdout + done.stderr
