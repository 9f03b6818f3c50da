"""The members of a running platform: their traffic, and the balancers that it goes through."""

from random import Random
from typing import Final

from patterns import Context, ErrorGroup
from sandbox.balancer import Balancer
from sandbox.instance import Endpoint, Service
from sandbox.journal import Journal, Seed
from sandbox.traffic import Traffic
from sandbox.world import Platform

HTTP_SERVICES: Final = (Service.REWARD_STORE, Service.COUPON_API)
_REQUEST_SECONDS: Final = 15.0


class Crowd:
    """Traffic that follows the instances of a platform as they come and go.

    Args:
        platform: who is asked.
        journal: where everything is written down.
        seed: the members, and what they may redeem.
        rate: requests a second on average.
        random: decides what they do.
        requests_max: after so many requests the traffic ends by itself; None for no limit.
    """

    def __init__(
        self,
        platform: Platform,
        journal: Journal,
        seed: Seed,
        *,
        rate: float,
        random: Random,
        requests_max: int | None = None,
    ) -> None:
        self._platform = platform
        self._balancers = {service: self._balancer(service) for service in HTTP_SERVICES}
        self.traffic = Traffic(
            self._balancers, journal, seed, platform.token, rate=rate, random=random, requests_max=requests_max
        )

    async def run(self, ctx: Context) -> None:
        """Send requests until the context ends; return when the last one under way has its answer.

        Cancellation ends the requests under way too; they stay in the journal without an answer.
        """
        async with ErrorGroup() as watchers:
            for balancer in self._balancers.values():
                await watchers.go(balancer.watch)
            await self.traffic.run(ctx)
            watchers.cancel()

    def _balancer(self, service: Service) -> Balancer:
        def instances() -> list[Endpoint]:
            return [one for one in self._platform.instances if one.service is service]

        return Balancer(instances, self._platform.client, timeout_seconds=_REQUEST_SECONDS)
