"""Secrets that the environment lacks."""

from bulkhead.preflight.cluster import Cluster
from bulkhead.problem import Problem
from bulkhead.secrets import APPLICATION_SECRETS, SECRETS

MAKE_SECRETS = (
    "In the lab type `make up`; for another environment see docs/application.md, 'Secrets': "
    "`python -m bulkhead.secrets --vault --output <the inventory>/group_vars/all/secrets.yml`."
)
_PLACE = "group_vars/all/secrets.yml"


def check(cluster: Cluster) -> list[Problem]:
    everyone = list(cluster.hosts.values())
    own_pairs = bool(everyone) and all(host.get("pki_certificate") for host in everyone)
    needed = [secret.name for secret in SECRETS if not (secret.name == "pki_ca_key" and own_pairs)]
    missing = [name for name in needed if not cluster.variable(name) and not cluster.is_broken(name)]
    application = cluster.application
    given = cluster.variable(APPLICATION_SECRETS, {})
    if application is not None and isinstance(given, dict) and not cluster.is_broken(APPLICATION_SECRETS):
        missing += [f"{APPLICATION_SECRETS}.{name}" for name in application.secrets if not given.get(name)]
    if not missing:
        return []
    names = ", ".join(missing)
    return [Problem(_PLACE, f"these secrets have no value: {names}", names, MAKE_SECRETS)]
