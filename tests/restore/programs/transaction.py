"""sqlite3 in the middle of a transaction, on a file that it has locked. Verifies itself."""

import os
import sqlite3
import sys
import tempfile

folder = tempfile.mkdtemp(dir=".")
path = os.path.abspath(os.path.join(folder, "data"))
database = sqlite3.connect(path, isolation_level=None)
database.execute("PRAGMA cache_size = 10")  # so that pages are spilled into the file
database.execute("CREATE TABLE numbers (number INTEGER PRIMARY KEY, text TEXT)")
database.execute("INSERT INTO numbers VALUES (0, 'before')")
database.execute("BEGIN IMMEDIATE")
database.executemany("INSERT INTO numbers VALUES (?, ?)", ((number, "x" * 500) for number in range(1, 500)))
cursor = database.execute("SELECT number FROM numbers ORDER BY number")
assert [cursor.fetchone()[0] for _ in range(100)] == list(range(100))

print("ready", flush=True)
sys.stdin.readline()

assert [row[0] for row in cursor] == list(range(100, 500))
other = sqlite3.connect(path, timeout=0)
locked = False
try:
    other.execute("INSERT INTO numbers VALUES (1000, 'no')")
except sqlite3.OperationalError:
    locked = True
assert locked
database.execute("INSERT INTO numbers VALUES (500, 'after')")
database.execute("COMMIT")
assert database.execute("SELECT count(*), max(number) FROM numbers").fetchone() == (501, 500)
assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
print("verified", flush=True)
sys.exit(42)
