"""What an earlier life left on a broker's host, and whether the role may go on there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Whoever is not the owner has no part in the cookie.
OTHERS = 0o077
OWNERS = ("rabbitmq", "root")


def rabbitmq_refusals(cookie: Mapping[str, Any], was_part_of: str, cluster: str, host: str) -> list[str]:
    """Why this host cannot be a broker of `cluster` as it is, each reason with its mend; none when it can.

    `cookie` is what the stat module says of its cookie, `was_part_of` the cluster that it has been in or "".
    """
    refusals = []
    if was_part_of not in ("", cluster):
        refusals.append(
            f"{host} has been a broker of the cluster {was_part_of}, and the inventory says {cluster}: "
            "is this the host of that name in another environment? Then correct its ansible_host. If it is "
            "to change clusters, stop rabbitmq-server there, and remove /var/lib/rabbitmq/mnesia and "
            "/var/lib/rabbitmq/formed."
        )
    if cookie.get("exists"):
        path, mode = cookie["path"], str(cookie["mode"])
        owner = cookie.get("pw_name") or f"user {cookie.get('uid')}"
        if int(mode, 8) & OTHERS or owner not in OWNERS:
            refusals.append(
                f"{host}: {path} has mode {mode} and belongs to {owner}, and only rabbitmq may read it: "
                "who knows it rules the brokers, and a broker does not start with such a file. If "
                f"nobody can have read it, type `chown rabbitmq:rabbitmq {path} && chmod 0400 {path}` there; "
                "otherwise take another cookie: docs/brokers.md, Members."
            )
    return refusals


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"rabbitmq_refusals": rabbitmq_refusals}
