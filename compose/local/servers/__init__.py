"""The five servers we stand on. All listen on 127.0.0.1 alone."""

from compose.local.servers.elasticsearch import Elasticsearch
from compose.local.servers.kafka import Kafka
from compose.local.servers.postgres import Postgres
from compose.local.servers.redis import Redis
from compose.local.servers.s3 import S3

__all__ = ["S3", "Elasticsearch", "Kafka", "Postgres", "Redis"]
