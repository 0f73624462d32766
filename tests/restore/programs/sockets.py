"""Sockets of every kind that comes back, with what waits in them. Verifies itself."""

import os
import socket
import sys
import tempfile

PATH = tempfile.mkdtemp() + "/socket"
SEQPACKET, DATAGRAM = socket.SOCK_SEQPACKET, socket.SOCK_DGRAM

a, b = socket.socketpair()
a.send(b"one")
a.send(b"two")
c, d = socket.socketpair(socket.AF_UNIX, SEQPACKET)
c.send(b"m1")
c.send(b"m22")
e, f = socket.socketpair(socket.AF_UNIX, DATAGRAM)
e.send(b"d1")
f.send(b"d2")
listener = socket.socket(socket.AF_UNIX)
listener.bind(PATH)
listener.listen(5)
udp = socket.socket(socket.AF_INET, DATAGRAM)
udp.bind(("127.0.0.1", 0))
to_udp = socket.socket(socket.AF_INET, DATAGRAM)
to_udp.connect(udp.getsockname())
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", 0))
server.listen(7)
near = socket.create_connection(server.getsockname())
far, _ = server.accept()
near.send(b"pending")
far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
names = (near.getsockname(), near.getpeername(), far.getsockname(), udp.getsockname())
g, h = socket.socketpair()
reading, writing = os.pipe()
os.write(writing, b"through")
socket.send_fds(g, [b"x"], [reading])
ended, other = socket.socketpair()
ended.send(b"last")
ended.shutdown(socket.SHUT_WR)
closed, left = socket.socketpair()
closed.send(b"bye")
closed.close()

print("ready", flush=True)
sys.stdin.readline()

assert b.recv(100) == b"onetwo"
b.send(b"back")
assert a.recv(10) == b"back"
assert (d.recv(10), d.recv(10)) == (b"m1", b"m22")
assert (f.recv(10), e.recv(10)) == (b"d1", b"d2")
client = socket.socket(socket.AF_UNIX)
client.connect(PATH)
accepted, _ = listener.accept()
client.send(b"hi")
assert accepted.recv(3) == b"hi"
to_udp.send(b"udp")
assert udp.recv(10) == b"udp"
assert far.recv(100) == b"pending"
far.send(b"ok")
assert near.recv(10) == b"ok"
assert names == (near.getsockname(), near.getpeername(), far.getsockname(), udp.getsockname())
assert far.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
once_more = socket.create_connection(server.getsockname())
accepted, _ = server.accept()
once_more.send(b"v")
assert accepted.recv(1) == b"v"
_, fds, _, _ = socket.recv_fds(h, 10, 4)
assert os.read(fds[0], 100) == b"through"
assert (other.recv(10), other.recv(10)) == (b"last", b"")
other.send(b"r")
assert ended.recv(2) == b"r"
assert (left.recv(10), left.recv(1)) == (b"bye", b"")
os.unlink(PATH)
os.rmdir(os.path.dirname(PATH))
print("verified", flush=True)
sys.exit(42)
