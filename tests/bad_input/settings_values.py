"""Environments that are wrong, each with every line of the one message that it must get."""

import os
from typing import Final

from sandbox.instance import Service
from tests.bad_input.http_row import CANARY, COUPON_API, HOSTILE, REWARD_STORE
from tests.bad_input.settings_row import COUPON_CONSUMER, SettingsRow

_REQUIRED: Final = "is required"
_INTEGER: Final = "Input should be a valid integer, unable to parse string as an integer"
_NUMBER: Final = "Input should be a valid number, unable to parse string as a number"
_FINITE: Final = "Input should be a finite number"
_EMPTY: Final = "String should have at least 1 character"
_LEVELS: Final = "Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"
_NO_TEXT: Final = os.fsdecode(b"\xff")

# One variable, its value, and what is said of it under its own name.
_VALUES: Final[tuple[tuple[str, Service, str, str | None, str], ...]] = (
    ("required variable missing", COUPON_API, "POSTGRES__DATABASE", None, _REQUIRED),
    ("required section missing", COUPON_CONSUMER, "KAFKA__BOOTSTRAP", None, _REQUIRED),
    ("mistyped", COUPON_API, "POSTGRES__HSOT", CANARY, "no such setting; did you mean ~POSTGRES__HOST?"),
    ("unknown", COUPON_API, "K4N4RY", CANARY, "no such setting; did you mean ~INSTANCE?"),
    ("unknown section", COUPON_API, "K4N4RY__HOST", CANARY, "no such setting; did you mean ~ADMIN__HOST?"),
    ("other service's section", COUPON_API, "KAFKA__BOOTSTRAP", CANARY, "no such setting; did you mean ~ADMIN__HOST?"),
    ("value below value", COUPON_API, "POSTGRES__HOST__NAME", CANARY, "no such setting; did you mean ~POSTGRES__HOST?"),
    ("section as value", COUPON_API, "POSTGRES", CANARY, "no such setting; did you mean ~POSTGRES__TLS?"),
    ("one underscore", COUPON_API, "POSTGRES_HOST", CANARY, "no such setting; did you mean ~POSTGRES__HOST?"),
    ("port text", COUPON_API, "POSTGRES__PORT", HOSTILE, _INTEGER),
    ("port empty", COUPON_API, "POSTGRES__PORT", "", _INTEGER),
    ("port negative", COUPON_API, "POSTGRES__PORT", "-1", "Input should be greater than or equal to 0"),
    ("port too high", COUPON_API, "HTTP__PORT", "65536", "Input should be less than or equal to 65535"),
    ("port fraction", COUPON_API, "HTTP__PORT", "80.5", _INTEGER),
    ("port hexadecimal", COUPON_API, "HTTP__PORT", "0x50", _INTEGER),
    (
        "host not UTF-8", COUPON_API, "POSTGRES__HOST", _NO_TEXT,
        "Input should be a valid string, unable to parse raw data as a unicode string",
    ),
    ("database empty", COUPON_API, "POSTGRES__DATABASE", "", _EMPTY),
    ("user too long", COUPON_API, "POSTGRES__USER", CANARY * 20, "String should have at most 63 characters"),
    ("seconds text", COUPON_API, "GRACE_SECONDS", "soon", _NUMBER),
    ("seconds zero", COUPON_API, "GRACE_SECONDS", "0", "Input should be greater than 0"),
    ("seconds nan", COUPON_API, "GRACE_SECONDS", "nan", _FINITE),
    ("seconds inf", COUPON_API, "GRACE_SECONDS", "inf", _FINITE),
    ("seconds too many", COUPON_API, "GRACE_SECONDS", "86401", "Input should be less than or equal to 86400"),
    ("seconds with a unit", COUPON_API, "GRACE_SECONDS", "30s", _NUMBER),
    ("unknown level", COUPON_API, "LOG_LEVEL", HOSTILE, _LEVELS),
    ("level in lower case", COUPON_API, "LOG_LEVEL", "info", _LEVELS),
    ("unknown format", COUPON_API, "LOG_FORMAT", CANARY, "Input should be 'auto', 'json' or 'console'"),
    (
        "neither true nor false", COUPON_API, "CRASH__IS_TEST", CANARY,
        "Input should be a valid boolean, unable to interpret input",
    ),
    ("unknown TLS mode", COUPON_API, "POSTGRES__TLS", "yes", "Input should be 'disable', 'require' or 'verify-full'"),
    ("token secret as value", COUPON_API, "AUTH__SECRET", CANARY, "no such setting; did you mean ~AUTH__SECRET_FILE?"),
    ("algorithm none", COUPON_API, "AUTH__ALGORITHM", "none", "Input should be 'HS256' or 'RS256'"),
    ("descriptor of standard output", COUPON_API, "HTTP__LISTEN_FD", "1", "Input should be greater than or equal to 3"),
    ("no room for traces", COUPON_API, "TRACE_CAPACITY", "0", "Input should be greater than or equal to 1"),
    (
        "keys kept too short", COUPON_API, "IDEMPOTENCY__KEEP_SECONDS", "1",
        "Input should be greater than or equal to 60",
    ),
    ("instance empty", COUPON_API, "INSTANCE", "", _EMPTY),
    (
        "topic with a slash", COUPON_CONSUMER, "CONSUMER__TOPIC", f"{CANARY}/x",
        "String should match pattern '^[A-Za-z0-9._-]{1,249}$'",
    ),
    ("group empty", COUPON_CONSUMER, "CONSUMER__GROUP", "", _EMPTY),
    ("unknown start", COUPON_CONSUMER, "START", CANARY, "Input should be 'earliest' or 'latest'"),
    ("share above 1", COUPON_CONSUMER, "BREAKER__POISON_SHARE", "2", "Input should be less than or equal to 1"),
    ("no URLs", REWARD_STORE, "COUPON_API__URLS", " , ", "Tuple should have at least 1 item after validation, not 0"),
)  # fmt: skip

