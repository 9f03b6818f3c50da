"""All bad requests in one go: they leave nothing behind in the process, its log, its metrics and its database."""

import asyncio
import signal
from collections import Counter

import pytest

from deploy.settings import MigrateSettings
from sandbox.probe import probe
from tests.bad_input.http_database import Servers
from tests.bad_input.http_row import Call, Row
from tests.bad_input.http_transport import UNFINISHED_ROWS
from tests.bad_input.http_world import TOKENS, Api, Apis, differences, open_apis
from tests.bad_input.log_trace import answers_in, faults_in
from tests.bad_input.test_http import ROWS
from tests.support.fault_report import FaultReport
from tests.support.footprint import footprint_of
from tests.support.judgement import Judgement, Rule, judge, judge_end
from tests.support.raw_http import Answer
from tests.support.seeds import seeded

AT_ONCE = 16
STOP_SECONDS = 20.0


async def _ask_all(apis: Apis, rows: list[Row]) -> list[Answer]:
    places = asyncio.Semaphore(AT_ONCE)

    async def ask(row: Row) -> Answer:
        is_head = isinstance(row.request, Call) and row.request.method == "HEAD"
        async with places:
            return await apis[row.api].ask(row.encode(TOKENS), is_head=is_head)

    return await asyncio.gather(*(ask(row) for row in rows))


def _judge_log(api: Api, answers: list[Answer]) -> Judgement:
    told = answers_in(list(api.process.log()))
    wanted = Counter((answer.headers["x-request-id"], answer.status) for answer in answers)
    untold = [f"{identity} ({status}) is not told once in the log" for identity, status in wanted - told]
    return judge(Rule.NOTHING_LOST, untold) | judge(
        Rule.NOTHING_INVENTED, faults_in(api.process.process.log.read_bytes())
    )


async def _judge_end(api: Api, written_before: int) -> Judgement:
    """Stop the service, and count what its sessions ever wrote, which they tell when they end."""
    api.process.process.send_signal(signal.SIGTERM)
    status = await api.process.process.wait(STOP_SECONDS)
    last = api.process.events()[-1]
    await api.database.wait_unused()
    written = await api.database.written() - written_before
    return judge_end(api.process.process.name, status, last, wanted=(0, "Process stopped")) | judge(
        Rule.NOTHING_INVENTED, [f"{written} writes"] if written else []
    )


@pytest.mark.fault("B1", "every bad request to all APIs, in any order, 16 at once")
async def test_all_bad_requests_together_leave_nothing_behind(
    servers: Servers,
    databases: MigrateSettings,
    tmp_path_factory: pytest.TempPathFactory,
    fault_report: FaultReport,
) -> None:
    """Each gets its answer, never a 5xx, and one line in the log that holds no word of it; nothing was written."""
    rows = [*ROWS, *UNFINISHED_ROWS]
    seeded("rows").shuffle(rows)
    async with open_apis(servers, databases, tmp_path_factory.mktemp("traces")) as apis:
        written = {name: await api.database.written() for name, api in apis.items()}
        assert all(written.values())  # what was planted is counted
        await _ask_all(apis, rows[:100])
        idle = {name: footprint_of(api.process.process.pid) for name, api in apis.items()}
        answers = await _ask_all(apis, rows)

        wrong = [
            f"{row}: {found}" for row, answer in zip(rows, answers, strict=True) if (found := differences(row, answer))
        ]
        fault_report.judge(judge(Rule.RIGHT_CONTENT, wrong))
        for name, api in apis.items():
            assert max(answer.status for answer in answers) < 500
            metrics = await api.process.metrics()
            assert not [one for one, value in metrics.items() if 'status="5' in one and value]
            for path in ("livez", "readyz"):
                assert (await probe(f"{api.process.admin_url}/{path}"))[0] == 200
            changed = [
                table for table, digest in (await api.database.contents()).items() if api.planted[table] != digest
            ]
            fault_report.judge(
                judge(Rule.NOTHING_INVENTED, [f"{table} has changed" for table in changed]),
                _judge_log(api, [answer for row, answer in zip(rows, answers, strict=True) if row.api is name]),
                footprint_of(api.process.process.pid).judge(idle[name], more=4),
                await _judge_end(api, written[name]),
            )
    fault_report.measure(requests=str(len(rows)))
