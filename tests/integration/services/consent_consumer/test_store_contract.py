"""The real consent store keeps the contract, by both drivers."""

from tests.support.consent_letter_contract import DeadLetterContract
from tests.support.consent_store_contract import LeaseContract, PositionContract, ScanContract


class TestMongoConsentStore(LeaseContract, PositionContract):
    """The contract, on MongoDB."""


class TestMongoDeadLetters(DeadLetterContract):
    """The contract, on MongoDB."""


class TestMongoCollectionScan(ScanContract):
    """The contract, on MongoDB."""
