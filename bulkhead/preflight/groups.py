"""Groups: none empty, and an odd number of etcd members."""

from bulkhead.preflight.cluster import Cluster
from bulkhead.preflight.plays import rendered
from bulkhead.problem import Problem, listed

NEEDED = ("load_balancers", "app_servers", "databases", "builders")
# An inventory may do without these: their plays then have no host, and that is no mistake.
OPTIONAL = ("brokers", "workers")


def check(cluster: Cluster) -> list[Problem]:
    return _empty(cluster) + _members(cluster)


def _empty(cluster: Cluster) -> list[Problem]:
    """One line for each empty group, whoever names it."""
    named: dict[str, str] = {}
    for tier in NEEDED:
        if not cluster.group(tier):
            named[cluster.group_name(tier)] = cluster.where(
                f"{tier}_group", cluster.variable(f"{tier}_group")
            )
    absent = {cluster.group_name(tier) for tier in OPTIONAL} - cluster.groups.keys()
    for play in cluster.plays:
        if rendered(play.pattern, cluster.variable) in {"localhost", *absent}:
            continue
        if not cluster.hosts_in(play):
            named.setdefault(rendered(play.pattern, cluster.variable), play.file)
    for group, hosts in cluster.groups.items():
        if not hosts and group not in ("all", "ungrouped"):
            named.setdefault(group, "the inventory")
    return [
        Problem(
            where,
            f"the group {group} has no host",
            group,
            f"Put hosts into {group} in the inventory's hosts.yml.",
        )
        for group, where in named.items()
    ]


def _members(cluster: Cluster) -> list[Problem]:
    members = cluster.hosts_with("etcd")
    if len(members) % 2 == 1 or not members:
        return []
    return [
        Problem(
            f"the hosts that a play gives etcd, group {cluster.group_name('databases')}",
            f"there are {len(members)} etcd members ({listed(members)}), and their number must be odd",
            str(len(members)),
            "Add a host to the group or take one out: an even number bears no more failures than one fewer.",
        )
    ]
