"""What the inventory says of an environment and of its hosts, beside the application."""

import ipaddress
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from bulkhead.application import HostName
from bulkhead.schema import Model, Name, Positive, form


def _parsed_by(parse: Callable[[str], Any], meaning: str) -> AfterValidator:
    def check(value: str) -> str:
        try:
            parse(value)
        except ValueError:
            raise PydanticCustomError("form", "must be {meaning}", {"meaning": meaning}) from None
        return value

    return AfterValidator(check)


Address = Annotated[str, _parsed_by(ipaddress.ip_address, "an IP address")]
Network = Annotated[str, _parsed_by(ipaddress.ip_network, "a network such as 192.0.2.0/24")]
InterfaceName = Annotated[str, form(r"[^\s/]+", "a network interface's name, 15 characters at most", 15)]
InventoryName = Annotated[
    str,
    form(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", "a name as in the inventory: letters, digits, . _ -"),
]


SshUser = Annotated[
    str, form(r"(?!root$).+", "an ordinary user with sudo: the nodes' sshd lets nobody in as root")
]


class VirtualAddress(Model):
    """An address that moves between the load balancers."""

    name: Name = Field(description="Name of the address; it names the keepalived instance too.")
    address: Address = Field(description="The IP address, in a network of every load balancer.")
    kind: Literal["public", "internal"] = Field(
        description="`public` takes the users' requests, `internal` the cluster's own (PostgreSQL, AMQP)."
    )
    owner: InventoryName = Field(description="The load balancer that holds it while all is well.")


class NodeNetwork(Model):
    """A network that a load balancer has an interface in."""

    interface: InterfaceName = Field(description="Interface on the load balancer.")
    network: Network = Field(description="The network, as 192.0.2.0/24.")


class Lenient(Model):
    """A part of the variables: there are others."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Environment(Lenient):
    """Variables that are the same on every host."""

    environment_name: Name = Field(description="Name of the environment, as `lab` or `production`.")
    internal_network: Network = Field(description="Network that the nodes talk to each other in.")
    virtual_addresses: Annotated[tuple[VirtualAddress, ...], Field(min_length=1)] = Field(
        description="Addresses shared by the load balancers.",
        examples=["[{name: public1, address: 192.0.2.101, kind: public, owner: lb1}]"],
    )
    public_names: tuple[HostName, ...] = Field((), description="DNS names of the public addresses.")
    application_environment: dict[str, str] = Field(
        default_factory=dict, description="Settings of the application that depend on the environment."
    )


class Node(Lenient):
    """Variables that every host has."""

    ansible_host: InventoryName = Field(description="Address that SSH reaches the host at.")
    ansible_user: SshUser = Field("bulkhead", description="User that SSH logs in as; it has sudo.")
    node_address: Address = Field(description="IP address that the other nodes reach the host at.")
    node_memory_megabytes: Positive = Field(
        description="The host's memory; it is stated so that plans can be checked before a host is touched."
    )
    lab_kernel: Literal["shared", "own"] = Field(
        "shared",
        description="In the lab only: `own` boots the node's own kernel, for what a container cannot do.",
    )


class LoadBalancer(Lenient):
    """Variables that a load balancer has besides."""

    node_networks: Annotated[tuple[NodeNetwork, ...], Field(min_length=1)] = Field(
        description="Networks of the load balancer.", examples=["[{interface: eth0, network: 192.0.2.0/24}]"]
    )
