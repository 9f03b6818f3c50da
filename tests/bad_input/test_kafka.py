"""Records that are no events: each is a dead letter with all that it was, and harms nothing around it."""

import json
import signal
from base64 import b64encode
from pathlib import Path

import asyncpg
import pytest

from deploy.settings import MigrateSettings
from loyalty.errors import EventError
from loyalty.event import decode_flat
from sandbox.probe import probe
from sandbox.servers import KafkaServer, PostgresServer
from tests.bad_input.http_row import CANARY
from tests.bad_input.kafka_records import ROWS, PoisonRow
from tests.bad_input.log_trace import faults_in
from tests.support.coupon_consumer_world import World
from tests.support.coupon_events import RawRecord, cancelled, coupon_rows, produce, record_of, rows_of, some_event
from tests.support.fault_report import FaultReport
from tests.support.judgement import Rule, judge, judge_end


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_record_that_is_no_event_has_one_class_and_one_detail(row: PoisonRow) -> None:
    """Twice the same, and no word of the record is in it."""
    for _ in range(2):
        with pytest.raises(EventError) as raised:
            decode_flat(row.value, row.key)
        assert (type(raised.value).__name__, str(raised.value)) == (row.error_class, row.error_detail)
        assert CANARY not in str(raised.value).lower()


def _headers_as_kept(row: PoisonRow) -> list[list[str | None]]:
    return [[name, None if value is None else b64encode(value).decode()] for name, value in row.headers]


@pytest.mark.fault("B2", "every bad record, twice, each between two good events")
async def test_all_bad_records_become_dead_letters_and_harm_no_coupon(
    postgres: PostgresServer,
    kafka: KafkaServer,
    databases: MigrateSettings,
    topic: str,
    tmp_path: Path,
    fault_report: FaultReport,
) -> None:
    """Each is kept with bytes, key, headers, place, class and detail; all other events are stored; the log is clean."""
    world = World(postgres, databases.coupons_database, kafka, topic, tmp_path)
    records: list[RawRecord] = []
    wanted: dict[int, tuple[object, ...]] = {}
    for row in (*ROWS, *ROWS):
        event = some_event()
        issue, cancel = (
            RawRecord(one.value, one.key, partition=0) for one in map(record_of, (event, cancelled(event)))
        )
        detail = (row.error_class, row.error_detail, row.key, row.value, _headers_as_kept(row))
        wanted[len(records) + 1] = detail
        records += [issue, RawRecord(row.value, row.key, row.headers, partition=0), cancel]
        world.events += [event, cancelled(event)]
    world.records = len(records)
    async with world.consumer() as service:
        await service.wait_readiness(200)
        pid = service.process.pid
        await produce(kafka.bootstrap, topic, records)
        await world.wait_stored()
        assert (await probe(f"{service.admin_url}/livez"))[0] == 200
        await service.wait_readiness(200)
        assert service.process.pid == pid
        service.process.send_signal(signal.SIGTERM)
        status = await service.process.wait(20)
        last, log = service.events()[-1], service.process.log.read_bytes()
    connection = await asyncpg.connect(postgres.url(databases.coupons_database), timeout=10)
    try:
        letters = await connection.fetch("select * from dead_letters where topic = $1 and partition = 0", topic)
        coupons = await coupon_rows(connection)
    finally:
        await connection.close(timeout=10)
    kept = {
        letter["record_offset"]: (
            letter["error_class"],
            letter["error_detail"],
            letter["key"],
            letter["payload"],
            json.loads(letter["headers"]),
        )
        for letter in letters
    }
    other = [f"offset {offset}: {wanted.get(offset)}" for offset in wanted if kept.get(offset) != wanted[offset]]
    fault_report.judge(
        judge(Rule.NOTHING_LOST, [code for code in rows_of(world.events) if code not in coupons]),
        judge(Rule.NOTHING_INVENTED, [*(str(offset) for offset in kept.keys() - wanted.keys()), *faults_in(log)]),
        judge(Rule.RIGHT_CONTENT, [*other, *(["coupons differ"] if coupons != rows_of(world.events) else [])]),
        judge_end("coupon_consumer", status, last, wanted=(0, "Process stopped")),
    )
    fault_report.measure(records=str(len(records)))
