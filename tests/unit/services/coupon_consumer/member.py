"""A member of the group without its thread: the test hands over what the thread would."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from loyalty.event import CouponEvent, encode
from patterns import Context, background
from runtime.consumer_settings import ConsumerSettings
from runtime.kafka_batch import Assigned, Batch
from runtime.kafka_consumer import KafkaConsumer
from services.coupon_consumer.consume import EventHandler
from services.coupon_consumer.decode import Decoded
from services.coupon_consumer.metrics import ConsumeMetrics
from services.coupon_consumer.position import Positions, Start
from services.coupon_consumer.settings import BreakerSettings, RetrySettings
from services.coupon_consumer.watch import Watch
from tests.support.fake_coupon_store import FakeCouponStore, FakeTopic
from tests.support.fake_kafka_client import record


class Member:
    """Consumer, positions, handler and watch, wired as in the service, on a fake store and a fake topic."""

    def __init__(self, *, start: Start = "earliest", store: FakeCouponStore | None = None) -> None:
        self.ctx: Context = background().with_cancel()
        self.store = store or FakeCouponStore()
        self.topic = FakeTopic()
        self.registry = CollectorRegistry()
        self.consumer: KafkaConsumer[Decoded] = KafkaConsumer(ConsumerSettings(), {}, Decoded)
        self.positions = Positions(self.consumer, self.store, self.topic, start)
        metrics = ConsumeMetrics(self.registry)
        self.handler = EventHandler(
            self.consumer,
            self.store,
            self.positions,
            metrics,
            retry=RetrySettings(),
            breaker=BreakerSettings(window_records=100, records_min=10),
            try_seconds=10,
        )
        self.watch = Watch(
            self.consumer, self.positions, self.store, self.topic, metrics, check_seconds=1, down_seconds=10
        )

    def assign(self, *partitions: int) -> Assigned:
        """Do what the thread does at an assignment."""
        return Assigned(self.consumer._ledger.assign(partitions))

    async def place(self, *partitions: int) -> None:
        """Assign partitions and have them placed."""
        await self.handler.handle(self.ctx, self.assign(*partitions))

    def batch(
        self, events: Sequence[CouponEvent], *, partition: int = 0, first: int = 0, poison: int = 0
    ) -> Batch[Decoded]:
        """Do what the thread does with a chunk: `poison` records that nobody understands follow the events."""
        contents = [(encode(event), event.coupon.code.encode()) for event in events] + [(b"{", b"k")] * poison
        records = [record(partition, first + index, *content) for index, content in enumerate(contents)]
        generation = self.consumer.owned()[partition]
        size = 100 * len(records)
        assert self.consumer._ledger.take_bytes(size, 0)
        content = Decoded()
        content.add(records)
        return Batch(partition, generation, first, first + len(records), len(records), size, content)

    def orders(self) -> dict[int, int | None]:
        """Take what the thread was asked to do: partition to offset, or to None where it is to stand still."""
        taken = {order.partition: order.offset for order in self.consumer._reader._orders}
        self.consumer._reader._orders.clear()
        return taken

    def hand_over(self, item: Batch[Decoded] | Assigned) -> None:
        """Put into the channel what a read will return."""
        self.consumer._channel.send_nowait(item)

    def bytes_held(self) -> int:
        """Return how many bytes are out."""
        return self.consumer.statistics().ledger.bytes_held

    def metric(self, name: str, **labels: str) -> float | None:
        """Return a metric's value."""
        return self.registry.get_sample_value(name, labels)
