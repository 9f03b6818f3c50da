"""The books of the first flow: redemptions and their coupons, points and stock."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from sandbox.difference import tally, unequal
from sandbox.holdings import CouponRow, Holdings, RedemptionRow
from sandbox.journal import Acknowledgement, Attempt, Operation, Record

_CREATED: Final = 201
_OK: Final = 200


class CouponBooks:
    """The links between the journal and the two databases of PostgreSQL, one method each; each yields its differences.

    Args:
        record: what the clients wrote down.
        holdings: what the databases hold.
        dead_letters_expected: how many records that nobody can understand were put on the topic.
    """

    def __init__(self, record: Record, holdings: Holdings, dead_letters_expected: int) -> None:
        self._dead_letters_expected = dead_letters_expected
        self._record = record
        self._holdings = holdings
        self._stored = {row.redemption_id: row for row in holdings.redemptions}
        self.told: dict[str, tuple[Attempt, Acknowledgement]] = {}
        self._coupons: defaultdict[str | None, list[CouponRow]] = defaultdict(list)
        for coupon in holdings.coupons:
            self._coupons[coupon.redemption_id].append(coupon)
        self._told_twice: list[str] = []
        for attempt, answer in self._answers(Operation.REDEEM_REWARD, _CREATED):
            redemption_id = str(answer.body.get("redemption_id"))
            before = self.told.setdefault(redemption_id, (attempt, answer))
            if before[1].body != answer.body or before[0].key != attempt.key:
                self._told_twice.append(f"redemption {redemption_id} was told twice, for two keys or with two contents")

    def differences(self) -> Iterator[str]:
        """Yield the differences of all links."""
        for link in (
            self.redemptions_told,
            self.redemptions_attempted,
            self.coupons_complete,
            self.coupons_invented,
            self.statuses_told,
            self.points,
            self.stock,
            self.settled,
        ):
            yield from link()

    def _answers(self, operation: Operation, status: int) -> Iterator[tuple[Attempt, Acknowledgement]]:
        for number, answer in self._record.acknowledgements.items():
            attempt = self._record.attempts.get(number)
            if attempt is not None and attempt.operation is operation and answer.status == status:
                yield attempt, answer

    def _effective(self, operation: Operation) -> Iterator[Attempt]:
        """Yield the attempts that may have had their effect: all but those whose answer was a refusal."""
        for number, attempt in self._record.attempts.items():
            if attempt.operation is operation:
                answer = self._record.acknowledgements.get(number)
                if answer is None or not answer.is_refusal:
                    yield attempt

    def redemptions_told(self) -> Iterator[str]:
        """Every redemption that a member was told of is stored as it was told and as it was asked for."""
        yield from self._told_twice
        for redemption_id, (attempt, answer) in self.told.items():
            row = self._stored.get(redemption_id)
            if row is None:
                yield f"redemption {redemption_id} was acknowledged but is not stored"
                continue
            reward = self._record.seed.rewards.get(attempt.target)
            if reward is None:
                yield f"redemption {redemption_id} is of {attempt.target}, which was never offered"
                continue
            body = answer.body
            created_at = _time(body.get("created_at"))
            told = {
                "member": (row.member_id, body.get("member_id"), attempt.member_id),
                "reward": (row.reward_id, body.get("reward_id"), attempt.target),
                "coupon code": (row.coupon_code, body.get("coupon_code")),
                "points": (row.points_spent, body.get("points_spent"), reward.points_cost),
                "value": (row.value_cents, reward.value_cents),
                "currency": (row.currency, reward.currency),
                "time": (row.created_at, created_at),
                "end": (row.expires_at, _time(body.get("expires_at")), _later(created_at, reward.coupon_days)),
            }
            yield from unequal(f"redemption {redemption_id}", told)

    def redemptions_attempted(self) -> Iterator[str]:
        """Every stored redemption was asked for and not refused, once for each key."""
        asked = {
            (attempt.member_id, attempt.key): attempt.target for attempt in self._effective(Operation.REDEEM_REWARD)
        }
        key_of = {key.redemption_id: (key.member_id, key.key) for key in self._holdings.keys}
        uses = Counter((key.member_id, key.key) for key in self._holdings.keys)
        for row in self._holdings.redemptions:
            member_and_key = key_of.get(row.redemption_id)
            if member_and_key is None:
                yield f"redemption {row.redemption_id} came from nowhere: no key belongs to it"
            elif asked.get(member_and_key) != row.reward_id or member_and_key[0] != row.member_id:
                yield f"redemption {row.redemption_id} came from nowhere: nobody asked for it, or it was refused"
            elif uses[member_and_key] > 1:
                yield f"redemption {row.redemption_id} shares its key with another one"
        for redemption_id in key_of.keys() - self._stored.keys():
            yield f"redemption {redemption_id} was answered under a key but is not stored"

    def coupons_complete(self) -> Iterator[str]:
        """Every stored or told redemption has exactly one coupon, with the right content."""
        for redemption_id in self._stored.keys() | self.told.keys():
            coupons = self._coupons[redemption_id]
            if len(coupons) != 1:
                yield f"redemption {redemption_id} has {len(coupons)} coupons instead of one"
            for coupon in coupons:
                yield from self._coupon_content(redemption_id, coupon)

    def _coupon_content(self, redemption_id: str, coupon: CouponRow) -> Iterator[str]:
        name = f"the coupon of redemption {redemption_id}"
        row = self._stored.get(redemption_id)
        if row is not None:
            yield from unequal(name, _pairs(coupon, row))
        if redemption_id in self.told:
            body = self.told[redemption_id][1].body
            told = {
                "code": (coupon.code, body.get("coupon_code")),
                "member": (coupon.member_id, body.get("member_id")),
                "reward": (coupon.reward_id, body.get("reward_id")),
                "time": (coupon.issued_at, _time(body.get("created_at"))),
                "end": (coupon.expires_at, _time(body.get("expires_at"))),
            }
            yield from unequal(f"{name}, as the member was told,", told)

    def coupons_invented(self) -> Iterator[str]:
        """No coupon came from nowhere."""
        for coupon in self._holdings.coupons:
            if coupon.redemption_id is None or coupon.redemption_id not in self._stored:
                yield f"coupon {coupon.code} came from nowhere: it belongs to no redemption"

    def statuses_told(self) -> Iterator[str]:
        """Coupons are redeemed and redemptions cancelled only where somebody asked, and always where told so."""
        redeemed = {attempt.target for attempt, _ in self._answers(Operation.REDEEM_COUPON, _OK)}
        cancelled = {attempt.target for attempt, _ in self._answers(Operation.CANCEL_REDEMPTION, _OK)}
        may_be_redeemed = {attempt.target for attempt in self._effective(Operation.REDEEM_COUPON)}
        may_be_cancelled = {attempt.target for attempt in self._effective(Operation.CANCEL_REDEMPTION)}
        for row in self._holdings.redemptions:
            coupons = self._coupons[row.redemption_id]
            status = coupons[0].status if coupons else "missing"
            what = f"redemption {row.redemption_id} ({row.status}) with its coupon ({status})"
            if row.coupon_code in redeemed and (status, row.status) != ("redeemed", "issued"):
                yield f"{what} was told to be redeemed"
            if row.redemption_id in cancelled and (status, row.status) != ("cancelled", "cancelled"):
                yield f"{what} was told to be cancelled"
            if status == "redeemed" and row.coupon_code not in may_be_redeemed:
                yield f"{what}: nobody asked to redeem it, or it was refused"
            if status == "cancelled" and row.redemption_id not in may_be_cancelled:
                yield f"{what}: nobody asked to cancel it, or it was refused"
            if (status == "cancelled") != (row.status == "cancelled"):
                yield f"{what}: one of the two is cancelled"

    def points(self) -> Iterator[str]:
        """Each member has what they began with, less what stands redeemed."""
        spent: Counter[str] = Counter()
        for row in self._holdings.redemptions:
            if row.status != "cancelled":
                spent[row.member_id] += row.points_spent
        expected = {member: points - spent[member] for member, points in self._record.seed.points.items()}
        yield from tally("points of", expected, self._holdings.points)

    def stock(self) -> Iterator[str]:
        """Of each reward there is left what there was, less what stands redeemed."""
        taken = Counter(row.reward_id for row in self._holdings.redemptions if row.status != "cancelled")
        expected = {name: reward.stock - taken[name] for name, reward in self._record.seed.rewards.items()}
        yield from tally("stock of", expected, self._holdings.stock)

    def settled(self) -> Iterator[str]:
        """Nothing is still on its way, and nothing was put aside but what nobody can understand."""
        if self._holdings.unpublished:
            yield f"{self._holdings.unpublished} events were never published"
        if self._holdings.dead_letters != self._dead_letters_expected:
            yield f"{self._holdings.dead_letters} dead letters instead of {self._dead_letters_expected}"
        for row in self._holdings.redemptions:
            if row.status not in ("issued", "cancelled"):
                yield f"redemption {row.redemption_id} is still {row.status}"


def _pairs(coupon: CouponRow, row: RedemptionRow) -> dict[str, tuple[object, ...]]:
    return {
        "code": (coupon.code, row.coupon_code),
        "member": (coupon.member_id, row.member_id),
        "reward": (coupon.reward_id, row.reward_id),
        "value": (coupon.value_cents, row.value_cents),
        "currency": (coupon.currency, row.currency),
        "time": (coupon.issued_at, row.created_at),
        "end": (coupon.expires_at, row.expires_at),
    }


def _time(text: object) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def _later(time: datetime | None, days: int) -> datetime | None:
    return None if time is None else time + timedelta(days=days)
