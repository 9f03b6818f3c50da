"""Readiness: started, not draining, every check well; bounded, cached, and never started twice."""

from __future__ import annotations

import asyncio

import pytest

from patterns.bubble import bubble
from runtime.health import Health, Readiness


class Check:
    """A dependency's check whose answer the test decides."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None
        self.seconds = 0.0

    async def __call__(self) -> None:
        """Answer as the test decided."""
        self.calls += 1
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error


def _health(**checks: Check) -> Health:
    health = Health(clock=lambda: asyncio.get_running_loop().time())
    for name, check in checks.items():
        health.add_check(name, check)
    health.set_ready()
    return health


async def test_process_is_ready_between_start_and_drain() -> None:
    """Before set_ready it is starting, from set_draining on it is draining, and in between ready."""
    health = Health()
    assert await health.report() == Readiness(False, {"process": "starting"})
    health.set_ready()
    assert await health.report() == Readiness(True)
    health.set_draining()
    assert await health.report() == Readiness(False, {"process": "draining"})


def test_failing_check_is_named_by_its_error_and_recovers() -> None:
    """A check that raises makes readiness false under its error's class; when it is well again, so is readiness."""

    async def scenario() -> None:
        good, bad = Check(), Check()
        health = _health(postgres=bad, kafka=good)
        bad.error = ConnectionRefusedError("host and port are not told")
        assert await health.report() == Readiness(False, {"postgres": "ConnectionRefusedError"})
        bad.error = None
        assert not (await health.report()).is_ready, "the answer is remembered for a second"
        await asyncio.sleep(1.1)
        assert await health.report() == Readiness(True)
        assert good.calls == bad.calls == 2

    bubble(scenario)


def test_slow_check_counts_as_failed_and_delays_no_longer_than_its_limit() -> None:
    """A check that hangs is reported as a timeout after a second, while the others are still told apart."""

    async def scenario() -> None:
        slow, good = Check(), Check()
        slow.seconds = 60
        health = _health(slow=slow, good=good)
        began = asyncio.get_running_loop().time()
        assert await health.report() == Readiness(False, {"slow": "timeout"})
        assert asyncio.get_running_loop().time() - began == pytest.approx(1.0)
        slow.seconds = 0
        await asyncio.sleep(2)
        assert (await health.report()).is_ready

    bubble(scenario)


def test_check_that_eats_its_cancellation_is_not_started_again_while_it_hangs() -> None:
    """A stubborn check costs one task, however often readiness is asked, and comes back when it ends."""

    async def scenario() -> None:
        calls = 0
        release = asyncio.Event()

        async def stubborn() -> None:
            nonlocal calls
            calls += 1
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

        health = Health(clock=lambda: asyncio.get_running_loop().time())
        health.add_check("stubborn", stubborn)
        health.set_ready()
        for _ in range(5):
            assert await health.report() == Readiness(False, {"stubborn": "timeout"})
            await asyncio.sleep(2)
        assert calls == 1
        release.set()
        await asyncio.sleep(2)
        assert (await health.report()).is_ready
        assert calls == 2

    bubble(scenario)


def test_many_callers_share_one_run_and_a_cancelled_one_does_not_end_it() -> None:
    """Ten probes at once run each check once; one that gives up leaves the others their answer."""

    async def scenario() -> None:
        check = Check()
        check.seconds = 0.5
        health = _health(postgres=check)
        probes = [asyncio.create_task(health.report()) for _ in range(10)]
        await asyncio.sleep(0.1)
        probes[0].cancel()
        results = await asyncio.gather(*probes, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1:] == [Readiness(True)] * 9
        assert check.calls == 1

    bubble(scenario)


def test_check_with_a_taken_name_is_refused() -> None:
    """Two checks of one name are a mistake, and so are limits out of range."""
    health = Health()
    health.add_check("postgres", Check())
    with pytest.raises(ValueError, match="exists"):
        health.add_check("postgres", Check())
    with pytest.raises(ValueError, match="check_timeout_seconds"):
        Health(check_timeout_seconds=0)
    with pytest.raises(ValueError, match="cache_seconds"):
        Health(cache_seconds=-1)
