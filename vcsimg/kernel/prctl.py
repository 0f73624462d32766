"""Numbers of prctl(2) that ask (linux/prctl.h).

How each answers: `value` as the result, `word` in an int at the address in argument 2.
"""

from __future__ import annotations

GET_PDEATHSIG = 2  # word
GET_DUMPABLE = 3  # value
GET_TSC = 25  # word
GET_SECUREBITS = 27  # value
GET_TIMERSLACK = 30  # value
MCE_KILL_GET = 34  # value
GET_CHILD_SUBREAPER = 37  # word
GET_TID_ADDRESS = 40  # a pointer at the address; needs CONFIG_CHECKPOINT_RESTORE
GET_THP_DISABLE = 42  # value
GET_MDWE = 66  # value
GET_MEMORY_MERGE = 68  # value
FUTEX_HASH = 78
ARCH_GET_CPUID = 0x1011  # value; of arch_prctl(2)
FUTEX_HASH_GET_SLOTS = 2  # value
