"""What channels and selects promise, said with plain lists: the values a channel holds, and who waits, oldest first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from patterns import ChannelStatistics


class Want(NamedTuple):
    """One thing somebody wants of a channel, named by its number: to send a value, or to receive (None)."""

    channel: int
    value: int | None = None


class Ending(NamedTuple):
    """How somebody's operation ended: sent, received, end (of a closed channel), closed, timeout, cancelled."""

    how: str
    channel: int | None = None
    value: int | None = None


@dataclass(frozen=True)
class Party:
    """Somebody who wants one of several things, and waits for it no longer than a time if there is one."""

    name: int
    wants: Sequence[Want]
    has_timeout: bool = False


@dataclass
class _Channel:
    capacity: int
    values: list[int] = field(default_factory=list)
    is_closed: bool = False


class ChannelModel:
    """Some channels and the parties that wait on them."""

    def __init__(self, capacities: Sequence[int]) -> None:
        self.channels = [_Channel(capacity) for capacity in capacities]
        self.waiting: list[Party] = []
        self.ended: dict[int, list[Ending]] = {}
        """How each party that waited may have ended since this was last cleared."""

    def endings_at_once(self, wants: Sequence[Want]) -> list[Ending]:
        """Say how a newcomer may end without waiting: in any of these ways, or not at all if there is none."""
        return [ending for want in wants if (ending := self._ending_at_once(want)) is not None]

    def happen(self, ending: Ending) -> None:
        """Let a newcomer end in one of these ways."""
        if ending.channel is None or ending.how == "end":
            return
        if ending.how == "received":
            self._take(ending.channel)
        else:
            assert ending.value is not None
            self.give(ending.channel, ending.value)

    def give(self, channel: int, value: int) -> None:
        """Give a value to whoever has waited longest to receive, or to the channel to hold."""
        if (receiver := self.first_receiver(channel)) is not None:
            self._end(receiver, Ending("received", channel, value))
        else:
            self.channels[channel].values.append(value)

    def first_receiver(self, channel: int) -> Party | None:
        """Name who has waited longest to receive."""
        return next((party for party in self.waiting if Want(channel) in party.wants), None)

    def first_sender(self, channel: int) -> Party | None:
        """Name who has waited longest to send."""
        return next((party for party in self.waiting if list(_sends(party, channel))), None)

    def cancel(self, party: Party) -> None:
        """Let a party that waits go as if it had never come."""
        self._end(party, Ending("cancelled"))

    def close(self, channel: int) -> None:
        """Close a channel: whoever waits on it ends, in one of several ways if it wanted several things of it.

        Who waits to receive has found no value, and does not meet the send that it offers itself.
        """
        self.channels[channel].is_closed = True
        for party in list(self.waiting):
            wants = [want for want in party.wants if want.channel == channel]
            if wants:
                self._end(party, *(Ending("end", channel) if value is None else Ending("closed") for _, value in wants))

    def pass_time(self) -> None:
        """Let every timeout pass."""
        for party in list(self.waiting):
            if party.has_timeout:
                self._end(party, Ending("timeout"))

    def statistics(self) -> list[ChannelStatistics]:
        """Say what each channel's statistics are."""
        wants = [want for party in self.waiting for want in party.wants]
        return [
            ChannelStatistics(
                capacity=channel.capacity,
                length=len(channel.values),
                waiting_senders=sum(want.channel == number and want.value is not None for want in wants),
                waiting_receivers=wants.count(Want(number)),
                is_closed=channel.is_closed,
            )
            for number, channel in enumerate(self.channels)
        ]

    def _ending_at_once(self, want: Want) -> Ending | None:
        channel = self.channels[want.channel]
        if want.value is not None:
            if channel.is_closed:
                return Ending("closed")
            has_taker = len(channel.values) < channel.capacity or self.first_receiver(want.channel) is not None
            return Ending("sent", *want) if has_taker else None
        if channel.values:
            return Ending("received", want.channel, channel.values[0])
        if (sender := self.first_sender(want.channel)) is not None:
            return Ending("received", want.channel, next(_sends(sender, want.channel)))
        return Ending("end", want.channel) if channel.is_closed else None

    def _take(self, number: int) -> None:
        channel = self.channels[number]
        if not channel.values:
            self._let_send(number)  # from hand to hand
        del channel.values[0]
        while len(channel.values) < channel.capacity and self.first_sender(number) is not None:
            self._let_send(number)

    def _let_send(self, channel: int) -> None:
        sender = self.first_sender(channel)
        assert sender is not None
        value = next(_sends(sender, channel))
        self.channels[channel].values.append(value)
        self._end(sender, Ending("sent", channel, value))

    def _end(self, party: Party, *endings: Ending) -> None:
        self.waiting.remove(party)
        self.ended[party.name] = list(endings)


def _sends(party: Party, channel: int) -> Iterator[int]:
    return (value for number, value in party.wants if number == channel and value is not None)
