"""The cases of a select, and one attempt to let exactly one of them happen.

Everything but the constructors needs the lock of ``_waiter`` to be held.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Final, Generic, TypeVar

from patterns._core import NOTHING, Core, Nothing
from patterns._waiter import Place, Signal, Waiter
from patterns.errors import EndOfChannel

T = TypeVar("T")
CaseT = TypeVar("CaseT", bound="Case")
WaiterT = TypeVar("WaiterT", bound=Waiter)

_dice: Final = Random()  # noqa: S311 - for fairness, not for secrets


class Case(ABC):
    """One case of a select: made by ``receive`` or ``send``, and good for any number of selects, one at a time."""

    __slots__ = ()

    @abstractmethod
    def forget(self) -> None:
        """Forget the select before: this one may end without looking at the case."""

    @abstractmethod
    def happen(self) -> bool:
        """Happen now, if that is possible without waiting."""

    @abstractmethod
    def stand(self, waiter: Waiter) -> Place | None:
        """Queue for the other side; None for a case without a channel."""

    @abstractmethod
    def happen_or_meet(self, make_waiter: Callable[[], Waiter]) -> bool | Place:
        """Happen, or, for a send at a rendezvous, match a waiter with a receiver and return its place."""

    @abstractmethod
    def finish(self) -> None:
        """Complete the case, whose place was served."""


class Receive(Case, Generic[T]):
    """A receive as a case of a select."""

    __slots__ = ("_core", "_value")

    def __init__(self, core: Core[T] | None) -> None:
        self._core = core
        self._value: T | Nothing = NOTHING

    @property
    def ok(self) -> bool:
        """Whether a value was received; False when the chosen case's channel is closed and drained."""
        return self._value is not NOTHING

    @property
    def value(self) -> T:
        """What was received.

        Raises:
            EndOfChannel: nothing was: the channel is closed and drained (Go: the zero value), or another case was
            chosen.
        """
        if self._value is NOTHING:
            raise EndOfChannel("no value: the channel is closed and drained, or another case was chosen")
        return self._value

    def forget(self) -> None:
        self._value = NOTHING

    def happen(self) -> bool:
        if self._core is None:
            return False
        self._value = self._core.take()
        return self._value is not NOTHING or self._core.is_closed

    def happen_or_meet(self, make_waiter: Callable[[], Waiter]) -> bool | Place:  # noqa: ARG002 - a receive is never met
        return self.happen()

    def stand(self, waiter: Waiter) -> Place | None:
        return None if self._core is None else self._core.queue_receiver(waiter)

    def finish(self) -> None:
        if self._core is None:
            raise AssertionError("a case without a channel is never served")
        self._value = self._core.take_promised()


class Send(Case, Generic[T]):
    """A send as a case of a select."""

    __slots__ = ("_core", "_value")

    def __init__(self, core: Core[T] | None, value: T) -> None:
        self._core = core
        self._value = value

    def forget(self) -> None:
        """Nothing is to be forgotten: a send has no outcome of its own."""

    def happen(self) -> bool:
        return self._core is not None and self._core.give(self._value)

    def happen_or_meet(self, make_waiter: Callable[[], Waiter]) -> bool | Place:
        if self._core is None or self._core.capacity:
            return self.happen()
        return self._core.meet(make_waiter(), self._value) or False

    def stand(self, waiter: Waiter) -> Place | None:
        return None if self._core is None else self._core.queue_sender(waiter, self._value)

    def finish(self) -> None:
        """Nothing is left to do: the value has gone."""


class Attempt(Generic[CaseT, WaiterT]):
    """One look at the cases, and one wait if none of them was ready.

    A select that may not wait cannot see a rendezvous through: its send hands the value to a waiting receiver and is
    done, as ``send_nowait`` is.
    """

    __slots__ = ("_cases", "_make_waiter", "_places", "_random", "_waiter")

    def __init__(self, cases: Sequence[CaseT], random: Random | None, make_waiter: Callable[[], WaiterT]) -> None:
        self._cases = cases
        self._random = random or _dice
        self._make_waiter = make_waiter
        self._waiter: WaiterT | None = None
        self._places: dict[Place, CaseT] = {}

    @property
    def waiter(self) -> WaiterT:
        """The waiter of this attempt, made when it is first asked for."""
        return self._get_waiter()

    def look(self) -> CaseT | None:
        """Let the first case happen that is ready, in random order, without waiting."""
        for case in self._in_random_order():
            if case.happen():
                return case
        return None

    def look_or_wait(self) -> CaseT | None:
        """Do the same, and if no case is ready queue for all of them; None if there is now something to wait for."""
        for case in self._in_random_order():
            happened = case.happen_or_meet(self._get_waiter)
            if isinstance(happened, Place):
                self._places[happened] = case
                return None
            if happened:
                return case
        for case in self._cases:
            if (place := case.stand(self.waiter)) is not None:
                self._places[place] = case
        return None

    def finish(self) -> CaseT | None:
        """Complete the case that was served during the wait; None if there was none."""
        case = self._places.get(self.waiter.outcome) if isinstance(self.waiter.outcome, Place) else None
        if case is not None:
            case.finish()
            self.waiter.outcome = Signal.WITHDRAWN  # the promise is kept: from here on there is nothing to undo
        return case

    def withdraw(self) -> None:
        """Give up."""
        if self._waiter is not None:
            self._waiter.withdraw()

    @property
    def is_expired(self) -> bool:
        """Whether the wait ended because its time was up."""
        return self.waiter.outcome is Signal.TIMEOUT

    def expire(self) -> None:
        """End the wait because its time is up, unless it was served, or matched, before."""
        if self.waiter.outcome is None:
            self.waiter.end(Signal.TIMEOUT)
        else:
            self.waiter.looks_again = True  # should its match be undone, nobody else would tell it the time

    def _get_waiter(self) -> WaiterT:
        if self._waiter is None:
            self._waiter = self._make_waiter()
        return self._waiter

    def _in_random_order(self) -> Iterator[CaseT]:
        """Shuffle lazily: every order is equally likely, and what is not looked at costs nothing."""
        cases = list(self._cases)
        for case in cases:
            case.forget()
        while cases:
            index = int(self._random.random() * len(cases))
            cases[index], cases[-1] = cases[-1], cases[index]
            yield cases.pop()
