"""Go's concurrency vocabulary in Python: one concept a file, on the standard library alone."""

from patterns.atomic import AtomicCounter, AtomicCounterStatistics
from patterns.bubble import bubble, wait_idle
from patterns.channel import Channel, ChannelStatistics, ReceiveChannel
from patterns.context import Context, ContextStatistics, background
from patterns.error_group import ErrorGroup, ErrorGroupPolicy, ErrorGroupStatistics
from patterns.errors import (
    ChannelClosedError,
    ContextCancelled,
    ContextError,
    DeadlineExceeded,
    DeadlockError,
    EndOfChannel,
    LeakError,
    NotLockedError,
    SignalReceived,
    WaitGroupMisuseError,
    WouldBlock,
)
from patterns.leak import TaskSite, check_leaks, collect_unreachable, describe_task, leaked_tasks, record_creation
from patterns.mutex import Mutex, MutexStatistics, RWMutex, RWMutexStatistics
from patterns.once import Once, OnceState, OnceStatistics, OnceValue
from patterns.select import Case, Outcome, Receive, Send, receive, select, select_sync, send
from patterns.shutdown import Phase, PhaseOutcome, PhaseReport, Shutdown, ShutdownResult, ShutdownStatistics
from patterns.sync_channel import SyncChannel, SyncReceiveChannel
from patterns.ticker import Ticker, TickerStatistics, after
from patterns.wait_group import WaitGroup, WaitGroupStatistics
from patterns.worker_pool import JobResult, WorkerPool, WorkerPoolStatistics

__all__ = [
    "AtomicCounter",
    "AtomicCounterStatistics",
    "Case",
    "Channel",
    "ChannelClosedError",
    "ChannelStatistics",
    "Context",
    "ContextCancelled",
    "ContextError",
    "ContextStatistics",
    "DeadlineExceeded",
    "DeadlockError",
    "EndOfChannel",
    "ErrorGroup",
    "ErrorGroupPolicy",
    "ErrorGroupStatistics",
    "JobResult",
    "LeakError",
    "Mutex",
    "MutexStatistics",
    "NotLockedError",
    "Once",
    "OnceState",
    "OnceStatistics",
    "OnceValue",
    "Outcome",
    "Phase",
    "PhaseOutcome",
    "PhaseReport",
    "RWMutex",
    "RWMutexStatistics",
    "Receive",
    "ReceiveChannel",
    "Send",
    "Shutdown",
    "ShutdownResult",
    "ShutdownStatistics",
    "SignalReceived",
    "SyncChannel",
    "SyncReceiveChannel",
    "TaskSite",
    "Ticker",
    "TickerStatistics",
    "WaitGroup",
    "WaitGroupMisuseError",
    "WaitGroupStatistics",
    "WorkerPool",
    "WorkerPoolStatistics",
    "WouldBlock",
    "after",
    "background",
    "bubble",
    "check_leaks",
    "collect_unreachable",
    "describe_task",
    "leaked_tasks",
    "receive",
    "record_creation",
    "select",
    "select_sync",
    "send",
    "wait_idle",
]
