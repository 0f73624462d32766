"""redis-server with data, and a client that connects again. Verifies itself.

redis.py REDIS-SERVER
"""

import os
import socket
import subprocess
import sys
import time

(program,) = sys.argv[1:]
folder = os.getcwd()
path = os.path.join(folder, "redis.sock")
server = subprocess.Popen(
    [program, "--port", "0", "--unixsocket", path, "--dir", folder, "--save", "", "--appendonly", "yes", "--daemonize", "no"],
    stdout=subprocess.DEVNULL,
)


def connect() -> socket.socket:
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(path)
            return client
        except OSError:
            client.close()
            time.sleep(0.02)


def ask(client: socket.socket, *words: str) -> bytes:
    parts = [f"${len(word)}\r\n{word}\r\n" for word in words]
    client.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
    return client.recv(1 << 16)


first = connect()
for number in range(2000):
    assert ask(first, "SET", f"key:{number}", "x" * (number % 200)) == b"+OK\r\n"
assert ask(first, "EXPIRE", "key:5", "100") == b":1\r\n"
assert ask(first, "MULTI") == b"+OK\r\n"
assert ask(first, "SET", "half", "done") == b"+QUEUED\r\n"

print("ready", flush=True)
sys.stdin.readline()

assert ask(first, "EXEC") == b"*1\r\n+OK\r\n"
second = connect()
assert ask(second, "GET", "half") == b"$4\r\ndone\r\n"
assert ask(second, "DBSIZE") == b":2001\r\n"
assert ask(second, "GET", "key:199") == b"$199\r\n" + b"x" * 199 + b"\r\n"
assert 0 < int(ask(second, "TTL", "key:5")[1:]) <= 100
assert ask(second, "BGSAVE").startswith(b"+Background")
while b"rdb_bgsave_in_progress:1" in ask(second, "INFO", "persistence"):
    time.sleep(0.05)
assert b"rdb_last_bgsave_status:ok" in ask(second, "INFO", "persistence")
second.sendall(b"*1\r\n$8\r\nSHUTDOWN\r\n")
assert server.wait() == 0
print("verified", flush=True)
sys.exit(42)
