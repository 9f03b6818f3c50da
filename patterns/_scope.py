"""The cancellation tree beneath contexts: a scope ends once, and with everything below it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from patterns._core import Core
from patterns._timer import THREAD_CLOCK, Clock, Timer
from patterns._waiter import matching
from patterns.errors import ContextError, DeadlineExceeded

Hook = Callable[[], object]


class Scope:
    """One node of the tree.

    Its state changes under the lock of ``_waiter``, together with its ``done`` channel and in one step for the whole
    subtree, children first: nobody, not even who looks without the lock, sees a parent that has ended with a child that
    has not.
    """

    __slots__ = ("cause", "children", "clock", "deadline", "done", "err", "hooks", "siblings", "timer")

    def __init__(self, parent: Scope | None = None, clock: Clock = THREAD_CLOCK, deadline: float | None = None) -> None:
        self.children: dict[Scope, None] = {}
        self.siblings: dict[Scope, None] = {} if parent is None else parent.children
        self.hooks: dict[object, Hook] = {}
        self.timer: Timer | None = None
        self.clock = clock
        self.deadline = deadline
        self.done: Core[None] = Core(0)
        self.err: ContextError | None = None
        self.cause: BaseException | None = None

    def derive(self) -> Scope:
        """Make a child that ends when this scope does, if not before: at birth if this scope has ended."""
        return self._adopt(Scope(self, self.clock, self.deadline))

    def derive_until(self, deadline: float, clock: Clock) -> Scope:
        """Make a child with a deadline of its own, unless this scope's is earlier; a past one ends it at birth.

        Raises:
            ValueError: the deadline is NaN.
        """
        if math.isnan(deadline):
            raise ValueError("a deadline must be a number, not nan")
        seconds = deadline - clock.now()
        remaining = self.remaining()
        if remaining is not None and remaining <= seconds:
            return self.derive()
        child = self._adopt(Scope(self, clock, deadline))
        if seconds <= 0:
            child.expire()
        else:
            child.start_timer()
        return child

    def remaining(self) -> float | None:
        """Seconds until the deadline, 0 once it has passed; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - self.clock.now())

    def end(self, err: ContextError, cause: BaseException | None = None) -> None:
        """End this scope and all below it before returning; without effect if it has ended already.

        Every hook is called, even if others fail; what one raised is raised, what several raised as a group.
        """
        with matching:
            if self.err is not None:
                return
            hooks = self._mark(err, cause or err)
            self.siblings.pop(self, None)
        errors: list[BaseException] = []
        for hook in hooks:
            try:
                hook()
            except BaseException as error:  # noqa: BLE001 - raised below, when all have been told
                errors.append(error)
        if errors:
            raise errors[0] if len(errors) == 1 else BaseExceptionGroup("hooks of a scope failed", errors)

    def expire(self) -> None:
        """End because the deadline has passed."""
        self.end(DeadlineExceeded("context deadline exceeded"))

    def start_timer(self) -> None:
        """Let the deadline end the scope; for a scope that has one of its own."""
        if self.deadline is None:
            raise AssertionError("no deadline, no timer")
        timer = self.clock.call_at(self.deadline, self.expire)
        with matching:
            if self.err is None:
                self.timer = timer
                return
        timer.stop()

    def add_hook(self, hook: Hook) -> Callable[[], bool]:
        """Call a short function when the scope ends: at once if it has ended.

        The function that is returned takes the hook back and says whether that came before the call.
        """
        key = object()
        hooks = {} if self is ROOT else self.hooks
        with matching:
            has_ended = self.err is not None
            if not has_ended:
                hooks[key] = hook
        if has_ended:
            hook()

        def take_back() -> bool:
            with matching:
                return hooks.pop(key, None) is not None

        return take_back

    def counts(self) -> tuple[int, int]:
        """Count the children and the hooks."""
        with matching:
            return len(self.children), len(self.hooks)

    def _adopt(self, child: Scope) -> Scope:
        with matching:
            if self.err is not None:
                child._mark(self.err, self.cause)
            elif self is not ROOT:
                self.children[child] = None
        return child

    def _mark(self, err: ContextError, cause: BaseException | None) -> list[Hook]:
        """Mark the subtree; return what is still to be called without the lock, for parents first."""
        scopes = [self]
        for scope in scopes:
            scopes.extend(scope.children)
        hooks: list[Hook] = []
        for scope in reversed(scopes):
            scope.cause = cause
            scope.err = err
            scope.done.close()
            scope.children.clear()
        for scope in scopes:
            if scope.timer is not None:
                hooks.append(scope.timer.stop)
            hooks.extend(scope.hooks.values())
            scope.hooks.clear()
        return hooks


ROOT: Final = Scope()
"""The scope of ``background()``: it never ends, and so keeps neither children nor hooks, which would be for ever."""
