"""What is done to the cluster now, and whether the last operation was cut short."""

from __future__ import annotations

from bulkhead.status.judge import Judge

INTERRUPTED = "interrupted"


def operation(judge: Judge) -> str | None:
    """Who operates now, doing what; None if nobody does, or if no member of etcd tells."""
    told = next((node.operations for node in judge.nodes("databases") if node.operations is not None), None)
    if told is None:
        return None
    last = told.last
    if last is not None and last.result == INTERRUPTED:
        judge.wrong(
            f"{last.by} began {last.name} {last.what}".rstrip()
            + f" at {last.began} and did not end it; its last step: {last.last or 'none'}",
            f"{told.again}   (it goes on from what it finds; what was done: fab ledger)",
        )
    return told.holder
