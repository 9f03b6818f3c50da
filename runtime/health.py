"""Liveness and readiness: what a process says about itself to whoever restarts it or sends it traffic.

Liveness never looks at a dependency: a database that is down must not get this process restarted. Readiness is:
started, not draining, and every registered check is well. Go's originals answer "ok" from the same handler for both.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

Check = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Readiness:
    """Say whether traffic may come, and if not, why: part to reason (a class name or a fixed word, never a message)."""

    is_ready: bool
    not_ready: dict[str, str] = field(default_factory=dict)


class Health:
    """Keep the state that the admin port reports.

    Checks run on the loop that calls `report`, all at once, each at most `check_timeout_seconds`; their result is
    used again for `cache_seconds`, and callers that come while they run share that run. A check that does not end
    when cancelled is left behind, counts as failed, and is not started a second time while it hangs: so a probe costs
    at most one hanging task a check.

    Args:
        check_timeout_seconds: above 0; how long one check may take.
        cache_seconds: 0 or more; how old an answer may be.
        clock: seconds, monotonic.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        check_timeout_seconds: float = 1.0,
        cache_seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if check_timeout_seconds <= 0:
            raise ValueError("check_timeout_seconds must be above 0")
        if cache_seconds < 0:
            raise ValueError("cache_seconds must not be negative")
        self._timeout_seconds = check_timeout_seconds
        self._cache_seconds = cache_seconds
        self._clock = clock
        self._checks: dict[str, Check] = {}
        self._running: dict[str, asyncio.Task[object]] = {}
        self._round: asyncio.Task[dict[str, str]] | None = None
        self._known: dict[str, str] = {}
        self._known_at = -float("inf")
        self._is_started = False
        self._is_draining = False

    @property
    def is_draining(self) -> bool:
        """True from the first stop signal on; it never turns back."""
        return self._is_draining

    @property
    def is_started(self) -> bool:
        """True once `set_ready` was called."""
        return self._is_started

    def add_check(self, name: str, check: Check) -> None:
        """Make readiness depend on a check: well when it returns, not well when it raises or takes too long.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._checks:
            raise ValueError(f"check {name!r} exists already")
        self._checks[name] = check
        self._known_at = -float("inf")

    def set_ready(self) -> None:
        """Say that the start is over: dependencies were reached, work has begun."""
        self._is_started = True

    def set_draining(self) -> None:
        """Say that no new traffic should come; readiness is false from here to the end."""
        self._is_draining = True

    async def report(self) -> Readiness:
        """Look at everything readiness depends on; takes at most `check_timeout_seconds`.

        A cancelled caller does not end the run that others share.
        """
        if self._is_draining:
            return Readiness(False, {"process": "draining"})
        if not self._is_started:
            return Readiness(False, {"process": "starting"})
        if self._checks and self._clock() - self._known_at > self._cache_seconds:
            if self._round is None or self._round.done():
                self._round = asyncio.get_running_loop().create_task(self._run_checks(), name="health checks")
            self._known = await asyncio.shield(self._round)
        return Readiness(not self._known, dict(self._known))

    async def _run_checks(self) -> dict[str, str]:
        loop = asyncio.get_running_loop()
        for name, check in self._checks.items():
            if name not in self._running:
                self._running[name] = loop.create_task(_call(check), name=f"health check {name}")
        tasks = {name: self._running[name] for name in self._checks}
        await asyncio.wait(tasks.values(), timeout=self._timeout_seconds)
        reasons = {}
        for name, task in tasks.items():
            if not task.done():
                task.cancel()
                reasons[name] = "timeout"
                task.add_done_callback(functools.partial(self._forget, name))
                continue
            del self._running[name]
            if task.cancelled():
                reasons[name] = "cancelled"
            elif (error := task.exception()) is not None:
                reasons[name] = type(error).__name__
        self._known_at = self._clock()
        return reasons

    def _forget(self, name: str, task: asyncio.Task[object]) -> None:
        if self._running.get(name) is task:
            del self._running[name]
        if not task.cancelled():
            task.exception()


async def _call(check: Check) -> object:
    return await check()
