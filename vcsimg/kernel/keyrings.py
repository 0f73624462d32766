"""keyrings(7), keyctl(2): numbers, and what /proc tells of keys."""

from __future__ import annotations

from vcsimg.kernel.calls import call
from vcsimg.kernel.syscalls import NR

GET_KEYRING_ID = 0
DESCRIBE = 6
READ = 11
THREAD_KEYRING, PROCESS_KEYRING, SESSION_KEYRING = -1, -2, -3
USER_SESSION = "_uid_ses."
"""What the names of keyrings begin with that stand in for a session keyring where there is none."""
_USER = "_uid."


def own_session() -> int | None:
    """The serial number of our session keyring."""
    try:
        return call(NR["keyctl"], GET_KEYRING_ID, SESSION_KEYRING, 0)
    except OSError:
        return None  # a kernel without keys, or a container that forbids them


def owners() -> frozenset[int]:
    """Users who have more keys than the kernel makes for everyone: two keyrings, and for root a register of keyrings."""
    found = set()
    try:
        with open("/proc/key-users", encoding="ascii") as file:
            for line in file:
                uid, _, counts = line.partition(":")
                if int(counts.split()[2].partition("/")[0]) > (2 if int(uid) else 3):
                    found.add(int(uid))
    except OSError:
        pass
    return frozenset(found)


def user_keyrings() -> frozenset[int]:
    """Serial numbers of the keyrings of users, which every login links to, as far as we can see them."""
    found = set()
    try:
        with open("/proc/keys", encoding="ascii", errors="replace") as file:
            for line in file:
                words = line.split(maxsplit=8)
                if len(words) == 9 and words[7] == "keyring" and words[8].startswith(_USER):
                    found.add(int(words[0], 16))
    except OSError:
        pass
    return frozenset(found)
