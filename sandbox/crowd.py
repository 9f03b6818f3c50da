"""The members of a running platform: their traffic with the balancers that it goes through, and their consents."""

from random import Random
from typing import Final

from patterns import Context, ErrorGroup
from sandbox.balancer import Balancer
from sandbox.campaign_mix import OPERATOR
from sandbox.consent_apps import ConsentApps
from sandbox.instance import Endpoint, Service
from sandbox.journal import Journal, Seed
from sandbox.traffic import Traffic
from sandbox.world import Platform

_REQUEST_SECONDS: Final = 15.0
_CONSENTS_SHARE: Final = 0.1
_DOCUMENTS_MAX: Final = 10_000


def served(platform: Platform) -> tuple[Service, ...]:
    """Return the services of a platform that members send requests to."""
    return tuple(
        service
        for service in Service
        if service.serves_members and (platform.mongo_side is not None or not service.needs_mongo)
    )


class Crowd:
    """Traffic that follows the instances of a platform as they come and go, and apps that write consents beside it.

    Args:
        platform: who is asked; where it has no MongoDB there are neither campaigns nor consents.
        journal: where everything is written down.
        seed: the members, and what they may redeem.
        rate: requests a second on average; a tenth as many times an app does something about a consent.
        random: decides what they do.
        requests_max: after so many requests all of it ends by itself; None for no limit.

    Attributes:
        traffic: the requests.
        apps: what writes consents; None where there are none.
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
        self._balancers = {service: self._balancer(service) for service in served(platform)}

        def token(subject: str) -> str:
            return platform.token(subject, is_operator=subject == OPERATOR)

        self.traffic = Traffic(
            self._balancers, journal, seed, token, rate=rate, random=random, requests_max=requests_max
        )
        self.apps: ConsentApps | None = None
        if (side := platform.mongo_side) is not None:
            self.apps = ConsentApps(
                side.writer_url,
                side.consents,
                journal,
                list(seed.points),
                rate=rate * _CONSENTS_SHARE,
                random=Random(random.getrandbits(64)),  # noqa: S311 - a load, no secret
                documents_max=_DOCUMENTS_MAX,
            )

    async def run(self, ctx: Context) -> None:
        """Act until the context ends; return when the last request and the last write under way have their answers.

        Cancellation ends those under way too; they stay in the journal without an answer.
        """
        with ctx.with_cancel() as writing:
            async with ErrorGroup() as watchers:
                for balancer in self._balancers.values():
                    await watchers.go(balancer.watch)
                async with ErrorGroup() as writers:
                    if self.apps is not None:
                        await writers.go(self.apps.run, writing)
                    await self.traffic.run(ctx)
                    writing.cancel()
                watchers.cancel()

    def _balancer(self, service: Service) -> Balancer:
        def instances() -> list[Endpoint]:
            return [one for one in self._platform.instances if one.service is service]

        return Balancer(instances, self._platform.client, timeout_seconds=_REQUEST_SECONDS)
