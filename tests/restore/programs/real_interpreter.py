"""The interpreter with threads, asyncio, sockets and subprocesses. Verifies itself."""

import asyncio
import subprocess
import sys
import threading

stop = threading.Event()
results = []
threads = [threading.Thread(target=lambda number=number: (stop.wait(), results.append(number))) for number in range(3)]
for thread in threads:
    thread.start()
piped = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
assert piped.stdin is not None
assert piped.stdout is not None
piped.stdin.write(b"before\n")
piped.stdin.flush()
assert piped.stdout.readline() == b"before\n"
sleeper = subprocess.Popen(["sleep", "1000"])


async def main() -> None:
    process = await asyncio.create_subprocess_exec("cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    queue: asyncio.Queue[str] = asyncio.Queue()
    server = await asyncio.start_server(lambda reader, writer: serve(reader, writer, queue), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"one\n")
    assert await reader.readline() == b"ONE\n"
    ticker = asyncio.create_task(tick(queue))
    line = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    await asyncio.sleep(0.05)
    print("ready", flush=True)
    await line
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"hello\n")
    assert await process.stdout.readline() == b"hello\n"
    process.stdin.close()
    assert await process.wait() == 0
    writer.write(b"two\n")
    assert await reader.readline() == b"TWO\n"
    assert queue.get_nowait() == "one"
    ticker.cancel()
    writer.close()


async def tick(queue: "asyncio.Queue[str]") -> None:
    while True:
        await asyncio.sleep(0.02)
        queue.put_nowait("tick")


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, queue: "asyncio.Queue[str]") -> None:
    while line := await reader.readline():
        queue.put_nowait(line.decode().strip())
        writer.write(line.upper())


asyncio.run(main())
piped.stdin.write(b"after\n")
piped.stdin.close()
assert piped.stdout.read() == b"after\n"
assert piped.wait() == 0
assert sleeper.poll() is None
sleeper.terminate()
assert sleeper.wait() == -15
assert subprocess.run(["echo", "new"], capture_output=True, check=True).stdout == b"new\n"
stop.set()
for thread in threads:
    thread.join()
assert sorted(results) == [0, 1, 2]
print("verified", flush=True)
sys.exit(42)
