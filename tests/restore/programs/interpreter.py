"""The interpreter with threads, asyncio and a library that is loaded only afterwards. Verifies itself."""

import asyncio
import sys
import threading

found = []
stop = threading.Event()


def work(number: int) -> None:
    stop.wait()
    found.append((number, threading.get_native_id()))


async def main() -> None:
    event = asyncio.Event()
    tick = asyncio.create_task(asyncio.sleep(0.3, "slept"))
    reader = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    await asyncio.sleep(0.01)
    print("ready", flush=True)
    await reader
    event.set()
    assert await tick == "slept"


table = {number: str(number) * 3 for number in range(10000)}
threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
ids = [thread.native_id for thread in threads]
asyncio.run(main())
stop.set()
for thread in threads:
    thread.join()
import decimal  # noqa: E402

assert sorted(found) == list(enumerate(ids))
assert all(table[number] == str(number) * 3 for number in table)
assert decimal.Decimal("1.5") * 2 == 3
print("verified", flush=True)
sys.exit(42)
