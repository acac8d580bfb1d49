"""The worker's half of the bare pipeline: a child's pipe into a socket, nothing else. Says how much CPU that took."""

import fcntl
import subprocess
import sys
import time

import trio


async def main() -> None:
    port, *command = sys.argv[1:]
    stream = await trio.open_tcp_stream("127.0.0.1", int(port))
    began = time.process_time()
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)
    async with stream:
        while data := await process.stdout.receive_some(262_144):
            await stream.send_all(data)
    print(time.process_time() - began)
    await process.wait()


trio.run(main)
