"""Go's concurrency vocabulary in Python: one concept a file, on the standard library alone."""

from patterns.channel import Channel, ChannelStatistics, ReceiveChannel
from patterns.context import Context, ContextStatistics, background
from patterns.errors import (
    ChannelClosedError,
    ContextCancelled,
    ContextError,
    DeadlineExceeded,
    DeadlockError,
    EndOfChannel,
    NotLockedError,
    WouldBlock,
)
from patterns.select import Case, Outcome, Receive, Send, receive, select, select_sync, send
from patterns.sync_channel import SyncChannel, SyncReceiveChannel
from patterns.ticker import Ticker, TickerStatistics, after

__all__ = [
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
    "NotLockedError",
    "Outcome",
    "Receive",
    "ReceiveChannel",
    "Send",
    "SyncChannel",
    "SyncReceiveChannel",
    "Ticker",
    "TickerStatistics",
    "WouldBlock",
    "after",
    "background",
    "receive",
    "select",
    "select_sync",
    "send",
]
