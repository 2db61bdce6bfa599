"""The operator's command line: names and options only. What they do is in bulkhead/, how they end in
docs/operations.md.

Modules are loaded when they are needed: a status screen should not wait for what a deploy needs.
"""

from invoke.collection import Collection
from invoke.context import Context

from bulkhead.screen import operation

WITHOUT_LOCK = "Go on without the environment's lock, and why: etcd is down and nobody else operates."


@operation(json="The same as data, for programs.")
def status(_context: Context, json: bool = False) -> int:
    """What runs where, what is wrong, and what to type."""
    import bulkhead.status

    return bulkhead.status.run(as_json=json)


@operation(
    release="A release that was built before, by its id. Without it, the working tree is built.",
    yes="Do not ask.",
    dry_run="Show what would be done and stop.",
)
def deploy(_context: Context, release: str | None = None, yes: bool = False, dry_run: bool = False) -> None:
    """Build a release once and bring it to every application server."""
    from bulkhead.connections import cluster
    from bulkhead.deploy import deploy as operate

    with cluster() as (inventory, connections):
        operate(inventory, connections, release=release, yes=yes, dry_run=dry_run)


@operation(without_lock=WITHOUT_LOCK, yes="Do not ask.", dry_run="Show what would be done and stop.")
def failback(
    _context: Context, without_lock: str | None = None, yes: bool = False, dry_run: bool = False
) -> None:
    """Put each virtual address on the node that the inventory names."""
    from bulkhead.connections import cluster
    from bulkhead.failback import failback as operate

    with cluster() as (inventory, connections):
        operate(inventory, connections, without_lock=without_lock, yes=yes, dry_run=dry_run)


@operation(json="The same as data, for programs.")
def queues(_context: Context, json: bool = False) -> int:
    """What waits in every queue, what is stuck, and what to type."""
    import bulkhead.queues

    return bulkhead.queues.run(as_json=json)


@operation(json="The same as data, for programs.")
def ledger(_context: Context, json: bool = False) -> int:
    """What was done here: when, by whom, how it ended."""
    import bulkhead.history

    return bulkhead.history.run(as_json=json)


@operation(yes="Do not ask.", dry_run="Show what would be done and stop.")
def restart_brokers(_context: Context, yes: bool = False, dry_run: bool = False) -> None:
    """Restart every broker, one at a time; no queue loses its majority."""
    from bulkhead.brokers import restart as operate
    from bulkhead.connections import cluster

    with cluster() as (inventory, connections):
        operate(inventory, connections, yes=yes, dry_run=dry_run)


@operation(
    host="The worker node, by its name in the inventory.",
    last="Drain it although nobody else serves its queues.",
    without_lock=WITHOUT_LOCK,
    yes="Do not ask.",
    dry_run="Show what would be done and stop.",
)
def drain(
    _context: Context,
    host: str,
    last: bool = False,
    without_lock: str | None = None,
    yes: bool = False,
    dry_run: bool = False,
) -> None:
    """Stop the workers of a host until they are undrained; no task is lost."""
    from bulkhead.connections import cluster
    from bulkhead.workers import drain as operate

    with cluster() as (inventory, connections):
        operate(inventory, connections, host, last=last, without_lock=without_lock, yes=yes, dry_run=dry_run)


@operation(
    host="The worker node, by its name in the inventory.",
    without_lock=WITHOUT_LOCK,
    yes="Do not ask.",
    dry_run="Show what would be done and stop.",
)
def undrain(
    _context: Context, host: str, without_lock: str | None = None, yes: bool = False, dry_run: bool = False
) -> None:
    """Start the workers of a drained host, until brokers count on them."""
    from bulkhead.connections import cluster
    from bulkhead.workers import undrain as operate

    with cluster() as (inventory, connections):
        operate(inventory, connections, host, without_lock=without_lock, yes=yes, dry_run=dry_run)


@operation(yes="Do not ask.", dry_run="Show what would be done and stop.")
def restart_workers(_context: Context, yes: bool = False, dry_run: bool = False) -> None:
    """Restart the workers of every host, one host after the other."""
    from bulkhead.connections import cluster
    from bulkhead.workers import restart as operate

    with cluster() as (inventory, connections):
        operate(inventory, connections, yes=yes, dry_run=dry_run)


namespace = Collection(
    status,
    queues,
    ledger,
    deploy,
    lb=Collection("lb", failback),
    brokers=Collection("brokers", restart=restart_brokers),
    workers=Collection("workers", drain, undrain, restart=restart_workers),
)
