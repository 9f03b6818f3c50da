"""A process that starts both servers and reports them; tests end it in every way there is."""

import asyncio
import json
import sys

from sandbox.servers import open_kafka, open_postgres


async def main(behaviour: str) -> None:
    """Start the servers, print their process ids and directories as one line of JSON, then do as told."""
    async with open_postgres() as postgres, open_kafka() as kafka:
        report = {
            "pids": [postgres.pid, kafka.pid],
            "directories": [str(postgres.log.parent), str(kafka.log.parent)],
        }
        if behaviour == "freeze":
            postgres.freeze()
            kafka.freeze()
        print(json.dumps(report), flush=True)  # noqa: T201 - its report to the test
        if behaviour == "fail":
            raise RuntimeError("the starter fails on purpose")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
