"""Environments that are wrong for the services on MongoDB, each with every line of the message that it must get."""

from typing import Final

from tests.bad_input.http_row import CAMPAIGN_API, CANARY, HOSTILE
from tests.bad_input.settings_row import CONSENT_CONSUMER, SettingsRow

_SALESFORCE: Final = "SALESFORCE__CLIENT_SECRET_FILE"

ROWS: Final = (
    SettingsRow("no database", CAMPAIGN_API, {"MONGO__DATABASE": None}, ("~MONGO__DATABASE: is required",)),
    SettingsRow(
        "database with a dot",
        CAMPAIGN_API,
        {"MONGO__DATABASE": f"{CANARY}.x"},
        ("~MONGO__DATABASE: String should match pattern '^[A-Za-z0-9_-]{1,63}$'",),
    ),
    SettingsRow("no host", CAMPAIGN_API, {"MONGO__HOSTS": ""}, ("~MONGO__HOSTS: names no host",)),
    SettingsRow(
        "host hostile",
        CAMPAIGN_API,
        {"MONGO__HOSTS": f"{HOSTILE}:port"},
        ("~MONGO__HOSTS: must be host or host:port, separated by commas",),
    ),
    SettingsRow(
        "hosts as a URL",
        CAMPAIGN_API,
        {"MONGO__HOSTS": f"mongodb://{CANARY}:x@db/"},
        ("~MONGO__HOSTS: must be host or host:port, separated by commas",),
    ),
    SettingsRow(
        "another service's database",
        CAMPAIGN_API,
        {"POSTGRES__DATABASE": CANARY},
        ("~POSTGRES__DATABASE: no such setting; did you mean ~MONGO__DATABASE?",),
    ),
    SettingsRow(
        "password of nobody",
        CAMPAIGN_API,
        {"MONGO__USER": None},
        ("~MONGO: user and a password (or password_file) are to be given together",),
    ),
    SettingsRow(
        "user without a password",
        CONSENT_CONSUMER,
        {"MONGO__PASSWORD": None},
        ("~MONGO: user and a password (or password_file) are to be given together",),
    ),
    SettingsRow(
        "password of MongoDB twice",
        CONSENT_CONSUMER,
        {"MONGO__PASSWORD_FILE": "$good"},
        ("~MONGO: password and password_file are both given; give one",),
    ),
    SettingsRow(
        "unknown driver",
        CAMPAIGN_API,
        {"MONGO__DRIVER": CANARY},
        ("~MONGO__DRIVER: Input should be 'pymongo' or 'motor'",),
    ),
    SettingsRow(
        "certificate without TLS",
        CONSENT_CONSUMER,
        {"MONGO__TLS_CA_FILE": "$missing"},
        (
            "~MONGO: tls_ca_file is given but tls is disable",
            "~MONGO: tls_ca_file cannot be used: No such file or directory",
        ),
    ),
    SettingsRow(
        "no start",
        CONSENT_CONSUMER,
        {"START": None},
        ("~START: is required",),
    ),
    SettingsRow(
        "unknown start",
        CONSENT_CONSUMER,
        {"START": CANARY},
        ("~START: Input should be 'now' or 'resync'",),
    ),
    SettingsRow(
        "skip as a policy",
        CONSENT_CONSUMER,
        {"ON_LOST_TOKEN": "skip"},
        ("~ON_LOST_TOKEN: Input should be 'fail' or 'resync'",),
    ),
    SettingsRow(
        "larger calls than Salesforce takes",
        CONSENT_CONSUMER,
        {"BATCH_EVENTS": "201"},
        ("~BATCH_EVENTS: Input should be less than or equal to 200",),
    ),
    SettingsRow(
        "batch above what may be in flight",
        CONSENT_CONSUMER,
        {"IN_FLIGHT_MAX": "199"},
        ("in_flight_max is less than batch_events: a full call could never be made",),
    ),
    SettingsRow(
        "plain HTTP to another machine",
        CONSENT_CONSUMER,
        {"SALESFORCE__URL": f"http://{CANARY}.example"},
        ("~SALESFORCE: url must begin with https://: without TLS the secret could be read on the way",),
    ),
    SettingsRow(
        "URL with a path",
        CONSENT_CONSUMER,
        {"SALESFORCE__URL": f"https://{CANARY}.example/services"},
        ("~SALESFORCE__URL: must be https:// and a host, with nothing behind it",),
    ),
    SettingsRow(
        "secret missing",
        CONSENT_CONSUMER,
        {_SALESFORCE: "$missing"},
        ("~SALESFORCE: client_secret_file cannot be read: No such file or directory",),
    ),
    SettingsRow(
        "secret empty",
        CONSENT_CONSUMER,
        {_SALESFORCE: "$empty"},
        ("~SALESFORCE: client_secret_file is empty or not UTF-8 text",),
    ),
    SettingsRow(
        "renewal without a second try",
        CONSENT_CONSUMER,
        {"LEASE__RENEW_SECONDS": "16"},
        ("~LEASE: renew_seconds is greater than half of seconds: a renewal that fails would have no second try",),
    ),
    SettingsRow(
        "stop longer than its budget",
        CONSENT_CONSUMER,
        {"GRACE_SECONDS": "20"},
        (
            (
                "grace_seconds is not greater than 29: the salesforce timeout_seconds, burying dead"
                " letters, saving, giving the lease back, and closing, one after the other"
            ),
        ),
    ),
    SettingsRow(
        "all kinds at once on MongoDB",
        CONSENT_CONSUMER,
        {
            "MONGO__DATABASE": None,
            "MONGO__HSOTS": CANARY,
            "MONGO__POOL_MAX": CANARY,
            "SALESFORCE__URL": HOSTILE,
            "SALESFORCE__CLIENT_ID": None,
            "GRACE_SECONDS": "-1",
            "LOG_LEVEL": CANARY,
            "START": None,
        },
        (
            "~LOG_LEVEL: Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'",
            "~GRACE_SECONDS: Input should be greater than 0",
            "~MONGO__DATABASE: is required",
            "~MONGO__POOL_MAX: Input should be a valid integer, unable to parse string as an integer",
            "~MONGO__HSOTS: no such setting; did you mean ~MONGO__HOSTS?",
            "~SALESFORCE__URL: must be https:// and a host, with nothing behind it",
            "~SALESFORCE__CLIENT_ID: is required",
            "~START: is required",
        ),
    ),
    SettingsRow(
        "all kinds at once, campaigns",
        CAMPAIGN_API,
        {
            "MONGO__DATABASE": None,
            "MONGO__HSOTS": CANARY,
            "MONGO__POOL_MAX": CANARY,
            "AUTH__SECRET_FILE": None,
            "GRACE_SECONDS": "-1",
            "LOG_LEVEL": CANARY,
        },
        (
            "~LOG_LEVEL: Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'",
            "~GRACE_SECONDS: Input should be greater than 0",
            "~MONGO__DATABASE: is required",
            "~MONGO__POOL_MAX: Input should be a valid integer, unable to parse string as an integer",
            "~MONGO__HSOTS: no such setting; did you mean ~MONGO__HOSTS?",
            "~AUTH: secret_file is required for HS256",
        ),
    ),
)
