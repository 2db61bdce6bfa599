"""The schema of `application`: each wrong field gets one line that names value, place and mend."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bulkhead.application import Application, parse

ROOT = Path(__file__).resolve().parents[2]
SHARED = yaml.safe_load(
    (ROOT / "inventories/shared/group_vars/all/application.yml").read_text(encoding="utf-8")
)["application"]
# What comes in the background is each test's own.
FORGE = {**SHARED, "queues": {}, "schedules": {}}

TCP_POOL = {
    "kind": "tcp",
    "port": 2222,
    "listen_port": 2222,
    "server_timeout_seconds": 3600,
    "queue_timeout_seconds": 10,
    "drain_deadline_seconds": 600,
    "max_connections": 100,
    "min_healthy": 1,
}
QUEUE = {
    "concurrency": 2,
    "prefetch": 1,
    "soft_time_limit_seconds": 50,
    "time_limit_seconds": 60,
    "memory_megabytes": 384,
    "drain_deadline_seconds": 90,
}
SCHEDULE = {"task": "forge.housekeeping", "queue": "default", "every_seconds": 3600, "missed": "catch_up"}
VOLUME = {
    "id": "volume1",
    "filer": "nfs1",
    "device": "/dev/vdb",
    "export": "/srv/volume1",
    "quota_gigabytes": 100,
    "state": "active",
}


def changed(*path: str | int, to: Any = ...) -> dict[str, Any]:
    """The forge with one field set, or taken out."""
    application = copy.deepcopy(FORGE)
    application["pools"]["ssh"] = dict(TCP_POOL)
    application["queues"]["default"] = dict(QUEUE)
    application["schedules"]["housekeeping"] = dict(SCHEDULE)
    application["volumes"].append(dict(VOLUME))
    part = application
    for step in path[:-1]:
        part = part[step]
    if to is ...:
        if path:
            del part[path[-1]]
    else:
        part[path[-1]] = to
    return application


def test_the_application_of_the_inventory_is_described_right() -> None:
    application, problems = parse(SHARED)
    assert problems == []
    assert application is not None
    assert list(application.queues) == ["default", "maintenance"]


def test_every_kind_of_part_is_taken() -> None:
    application, problems = parse(changed())
    assert problems == []
    assert application is not None
    assert list(application.http_pools) == ["web", "api"]
    assert list(application.tcp_pools) == ["ssh"]


BAD = [
    (("name",), "Forge", "'Forge'", "lower-case letter"),
    (("source",), "/srv/forge", "'/srv/forge'", "path inside the project"),
    (("source",), "../forge", "'../forge'", "path inside the project"),
    (("wsgi",), "forge.wsgi", "'forge.wsgi'", "mysite.wsgi:application"),
    (("environment", "DEBUG"), 0, "it is 0", "in quotes"),
    (("environment", "lower"), "x", "'lower'", "in capitals"),
    (("secrets",), "DJANGO_SECRET_KEY", "'DJANGO_SECRET_KEY'", "Mend it: Names of secret settings"),
    (("migrate",), "python manage.py migrate", "'python manage.py migrate'", "Mend it: Command run once"),
    (("migrate",), [], "it is []", "Add one"),
    (("build", 0, 0), "", "it is ''", "one line of text"),
    (("health", "ready"), "readyz", "'readyz'", "begins with '/'"),
    (("health", "ready"), ..., "ready is missing", "Add it: Answers 200"),
    (("pools",), {}, "it is {}", "Add one: Web pools by name"),
    (("pools", "web", "routes"), [], "it is []", "For example: routes: [{path: /}]"),
    (("pools", "web", "routes"), ..., "routes is missing", "For example: routes: [{path: /}]"),
    (("pools", "web", "routes", 0), {}, "it is {}", "a host, a path or a header"),
    (("pools", "web", "routes", 0), {"path": "api/"}, "'api/'", "begins with '/'"),
    (("pools", "web", "routes", 0), {"host": "Forge.Example"}, "'Forge.Example'", "lower case"),
    (("pools", "web", "port"), "8001", "'8001'", "without quotes"),
    (("pools", "web", "port"), 70000, "70000", "65535"),
    (("pools", "web", "port"), True, "True", "whole number"),
    (("pools", "web", "workers"), 0, "it is 0", "greater than or equal to 1"),
    (("pools", "web", "threds"), 4, "no field threds", "threads"),
    (("pools", "web", "kind"), "udp", "'udp'", "http, tcp"),
    (("pools", "ssh", "kind"), ..., "None", "http, tcp"),
    (("pools", "ssh", "listen_port"), ..., "listen_port is missing", "Add it: Port on the public addresses"),
    (("pools", "ssh", "workers"), 2, "no field workers", "listen_port"),
    (("queues", "default", "concurrency"), 1.5, "1.5", "whole number"),
    (("schedules", "housekeeping", "cron"), "5 4 * * *", "every_seconds", "one of every_seconds and cron"),
    (("schedules", "housekeeping", "every_seconds"), ..., "housekeeping", "one of every_seconds and cron"),
    (("schedules", "housekeeping", "missed"), "never", "'never'", "'catch_up' or 'skip'"),
    (("volumes", 0, "state"), "full", "'full'", "'active', 'read_only' or 'retired'"),
    (("volumes", 0, "device"), "vdb", "'vdb'", "/dev/"),
    (("volumes", 0, "export"), "srv/volume1", "'srv/volume1'", "begins with '/'"),
]


@pytest.mark.parametrize(("path", "to", "value", "mend"), BAD, ids=lambda each: str(each)[:40])
def test_a_wrong_field_is_named_with_its_place_and_mend(
    path: tuple[str | int, ...], to: Any, value: str, mend: str
) -> None:
    _, problems = parse(changed(*path, to=to))
    assert len(problems) == 1, problems
    line = str(problems[0])
    place = path[:-1] if path[-1] in ("kind", "cron", "every_seconds") else path
    assert line.startswith("application." + ".".join(map(str, place)))
    assert value in line
    assert mend in line
    assert "\n" not in line


def test_the_origin_of_the_nearest_known_value_is_named() -> None:
    application = changed("pools", "web", "port", to=70000)
    lines = {id(application): "application.yml:3", id(application["pools"]["web"]): "application.yml:40"}
    _, problems = parse(application, lambda value: lines.get(id(value)))
    assert problems[0].where == "application.pools.web.port (application.yml:40)"


def test_sound_parts_are_still_there_beside_a_broken_one() -> None:
    application, problems = parse(changed("pools", "web", "port", to=70000))
    assert len(problems) == 1
    assert application is not None
    assert list(application.pools) == ["api", "ssh"]


def test_nothing_is_there_when_the_whole_does_not_hold() -> None:
    application, problems = parse(changed("name"))
    assert application is None
    assert [problem.value for problem in problems] == ["name"]
    assert parse(None)[0] is None
    assert parse(["forge"])[1][0].value == "['forge']"


def test_the_description_cannot_be_changed_once_read() -> None:
    application = Application.model_validate(changed())
    with pytest.raises(ValueError, match="frozen"):
        application.name = "other"


def test_the_reference_in_the_documentation_is_current() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/application_reference.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
