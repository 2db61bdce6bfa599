"""Who gets in, and who may do what."""

import uuid
from typing import Any

import pytest
from cluster import APPLICATION, MEMBERS, SECRETS, ask, attempt, node, wait_until

from bulkhead import secrets


def declare(name: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return "queue_declare", {"queue": name, "durable": True, "auto_delete": False, **more}


def test_the_application_gets_in_with_its_password_over_tls() -> None:
    assert [attempt(host=address) for address in MEMBERS.values()] == ["in"] * 3


def test_another_authority_is_not_believed() -> None:
    other = secrets.authority_certificate(secrets.authority_key(), "other")
    assert "certificate verify failed" in attempt(authority=other)


def test_not_without_tls() -> None:
    assert attempt(tls=False).startswith("refused")


@pytest.mark.parametrize("port", [5672, 15672, 15692])
def test_the_ports_without_tls_are_closed(port: int) -> None:
    assert node("mq1").run(f"curl --silent http://{MEMBERS['mq1']}:{port}/").rc == 7  # could not connect


@pytest.mark.parametrize(
    ("user", "password"), [("guest", "guest"), (APPLICATION, "wrong"), ("operator", "wrong"), ("", "")]
)
def test_wrong_names_and_passwords_are_refused(user: str, password: str) -> None:
    assert "ACCESS_REFUSED" in attempt(user=user, password=password)


def test_there_is_no_user_guest_and_no_common_virtual_host() -> None:
    tool = node("mq1")
    assert "guest" not in tool.check_output("rabbitmqctl --silent list_users")
    assert tool.check_output("rabbitmqctl --silent list_vhosts --no-table-headers").split() == [APPLICATION]


def test_the_application_makes_what_it_and_celery_need() -> None:
    own = [
        declare("forge.trial"),
        ("exchange_declare", {"exchange": "forge", "type": "topic", "durable": True}),
    ]
    delayed = {"x-dead-letter-exchange": "celery_delayed_0", "x-message-ttl": 1000}
    celery = [
        ("exchange_declare", {"exchange": "celery_delayed_0", "type": "topic", "durable": True}),
        declare("celery_delayed_1", arguments=delayed),
        ("exchange_declare", {"exchange": "celery.pidbox", "type": "fanout"}),
        declare("default@worker1.celery.pidbox", durable=False, auto_delete=True),
        ("queue_bind", {"queue": "default@worker1.celery.pidbox", "exchange": "celery.pidbox"}),
        ("exchange_declare", {"exchange": "reply.celery.pidbox", "type": "direct"}),
        declare(f"{uuid.uuid4()}.reply.celery.pidbox", durable=False, auto_delete=True),
        ("exchange_declare", {"exchange": "celeryev", "type": "topic", "durable": True}),
        declare(f"celeryev.{uuid.uuid4()}", durable=False, auto_delete=True),
        declare(str(uuid.uuid4()), durable=False, auto_delete=True),
    ]
    clean = [("queue_delete", {"queue": name}) for name in ("forge.trial", "celery_delayed_1")]
    assert attempt(*own, *celery, *clean) == "in"


def test_a_queue_is_a_quorum_queue_unless_asked_otherwise() -> None:
    assert attempt(declare("forge.kind")) == "in"
    assert ask("mq1", f"queues/{APPLICATION}/forge.kind")["type"] == "quorum"
    assert attempt(("queue_delete", {"queue": "forge.kind"})) == "in"


@pytest.mark.parametrize(
    "call",
    [
        declare("other"),
        declare("dead_letters"),
        ("queue_purge", {"queue": "dead_letters"}),
        ("queue_delete", {"queue": "dead_letters"}),
        ("exchange_delete", {"exchange": "dead_letters"}),
        ("queue_bind", {"queue": "dead_letters", "exchange": "amq.topic"}),
    ],
)
def test_the_application_does_nothing_else(call: tuple[str, dict[str, Any]]) -> None:
    assert "ACCESS_REFUSED" in attempt(call)


def test_a_message_that_nobody_takes_ends_among_the_dead_letters() -> None:
    """The clients' program ends: the queue has given the message up."""

    def letters() -> int:
        return int(ask("mq1", f"queues/{APPLICATION}/dead_letters").get("messages", 0))

    before = letters()
    assert attempt(declare("forge.refused"), refuse="forge.refused") == "in"
    wait_until(lambda: letters() == before + 1, 30, "the message is among the dead letters")
    assert attempt(("queue_delete", {"queue": "forge.refused"})) == "in"


def test_the_application_enters_no_other_virtual_host_and_no_management() -> None:
    assert attempt(virtual_host="/").startswith("refused")
    assert ask("mq1", "overview", APPLICATION, SECRETS["rabbitmq_application_password"]) == 401


def test_the_operator_sees_and_changes_nothing() -> None:
    assert ask("mq2", f"queues/{APPLICATION}/dead_letters")["type"] == "quorum"
    operator = {"user": "operator", "password": SECRETS["rabbitmq_operator_password"]}
    assert "ACCESS_REFUSED" in attempt(declare("forge.by-operator"), **operator)


def test_no_strangers_certificate_joins_the_brokers() -> None:
    """A node's own certificate gets through; none, or one that its owner signed, does not."""
    member = node("mq2")
    hello = (
        f"(sleep 1) | openssl s_client -connect {MEMBERS['mq1']}:25672 -CAfile /etc/bulkhead/pki/ca.crt 2>&1 "
    )
    pki = "-cert /etc/bulkhead/pki/node.crt -key /etc/bulkhead/pki/node.key"
    member.check_output(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=mq2"
        " -keyout /run/stranger.key -out /run/stranger.crt"
    )
    assert "alert" not in member.run(hello + pki).stdout
    assert "alert" in member.run(hello).stdout
    assert "alert" in member.run(hello + "-cert /run/stranger.crt -key /run/stranger.key").stdout
    member.check_output("rm /run/stranger.key /run/stranger.crt")


def test_a_certificate_without_the_cookie_is_not_enough() -> None:
    run = node("mq2").run(f"rabbitmqctl --node rabbit@mq1 --erlang-cookie {'x' * 64} --timeout 10 status")
    assert run.rc != 0
    assert "cookie" in (run.stdout + run.stderr).lower()


def test_no_secret_is_in_a_journal_or_a_process_list() -> None:
    secret = [str(value) for name, value in SECRETS.items() if name.startswith("rabbitmq_")]
    assert len(secret) == 3
    for member in MEMBERS:
        seen = node(member).check_output("ps -eo args && journalctl --boot --output cat")
        assert not [each for each in secret if each in seen]
