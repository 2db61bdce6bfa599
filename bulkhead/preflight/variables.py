"""Variables that every environment, host and load balancer has."""

from pydantic import BaseModel

from bulkhead.environment import Environment, LoadBalancer, Node
from bulkhead.preflight.cluster import Cluster
from bulkhead.problem import Problem
from bulkhead.schema import problems_with


def check(cluster: Cluster) -> list[Problem]:
    names = (*Environment.model_fields, "application")
    common = {name: cluster.variable(name) for name in names if cluster.variable(name) is not None}
    problems = problems_with(Environment, common, "", cluster.origin)
    if "application" not in common:
        mend = "Describe the application in group_vars/all/application.yml; docs/application.md shows how."
        problems.append(Problem("application", "the required application is missing", "application", mend))
    for host in cluster.hosts:
        problems += _of_host(cluster, Node, host)
    for host in cluster.group("load_balancers"):
        problems += _of_host(cluster, LoadBalancer, host)
    missing = {name for name in names if name not in common and cluster.is_broken(name)}
    return [problem for problem in problems if problem.value not in missing]


def _of_host(cluster: Cluster, model: type[BaseModel], host: str) -> list[Problem]:
    variables = {name: value for name, value in cluster.hosts[host].items() if name in model.model_fields}
    return [
        problem
        for problem in problems_with(model, variables, f"hosts.{host}", cluster.origin)
        if (host, problem.value) not in cluster.broken
    ]
