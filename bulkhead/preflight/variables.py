"""Variables that every environment, host and load balancer has."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from pydantic import BaseModel

from bulkhead.environment import Environment, LoadBalancer, Node
from bulkhead.preflight.cluster import Cluster
from bulkhead.problem import Problem, listed
from bulkhead.schema import problems_with


def check(cluster: Cluster) -> list[Problem]:
    names = (*Environment.model_fields, "application")
    common = {name: cluster.variable(name) for name in names if cluster.variable(name) is not None}
    problems = problems_with(Environment, common, "", cluster.origin)
    if "application" not in common:
        mend = "Describe the application in group_vars/all/application.yml; docs/application.md shows how."
        problems.append(Problem("application", "the required application is missing", "application", mend))
    problems += _of_hosts(cluster, Node, cluster.hosts)
    problems += _of_hosts(cluster, LoadBalancer, cluster.group("load_balancers"))
    missing = {name for name in names if name not in common and cluster.is_broken(name)}
    return [problem for problem in problems if problem.value not in missing]


def _of_hosts(cluster: Cluster, model: type[BaseModel], hosts: Iterable[str]) -> Iterator[Problem]:
    """A value that a group gives its hosts is wrong once, not on each of them."""
    found: dict[Problem, list[str]] = {}
    for host in hosts:
        variables = {name: value for name, value in cluster.hosts[host].items() if name in model.model_fields}
        for problem in problems_with(model, variables, "hosts.*", cluster.origin):
            if (host, problem.value) not in cluster.broken:
                found.setdefault(problem, []).append(host)
    for problem, on in found.items():
        if len(on) == 1:
            yield replace(problem, where=problem.where.replace("*", on[0], 1))
        else:
            yield replace(problem, what=f"{problem.what} (on {listed(on)})")
