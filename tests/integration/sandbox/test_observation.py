"""What can be seen of the running system from outside, by several who look at once."""

import asyncio
from pathlib import Path
from random import Random

from sandbox.crowd import Crowd
from sandbox.journal import Journal
from sandbox.observation import open_observer
from sandbox.seed import make_seed
from sandbox.system import open_system


async def test_several_may_look_at_once(tmp_path: Path) -> None:
    """The table on the screen and the wait for the backlog look whenever they like, and neither gets an error."""
    async with open_system(tmp_path) as system:
        with Journal(tmp_path) as journal:
            crowd = Crowd(system, journal, make_seed(1, 1), rate=1, random=Random(1))
            async with open_observer(system, crowd) as observer:
                seen = await asyncio.gather(*(observer.look() for _ in range(20)))
                await asyncio.gather(observer.look(), observer.wait_drained(), observer.look())
    assert all(one.is_drained for one in seen)
