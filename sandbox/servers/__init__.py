"""PostgreSQL, MongoDB and a Kafka-compatible broker from wheels, for demo and tests; no service imports this."""

from sandbox.servers.errors import NotOursError, ServerError, ServerUnavailableError
from sandbox.servers.kafka import KafkaServer, open_kafka
from sandbox.servers.mongo import MongoServer, open_mongo, open_mongo_nodes
from sandbox.servers.postgres import PostgresServer, open_postgres
from sandbox.servers.process import KeptProcess, Program, start_process
from sandbox.servers.server import OwnedServer

__all__ = [
    "KafkaServer",
    "KeptProcess",
    "MongoServer",
    "NotOursError",
    "OwnedServer",
    "PostgresServer",
    "Program",
    "ServerError",
    "ServerUnavailableError",
    "open_kafka",
    "open_mongo",
    "open_mongo_nodes",
    "open_postgres",
    "start_process",
]
