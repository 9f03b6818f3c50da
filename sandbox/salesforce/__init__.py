"""A server that behaves like Salesforce's REST interface, and misbehaves on command."""

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
