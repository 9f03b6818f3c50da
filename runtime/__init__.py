"""Process plumbing: settings, logs, telemetry, the one place that runs an event loop, HTTP, Postgres and Kafka."""
