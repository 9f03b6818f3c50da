"""A server that behaves like Salesforce's REST interface, and misbehaves on command.

In a process of its own it is `python -m sandbox.salesforce`, told what to do by a `SalesforceControl`; within this
process it is `async with open_salesforce(settings) as salesforce`, with `salesforce.faults` and `salesforce.records`.

What is true to Salesforce: paths, statuses, status codes, their messages, the order and the form of results. What is
not: only upserts by external id and one shape of SOQL are served, values are kept as they were sent, there is no quota
but a rate, and a request that the server itself refuses (too large, too slow, no HTTP) gets the platform's own problem
document.
"""

from sandbox.salesforce.applied_log import Applied
from sandbox.salesforce.client import ControlCounts, SalesforceControl
from sandbox.salesforce.errors import AppliedLogError, ControlError
from sandbox.salesforce.fault import Endpoint, Fault, FaultKind
from sandbox.salesforce.records import Record
from sandbox.salesforce.server import Salesforce, open_salesforce
from sandbox.salesforce.settings import SalesforceSettings
from sandbox.salesforce.tokens import ConnectedApp

__all__ = [
    "Applied",
    "AppliedLogError",
    "ConnectedApp",
    "ControlCounts",
    "ControlError",
    "Endpoint",
    "Fault",
    "FaultKind",
    "Record",
    "Salesforce",
    "SalesforceControl",
    "SalesforceSettings",
    "open_salesforce",
]