_ROWS: Final = (
    SettingsRow(
        "everything missing",
        REWARD_STORE,
        {
            "POSTGRES__DATABASE": None,
            "POSTGRES__USER": None,
            "POSTGRES__PASSWORD": None,
            "AUTH__SECRET_FILE": None,
            "KAFKA__BOOTSTRAP": None,
            "COUPON_API__URLS": None,
            "COUPON_API__TOKEN_FILE": None,
        },
        (
            "~POSTGRES__DATABASE: is required",
            "~POSTGRES__USER: is required",
            "~KAFKA__BOOTSTRAP: is required",
            "~AUTH: secret_file is required for HS256",
            "~COUPON_API__URLS: is required",
            "~COUPON_API__TOKEN_FILE: is required",
        ),
    ),
    SettingsRow(
        "section with its own rule missing",
        COUPON_API,
        {"AUTH__SECRET_FILE": None},
        ("~AUTH: secret_file is required for HS256",),
    ),
    SettingsRow(
        "hostile name",
        COUPON_API,
        {"\x1b[31m\r\nFORGED": CANARY},
        ("~\\x1b[31M\\r\\nFORGED: no such setting; did you mean ~LOG_LEVEL?",),
    ),
    SettingsRow(
        "not UTF-8 name", COUPON_API, {_NO_TEXT: CANARY}, ("~\\UDCFF: no such setting; did you mean ~INSTANCE?",)
    ),
    SettingsRow(
        "host empty",
        COUPON_API,
        {"POSTGRES__HOST": "", "HTTP__HOST": "", "ADMIN__HOST": ""},
        (
            "~ADMIN__HOST: String should have at least 1 character",
            "~POSTGRES__HOST: String should have at least 1 character",
            "~HTTP__HOST: String should have at least 1 character",
        ),
    ),
    SettingsRow(
        "crash point outside a test",
        COUPON_API,
        {"CRASH__POINT": "after-commit"},
        ("~CRASH: point is given, but is_test is not true: a crash point is for tests only",),
    ),
    SettingsRow(
        "certificates missing",
        COUPON_API,
        {"POSTGRES__TLS": "verify-full", "POSTGRES__TLS_CA_FILE": "$missing"},
        ("~POSTGRES: tls_ca_file cannot be used: No such file or directory",),
    ),
    SettingsRow(
        "certificates a directory",
        COUPON_API,
        {"POSTGRES__TLS": "verify-full", "POSTGRES__TLS_CA_FILE": "$directory"},
        ("~POSTGRES: tls_ca_file cannot be used: Is a directory",),
    ),
    SettingsRow(
        "password twice",
        COUPON_API,
        {"POSTGRES__PASSWORD_FILE": "$good"},
        ("~POSTGRES: password and password_file are both given; give one",),
    ),
    SettingsRow(
        "password missing",
        COUPON_API,
        {"POSTGRES__PASSWORD": None, "POSTGRES__PASSWORD_FILE": "$missing"},
        ("~POSTGRES: password_file cannot be read: No such file or directory",),
    ),
    SettingsRow(
        "password empty file",
        COUPON_API,
        {"POSTGRES__PASSWORD": None, "POSTGRES__PASSWORD_FILE": "$empty"},
        ("~POSTGRES: password_file is empty or not UTF-8 text",),
    ),
    SettingsRow(
        "password binary file",
        COUPON_API,
        {"POSTGRES__PASSWORD": None, "POSTGRES__PASSWORD_FILE": "$binary"},
        ("~POSTGRES: password_file is empty or not UTF-8 text",),
    ),
    SettingsRow("password empty", COUPON_API, {"POSTGRES__PASSWORD": ""}, ("~POSTGRES: password is empty",)),
    SettingsRow(
        "token secret short",
        COUPON_API,
        {"AUTH__SECRET_FILE": "$short"},
        ("~AUTH: secret_file cannot be used: an HS256 secret needs at least 32 bytes",),
    ),
    SettingsRow(
        "token secret missing",
        COUPON_API,
        {"AUTH__SECRET_FILE": "$missing"},
        ("~AUTH: secret_file cannot be read: No such file or directory",),
    ),
    SettingsRow(
        "token secret binary",
        COUPON_API,
        {"AUTH__SECRET_FILE": "$binary"},
        ("~AUTH: secret_file is empty or not UTF-8 text",),
    ),
    SettingsRow(
        "algorithm of another key",
        COUPON_API,
        {"AUTH__ALGORITHM": "RS256"},
        (
            "~AUTH: public_key_file is required for RS256",
            "~AUTH: secret_file is given but RS256 does not use it",
        ),
    ),
    SettingsRow(
        "a secret for a public key",
        COUPON_API,
        {"AUTH__ALGORITHM": "RS256", "AUTH__PUBLIC_KEY_FILE": "$good"},
        (
            "~AUTH: public_key_file cannot be used: RS256 needs an RSA public key (PEM) of at least 2048 bits",
            "~AUTH: secret_file is given but RS256 does not use it",
        ),
    ),
    SettingsRow(
        "pool_min above pool_max",
        COUPON_API,
        {"POSTGRES__POOL_MIN": "11"},
        ("~POSTGRES: pool_min is greater than pool_max",),
    ),
    SettingsRow(
        "lock timeout above the statement's",
        COUPON_API,
        {"POSTGRES__LOCK_TIMEOUT_SECONDS": "6"},
        (
            (
                "~POSTGRES: lock_timeout_seconds is greater than statement_timeout_seconds,"
                " which would end each wait first"
            ),
        ),
    ),
    SettingsRow(
        "wait for the database too long",
        COUPON_API,
        {"STARTUP_SECONDS": "31"},
        ("startup_seconds is greater than 30, the longest wait for the database",),
    ),
    SettingsRow(
        "grace below what a stop needs",
        COUPON_API,
        {"GRACE_SECONDS": "10"},
        ("grace_seconds (10) must be greater than what an orderly stop may need: postgres 2 + http 12",),
    ),
    SettingsRow(
        "request longer than a stop waits",
        COUPON_API,
        {"HTTP__REQUEST_TIMEOUT_SECONDS": "11"},
        (
            (
                "~HTTP: request_timeout_seconds is greater than finish_seconds: a stop would cut"
                " off requests still in time"
            ),
        ),
    ),
    SettingsRow(
        "more in flight than connections",
        COUPON_API,
        {"HTTP__IN_FLIGHT_MAX": "3000"},
        ("~HTTP: in_flight_max is greater than connections_max and would never be reached",),
    ),
    SettingsRow(
        "descriptor that is closed",
        COUPON_API,
        {"HTTP__LISTEN_FD": "1000000"},
        ("~HTTP: listen_fd is the number of no inherited socket",),
    ),
    SettingsRow(
        "SASL without a mechanism",
        COUPON_CONSUMER,
        {"KAFKA__SECURITY_PROTOCOL": "SASL_SSL"},
        ("~KAFKA: sasl_mechanism is to be given exactly when security_protocol begins with SASL",),
    ),
    SettingsRow(
        "mechanism without SASL",
        COUPON_CONSUMER,
        {"KAFKA__SASL_MECHANISM": "PLAIN"},
        ("~KAFKA: sasl_mechanism is to be given exactly when security_protocol begins with SASL",),
    ),
    SettingsRow(
        "unknown mechanism",
        COUPON_CONSUMER,
        {"KAFKA__SASL_MECHANISM": CANARY, "KAFKA__SECURITY_PROTOCOL": "SASL_SSL"},
        ("~KAFKA__SASL_MECHANISM: Input should be 'PLAIN', 'SCRAM-SHA-256' or 'SCRAM-SHA-512'",),
    ),
    SettingsRow(
        "record above the queue",
        COUPON_CONSUMER,
        {"KAFKA__RECORD_BYTES": "50000000"},
        ("~KAFKA: record_bytes is greater than queue_bytes: the largest record would never fit the queue",),
    ),
    SettingsRow(
        "linger above the delivery timeout",
        COUPON_CONSUMER,
        {"KAFKA__LINGER_MS": "10000"},
        ("~KAFKA: linger_ms is not less than delivery_timeout_seconds",),
    ),
    SettingsRow(
        "chunk above the batch",
        COUPON_CONSUMER,
        {"CONSUMER__CHUNK_RECORDS": "3000"},
        ("consumer chunk_records is greater than batch_records",),
    ),
    SettingsRow(
        "breaker that never opens",
        COUPON_CONSUMER,
        {"BREAKER__RECORDS_MIN": "3000"},
        ("~BREAKER: records_min is greater than window_records: the breaker would never open",),
    ),
    SettingsRow(
        "first wait above the longest",
        COUPON_CONSUMER,
        {"RETRY__FIRST_SECONDS": "5"},
        ("~RETRY: first_seconds is greater than most_seconds",),
    ),
    SettingsRow(
        "session above the poll interval",
        COUPON_CONSUMER,
        {"CONSUMER__SESSION_TIMEOUT_SECONDS": "400"},
        ("~CONSUMER: session_timeout_seconds is greater than max_poll_interval_seconds",),
    ),
    SettingsRow(
        "checks too seldom",
        COUPON_CONSUMER,
        {"CHECK_SECONDS": "20"},
        ("check_seconds is greater than broker_down_seconds",),
    ),
    SettingsRow(
        "try below the statement's time",
        COUPON_CONSUMER,
        {"TRY_TIMEOUT_SECONDS": "1"},
        ("try_timeout_seconds is less than the postgres statement_timeout_seconds",),
    ),
    SettingsRow(
        "no URL",
        REWARD_STORE,
        {"COUPON_API__URLS": CANARY},
        ("~COUPON_API: urls must each begin with http:// or https://",),
    ),
    SettingsRow(
        "one bad URL",
        REWARD_STORE,
        {"COUPON_API__URLS": f"http://ok,ftp://{CANARY}"},
        ("~COUPON_API: urls must each begin with http:// or https://",),
    ),
    SettingsRow(
        "token file missing",
        REWARD_STORE,
        {"COUPON_API__TOKEN_FILE": "$missing"},
        ("~COUPON_API: token_file cannot be read: No such file or directory",),
    ),
    SettingsRow(
        "token file empty",
        REWARD_STORE,
        {"COUPON_API__TOKEN_FILE": "$empty"},
        ("~COUPON_API: token_file is empty or not UTF-8 text",),
    ),
    SettingsRow(
        "lease below a delivery",
        REWARD_STORE,
        {"RELAY__LEASE_SECONDS": "5"},
        (
            (
                "relay.lease_seconds must be greater than kafka.delivery_timeout_seconds and the"
                " time of one statement together: a lease has to outlive the broker's word and the mark after it"
            ),
        ),
    ),
    SettingsRow(
        "lease below a cancellation",
        REWARD_STORE,
        {"CANCEL__LEASE_SECONDS": "5"},
        (
            (
                "cancel.lease_seconds must be greater than coupon_api.timeout_seconds and the"
                " time of one statement together: a cancellation in progress would be taken over"
            ),
        ),
    ),
    SettingsRow(
        "first back-off above the longest",
        REWARD_STORE,
        {"RELAY__BACKOFF_FIRST_SECONDS": "20"},
        ("~RELAY: backoff_first_seconds is greater than backoff_most_seconds",),
    ),
    SettingsRow(
        "all kinds at once",
        REWARD_STORE,
        {
            "POSTGRES__DATABASE": None,
            "POSTGRES__HSOT": CANARY,
            "POSTGRES__PORT": CANARY,
            "KAFKA__LINGER_MS": "-1",
            "GRACE_SECONDS": "-1",
            "LOG_LEVEL": CANARY,
            "COUPON_API__URLS": None,
        },
        (
            "~LOG_LEVEL: Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'",
            "~GRACE_SECONDS: Input should be greater than 0",
            "~POSTGRES__PORT: Input should be a valid integer, unable to parse string as an integer",
            "~POSTGRES__DATABASE: is required",
            "~POSTGRES__HSOT: no such setting; did you mean ~POSTGRES__HOST?",
            "~KAFKA__LINGER_MS: Input should be greater than or equal to 0",
            "~COUPON_API__URLS: is required",
        ),
    ),
)

ROWS: Final = (
    *(
        SettingsRow(name, api, {variable: value}, (f"~{variable}: {said}",))
        for name, api, variable, value, said in _VALUES
    ),
    *_ROWS,
)
