"""The instances of a platform that are started and stopped from here, whatever they run as."""

import asyncio
from typing import Final, Generic, TypeVar

from sandbox.instance import Instance, Service, Stopped

InstanceT = TypeVar("InstanceT", bound=Instance)
_STOP_ORDER: Final = (
    (Service.REWARD_STORE, Service.CAMPAIGN_API),
    (Service.COUPON_CONSUMER, Service.CONSENT_CONSUMER),
    (Service.COUPON_API,),
)


class Fleet(Generic[InstanceT]):
    """Running instances, and how those have ended that were stopped in order.

    Args:
        grace_seconds: how long an instance has from SIGTERM to its end, before it is killed.

    Attributes:
        instances: those that run, of each service the oldest first.
        ended: one entry for each that was stopped in order; one that was killed is not among them.
    """

    def __init__(self, grace_seconds: float) -> None:
        self.instances: list[InstanceT] = []
        self.ended: list[Stopped] = []
        self._grace_seconds = grace_seconds

    async def stop(self, instance: Instance) -> Stopped:
        """Stop one instance in order and note how it ended."""
        status = await instance.stop(self._grace_seconds)
        self.forget(instance)
        self.ended.append(Stopped(instance.name, status))
        return self.ended[-1]

    async def kill(self, instance: Instance) -> None:
        """Kill one instance as the kernel would, and forget it: how it ended is no difference to anybody."""
        await instance.kill()
        self.forget(instance)

    def forget(self, instance: Instance) -> None:
        """Count an instance, which has ended, no longer among those that run."""
        self.instances = [one for one in self.instances if one is not instance]

    async def stop_services(self) -> None:
        """Stop all instances: those first that put things on their way, then those that receive them."""
        for services in _STOP_ORDER:
            mine = [instance for instance in self.instances if instance.service in services]
            await asyncio.gather(*(self.stop(instance) for instance in mine))
