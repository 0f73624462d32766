"""Real programs: captured in the middle of their work, killed, restored, and left to finish it; as whoever runs the tests and as an
ordinary user."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import home_of_nobody, wait_for
from tests.restore.batches import ROOT, USERS, Found, batches
from tests.restore.screen import VCSIMG, Screen
from tests.restore.test_restore_programs import EVERYBODYS
from vcsimg.kernel import procfs

PROGRAMS = Path(__file__).parent / "programs"

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

MAKE = r"""
cat > Makefile << 'END'
all: $(patsubst %,out%,1 2 3 4 5 6 7 8)
	cat $^ > all
out%:
	if [ -e begun$* ]; then exit 1; fi; touch begun$*; while [ ! -e go ]; do sleep 0.05; done; echo $* > $@
END
make -s -j4 &
while [ "$(ls | grep -c begun)" -lt 4 ]; do sleep 0.02; done
echo ready
read -r line
touch go
wait $! && [ "$(tr -d '\n' < all)" = 12345678 ] || exit 1
echo verified
exit 42
"""


ONCE = {
    "interpreter": "its address .* cannot be had",
    "sqlite": "lock: .*Resource temporarily unavailable",
    "redis": "another process listens at",
    "pipeline": "others have it open",
}
"""What is refused while the captured program lives: its port, its lock on a file, its socket, its FIFOs. (Several of make would make the same files.)"""
NEEDED = {"redis": "redis-server", "make": "make"}


@pytest.fixture(scope="module")
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    yield from batches(request, tmp_path_factory, command)


def command(name: str) -> list[str | Path]:
    if name == "interpreter":
        return [EVERYBODYS, PROGRAMS / "real_interpreter.py"]
    if name == "sqlite":
        return [EVERYBODYS, PROGRAMS / "transaction.py"]
    if name == "redis":
        return [EVERYBODYS, PROGRAMS / "redis.py", shutil.which("redis-server") or "redis-server"]
    return ["/bin/bash", "-c", PIPELINE if name == "pipeline" else MAKE]


@pytest.fixture(autouse=True)
def needed(request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params.get("name", "")
    if not EVERYBODYS.exists():
        pytest.skip("no interpreter for everybody")
    if shutil.which(NEEDED.get(name, "sh")) is None:
        pytest.skip(f"no {NEEDED[name]}")


@pytest.mark.parametrize("name", [*ONCE, "make"])
@pytest.mark.parametrize("user", USERS)
def test_goes_on(user: str, name: str, outcome: Found) -> None:
    found = outcome(user, name, "killed")
    assert found.verified, found


@pytest.mark.parametrize("name", ONCE)
@pytest.mark.parametrize("user", USERS)
def test_what_the_captured_program_has_is_refused_by_name(user: str, name: str, outcome: Found) -> None:
    found = outcome(user, name, "beside")
    assert found.kind == "refused", found
    assert re.search(ONCE[name], found.text), found


@pytest.mark.skipif(shutil.which("vim") is None, reason="no vim")
@pytest.mark.parametrize("user", USERS)
def test_vim_beside_the_first(user: str, tmp_path: Path) -> None:
    """Three of them at three terminals, with the same text."""
    home = home_of_nobody(tmp_path) if user == "nobody" else tmp_path
    prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"] if user == "nobody" else []
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)}
    screens: list[Screen] = []
    try:
        screens.append(first := Screen([*prefix, "vim", "-u", "NONE", "-N", "-n", home / "text"], home))
        first.expect("~")
        first.type("inot saved yet\x1b")
        first.expect("not saved yet")
        wait_for(lambda: procfs.stat(first.pid).state == "S", 30)
        for words in (["init"], ["capture", "--tree", str(first.pid)]):
            subprocess.run([*prefix, *VCSIMG, *words], cwd=home, env=environment, check=True, capture_output=True, timeout=60)
        for _ in range(2):
            screens.append(Screen([*prefix, *VCSIMG, "restore", "HEAD"], home, (30, 100)))
            screens[-1].expect("not saved yet")
        for number, screen in enumerate(screens):
            screen.type(f"oand {number}\x1b")
            screen.expect(f"and {number}")
            screen.type(f":w text{number}\r:q!\r")
            assert screen.end() == 0
            assert (home / f"text{number}").read_text() == f"not saved yet\nand {number}\n"
    finally:
        for screen in screens:
            screen.kill()
