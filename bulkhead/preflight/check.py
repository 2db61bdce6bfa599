"""All of preflight: every rule, every problem, each once."""

from bulkhead.preflight import (
    addresses,
    arguments,
    brokers,
    capacity,
    certificates,
    groups,
    pools,
    secrets,
    variables,
)
from bulkhead.preflight.cluster import Cluster
from bulkhead.problem import Problem

RULES = (
    variables.check,
    groups.check,
    addresses.check,
    pools.check,
    capacity.check,
    brokers.check,
    secrets.check,
    certificates.check,
    arguments.check,
)


def check(cluster: Cluster) -> list[Problem]:
    found: dict[Problem, None] = {}
    for rule in RULES:
        found.update(dict.fromkeys(rule(cluster)))
    return list(found)
