"""What tests of several Molecule scenarios do. They run on the controller, in the scenario's environment."""

import subprocess

from bulkhead.inventory import ROOT

CONVERGE_SECONDS = 900


def converge(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the scenario's play once more; what it said, and no judgement of it."""
    command = ["ansible-playbook", str(ROOT / f"molecule/{name}/converge.yml"), *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=CONVERGE_SECONDS, check=False
    )
