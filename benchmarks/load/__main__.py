"""Runs loads: reads options as JSON lines and answers each with one.

`mode` names the load, `address` the server; the other options are those of the load.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Final

import grpc
import uvloop

from benchmarks.load import callers, sessions, streams, turns

MODES: Final = {**streams.MODES, **sessions.MODES, **turns.MODES, **callers.MODES}
OPTIONS: Final = [("grpc.max_receive_message_length", 1 << 24)]


async def main() -> None:
    """Run one load after another, on one channel to each server."""
    channels: dict[str, grpc.aio.Channel] = {}
    while line := await asyncio.to_thread(sys.stdin.readline):  # a load that was begun continues meanwhile
        options = json.loads(line)
        address = options["address"]
        if address not in channels:
            channels[address] = grpc.aio.insecure_channel(address, options=OPTIONS)
        answer = await MODES[options.get("mode", "stream")](channels[address], options)
        print(json.dumps(answer), flush=True)
    for channel in channels.values():
        await channel.close()


if __name__ == "__main__":
    uvloop.run(main())
