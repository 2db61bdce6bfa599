"""Who may read and write what."""

import http.client

import pytest
from cluster import MEMBERS, RefusedError, call, get, put, sign_in

USERS = {"patroni": "/service/", "operator": "/bulkhead/"}


@pytest.mark.parametrize("user", USERS)
def test_a_user_writes_and_reads_below_its_prefix_on_every_member(user: str) -> None:
    token, key = sign_in(user), USERS[user] + "test"
    for member in MEMBERS:
        put(token, key, member, member)
        assert [get(token, key, other) for other in MEMBERS] == [member] * 3


@pytest.mark.parametrize("user", USERS)
def test_a_user_neither_reads_nor_writes_elsewhere(user: str) -> None:
    token = sign_in(user)
    (other,) = set(USERS.values()) - {USERS[user]}
    for key in (other + "test", USERS[user].rstrip("/"), "/", USERS[user][:-1] + "0"):
        with pytest.raises(RefusedError, match="permission denied"):
            put(token, key, "mine")
        with pytest.raises(RefusedError, match="permission denied"):
            get(token, key)


@pytest.mark.parametrize("user", USERS)
def test_a_user_manages_no_users(user: str) -> None:
    with pytest.raises(RefusedError, match="permission denied"):
        call("etcd1", "auth/user/list", sign_in(user))


def test_root_reads_everything() -> None:
    put(sign_in("operator"), "/bulkhead/seen", "yes")
    assert get(sign_in("root"), "/bulkhead/seen") == "yes"


@pytest.mark.parametrize("user", [*USERS, "root"])
def test_a_wrong_password_is_refused(user: str) -> None:
    with pytest.raises(RefusedError, match="authentication failed"):
        sign_in(user, password="wrong")


def test_nobody_enters_without_a_name() -> None:
    with pytest.raises(RefusedError, match="user name is empty"):
        call("etcd1", "kv/range", key="AA==", range_end="AA==")


@pytest.mark.parametrize("port", [2379, 2380, 2381])
def test_no_port_answers_without_tls(port: int) -> None:
    connection = http.client.HTTPConnection(MEMBERS["etcd1"], port, timeout=5)
    connection.request("GET", "/version")
    try:
        answer = connection.getresponse()
    except (http.client.HTTPException, OSError):
        return
    assert answer.status == 400
    assert b"HTTP request to an HTTPS server" in answer.read()
