"""A reader of Kafka over the scripted client, and the steps that scripts of several tests share."""

from collections.abc import Sequence

from patterns import Channel, Context, EndOfChannel, WouldBlock, background
from runtime.consumer_settings import ConsumerSettings
from runtime.kafka_batch import Assigned, Batch
from runtime.kafka_reader import KafkaReader, Record
from runtime.partition_ledger import PartitionLedger
from tests.support.fake_kafka_client import FakeKafkaClient, Step, record
from tests.support.judgement import Judgement
from tests.support.ledger import judge_units

Offsets = list[int | None]


def offsets_of(records: Sequence[Record]) -> Offsets:
    """Stand in for decoding: a batch's content is its offsets."""
    return [each.offset() for each in records]


def some_settings(settings: dict[str, object]) -> ConsumerSettings:
    """Return settings with these, and short times."""
    return ConsumerSettings.model_validate({"topic": "events", "poll_timeout_seconds": 0.001, **settings})


def nothing(_: FakeKafkaClient) -> None:
    """Let one poll pass."""


class World:
    """A reader that runs in the test's own thread over a scripted client: nothing is left to timing."""

    def __init__(self, *script: Step, capacity: int = 100, **settings: object) -> None:
        self.settings = some_settings(settings)
        self.ctx: Context = background().with_cancel()
        self.client = FakeKafkaClient(script, self.ctx.cancel)
        self.ledger = PartitionLedger(self.settings.queue_bytes)
        self.channel: Channel[Batch[Offsets] | Assigned] = Channel(capacity)
        self.points: list[str] = []
        self.reader = KafkaReader(
            self.settings,
            {},
            self.ledger,
            self.channel,
            offsets_of,
            build=self.client.build,
            reach=self.points.append,
        )

    def run(self) -> "list[Batch[Offsets] | Assigned]":
        """Run the reader to the end of its script and return what it handed over; it must not fail."""
        self.reader.run(self.ctx)
        assert self.reader.failure is None
        return self.handed_over()

    def run_to_failure(self) -> Exception:
        """Run the reader until it fails and return with what; it must have closed everything."""
        self.reader.run(self.ctx)
        assert self.reader.failure is not None
        assert self.channel.is_closed
        return self.reader.failure

    def handed_over(self) -> "list[Batch[Offsets] | Assigned]":
        """Take what is in the channel."""
        taken: list[Batch[Offsets] | Assigned] = []
        while True:
            try:
                taken.append(self.channel.receive_nowait())
            except (WouldBlock, EndOfChannel):
                return taken

    def place(self, partition: int, offset: int) -> Step:
        """Return a step in which the loop places a partition under its current generation."""

        def step(_: FakeKafkaClient) -> None:
            generation = self.ledger.generation(partition)
            assert generation is not None
            self.reader.order(partition, generation, offset)

        return step

    def script(self, *steps: Step) -> None:
        """Add steps that refer to this world."""
        self.client._script.extend(steps)


def fill(world: World, partition: int, offsets: Sequence[int]) -> None:
    """Put records into a partition's log."""
    world.client.logs[partition] = [record(partition, offset) for offset in offsets]


def batches(items: "Sequence[Batch[Offsets] | Assigned]") -> list[tuple[int, Offsets]]:
    """Return partition and offsets of each batch."""
    return [(item.partition, item.content) for item in items if isinstance(item, Batch)]


def judge_offsets(world: World, items: "Sequence[Batch[Offsets] | Assigned]") -> Judgement:
    """Hold the records in the logs against those that were handed over, by partition and offset (L1 to L4)."""
    waiting = [(f"{partition}/{each.offset()}", "") for partition, log in world.client.logs.items() for each in log]
    found = [(f"{partition}/{offset}", "") for partition, offsets in batches(items) for offset in offsets]
    return judge_units(waiting, waiting, found)


def assign(*partitions: int) -> Step:
    """Return a step in which partitions are assigned."""
    return lambda client: client.assign_to_us(*partitions)


def raise_in_callback(client: FakeKafkaClient) -> None:
    """Stand in for an exception in a callback, which the client raises out of the poll, losing what it held."""
    client.consume(5, 0)
    raise LookupError("in a callback")
