"""A tree: children in other sessions and groups, shared pipes, zombies. Verifies itself."""

import os
import sys


def who(number: int) -> tuple[int, ...]:
    return os.getpid(), os.getppid(), os.getpgrp() if number == 2 else 0, os.getsid(0) if number == 1 else 0


orders, to_children = os.pipe()
answers, to_parent = os.pipe()
children = []
for number in range(4):
    pid = os.fork()
    if pid == 0:
        if number == 1:
            os.setsid()
        if number == 2:
            os.setpgid(0, 0)
        before = who(number)
        os.write(to_parent, b"+")
        os.read(orders, 1)
        os.write(to_parent, b"%d" % (number if who(number) == before else 9))
        os._exit(10 + number)
    children.append(pid)
exited = os.fork()
if exited == 0:
    os._exit(99)
killed = os.fork()
if killed == 0:
    os.kill(os.getpid(), 15)
for pid in (exited, killed):
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
count = 0
while count < 4:
    count += len(os.read(answers, 4))

print("ready", flush=True)
sys.stdin.readline()

os.write(to_children, b"abcd")
assert [os.waitpid(pid, 0)[1] >> 8 for pid in children] == [10, 11, 12, 13]
assert os.waitpid(exited, 0)[1] == 99 << 8
assert os.waitpid(killed, 0)[1] == 15
assert sorted(os.read(answers, 100)) == sorted(b"0123")
print("verified", flush=True)
sys.exit(42)
