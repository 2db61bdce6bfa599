"""The one description of an application: every tier derives its part from it (group_vars `application`).

The models check one value at a time. What must hold between values (two pools on one port, timeouts that
contradict) is in bulkhead/preflight/. docs/application.md has the descriptions from here.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from bulkhead.problem import Origin, Problem, origin_unknown
from bulkhead.schema import Model, Name, Port, Positive, Text, Whole, form, plain, problems_of

RelativePath = Annotated[
    str, form(r"(?!/)(?!(.*/)?\.\.(/|$))[^\x00-\x1f\x7f]+", "a path inside the project, without '..'", 1024)
]
AbsolutePath = Annotated[
    str, form(r"/[^\x00-\x20\x7f\"'\\]*", "a path that begins with '/', without spaces or quotes", 1024)
]
Device = Annotated[str, form(r"/dev/[A-Za-z0-9._/:+-]+", "a block device's path below /dev/")]
UrlPath = Annotated[
    str, form(r"/[A-Za-z0-9._~!$&()*+,;=:@%/-]*", "a path as in a URL: it begins with '/', no query", 1024)
]
HostName = Annotated[
    str, form(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", "a DNS name in lower case")
]
# HAProxy drops other headers (templates/haproxy/defaults.cfg.j2): a route on one would never match.
HeaderName = Annotated[str, form(r"[A-Za-z0-9-]+", "a header's name of letters, digits and hyphens", 128)]
HeaderValue = Annotated[
    str, form(r"[\x21\x23-\x5b\x5d-\x7e]+", "a header's value without spaces, quotes or backslashes", 256)
]
WsgiEntry = Annotated[
    str, form(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", "an entry point, as `mysite.wsgi:application`")
]
VariableName = Annotated[str, form(r"[A-Z_][A-Z0-9_]*", "an environment variable's name, in capitals", 128)]
CronTime = Annotated[
    str, form(r"[0-9*/,-]+( [0-9*/,-]+){4}", "five fields: minute hour day month weekday", 128)
]


class Header(Model):
    name: HeaderName = Field(description="Header to look at.")
    value: HeaderValue = Field(description="Exact value that it must have.")


class Route(Model):
    """Which requests a pool takes. All conditions that are given must hold."""

    host: HostName | None = Field(None, description="Host name that the request asks for.")
    path: UrlPath | None = Field(
        None,
        description="What the request's path begins with; `/api/` ends in `/` so as not to take `/apiary`.",
    )
    header: Header | None = Field(None, description="A header and its value.")

    @model_validator(mode="after")
    def _has_a_condition(self) -> "Route":
        if self.host is None and self.path is None and self.header is None:
            raise PydanticCustomError("form", "must have a host, a path or a header")
        return self

    def __str__(self) -> str:
        header = f"{self.header.name}: {self.header.value}" if self.header else None
        return " ".join(filter(None, [self.host, self.path, header]))

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Equal for two routes that take the same requests: header names are the same in any case."""
        header = (self.header.name.lower(), self.header.value) if self.header else ("", "")
        return (self.host or "", self.path or "/", *header)


class _Pool(Model):
    port: Port = Field(description="Port of the pool's servers on the application nodes' internal address.")
    server_timeout_seconds: Positive = Field(
        description="HAProxy gives a server up that has sent nothing for this long."
    )
    queue_timeout_seconds: Positive = Field(
        description="A request waits this long for a free server before the client is answered 503."
    )
    drain_deadline_seconds: Positive = Field(
        description="A server that is taken out of the pool has this long to finish what it began."
    )
    max_connections: Positive = Field(
        description="Connections that HAProxy opens to one server; what is over that waits in the queue."
    )
    min_healthy: Whole = Field(
        description="Operations refuse to leave fewer servers of the pool than this in service."
    )


class HttpPool(_Pool):
    """Gunicorn processes behind HTTP routing."""

    kind: Literal["http"] = Field(description="`http`: requests are routed by host, path or header.")
    routes: Annotated[tuple[Route, ...], Field(min_length=1)] = Field(
        description="Requests of any of these routes come to this pool; the most specific route of all wins.",
        examples=["[{path: /}]"],
    )
    workers: Positive = Field(description="Gunicorn processes on each application node.")
    threads: Positive = Field(
        description="Threads of each process: one request, one database connection each."
    )
    timeout_seconds: Positive = Field(
        description="Gunicorn ends a worker that has been silent for this long."
    )
    memory_megabytes: Positive = Field(description="Limit for one instance of the pool (systemd MemoryMax).")


class TcpPool(_Pool):
    """Connections passed on as they are, SSH for example."""

    kind: Literal["tcp"] = Field(description="`tcp`: connections to a port of the public addresses.")
    listen_port: Port = Field(description="Port on the public addresses; not 80 or 443.")


Pool = Annotated[HttpPool | TcpPool, Field(discriminator="kind")]


class Queue(Model):
    """A class of background tasks, with workers of its own so that it cannot starve the others."""

    concurrency: Positive = Field(
        description="Tasks at once on each worker node: a process and a database connection each."
    )
    prefetch: Positive = Field(description="Messages that each process reserves ahead.")
    soft_time_limit_seconds: Positive = Field(description="A task that runs this long is asked to end.")
    time_limit_seconds: Positive = Field(description="A task that runs this long is ended.")
    memory_megabytes: Positive = Field(description="Limit for the queue's processes on one worker node.")
    drain_deadline_seconds: Positive = Field(
        description="A worker that is taken out has this long to finish its tasks."
    )


class Schedule(Model):
    """A task that comes by the clock, from one scheduler for the whole cluster."""

    task: Text = Field(description="The task's name in the application.")
    queue: Name = Field(description="A queue of `queues`.")
    every_seconds: Positive | None = Field(None, description="Period; this or `cron`.")
    cron: CronTime | None = Field(
        None, description="Five fields as in cron(5), UTC; this or `every_seconds`."
    )
    missed: Literal["catch_up", "skip"] = Field(
        description="A run missed while the scheduler was down: do it once when it is back, or leave it."
    )

    @model_validator(mode="after")
    def _has_one_clock(self) -> "Schedule":
        if (self.every_seconds is None) == (self.cron is None):
            raise PydanticCustomError("form", "must have one of every_seconds and cron")
        return self


class Volume(Model):
    """A file system of repositories on a filer."""

    id: Name = Field(description="The volume's name, for ever: repositories are recorded by it.")
    filer: Text = Field(description="Host of the filers' group that has the device.")
    device: Device = Field(description="Block device on the filer.")
    export: AbsolutePath = Field(description="Directory that it is mounted on and exported from.")
    quota_gigabytes: Positive = Field(description="New repositories go elsewhere when this much is used.")
    state: Literal["active", "read_only", "retired"] = Field(
        description="`active` takes new repositories, `read_only` only serves, `retired` is not mounted."
    )


class Health(Model):
    live: UrlPath = Field(description="Answers 200 while the process works; looks at nothing else.")
    ready: UrlPath = Field(
        description="Answers 200 while this node can serve, even when a shared dependency is down."
    )


Command = Annotated[tuple[Text, ...], Field(min_length=1)]


class Application(Model):
    """`application`: what it is, how it is built, how it is reached and what it may use."""

    name: Name = Field(description="System user, database, database role, directory and prefix of units.")
    source: RelativePath = Field(description="Directory of the source, relative to the project's root.")
    requirements: RelativePath = Field(description="Locked requirements with hashes, relative to `source`.")
    wsgi: WsgiEntry = Field(description="`module:callable` that Gunicorn loads.")
    celery: WsgiEntry | None = Field(
        None, description="`module:app` that Celery loads; needed as soon as there are queues."
    )
    beat: Command | None = Field(
        None, description="Command of the scheduler on worker nodes; needed as soon as there are schedules."
    )
    environment: dict[VariableName, Text] = Field(
        default_factory=dict,
        description="Settings that are the same everywhere and no secret; numbers in quotes.",
    )
    secrets: tuple[VariableName, ...] = Field(
        (), description="Names of secret settings; their values are in `application_secrets`, in the vault."
    )
    build: tuple[Command, ...] = Field(
        (), description="Commands run once on the builder, in the release's own environment."
    )
    migrate: Command | None = Field(None, description="Command run once per deploy, before the switch.")
    health: Health = Field(description="Paths that say how a server is.")
    pools: Annotated[dict[Name, Pool], Field(min_length=1)] = Field(
        description="Web pools by name: each has processes, limits and a queue of its own."
    )
    queues: dict[Name, Queue] = Field(default_factory=dict, description="Queues of background tasks by name.")
    schedules: dict[Name, Schedule] = Field(default_factory=dict, description="Scheduled tasks by name.")
    volumes: tuple[Volume, ...] = Field((), description="File systems for repositories.")

    @property
    def http_pools(self) -> dict[str, HttpPool]:
        return {name: pool for name, pool in self.pools.items() if isinstance(pool, HttpPool)}

    @property
    def tcp_pools(self) -> dict[str, TcpPool]:
        return {name: pool for name, pool in self.pools.items() if isinstance(pool, TcpPool)}


def parse(raw: Any, origin: Origin = origin_unknown) -> tuple[Application | None, list[Problem]]:
    """The application, and everything that is wrong with it.

    A broken pool, queue, schedule or volume is left out of what is returned, so that the sound ones can still
    be checked against each other in the same run. Nothing is returned when the rest does not hold together.
    """
    data = plain(raw)
    try:
        return Application.model_validate(data), []
    except ValidationError as error:
        details = error.errors()
    problems = problems_of(Application, raw, details, "application", origin)
    broken = {detail["loc"][:2] for detail in details}
    if any(len(part) < 2 or part[0] not in ("pools", "queues", "schedules", "volumes") for part in broken):
        return None, problems
    # From the last to the first: the volumes are a list, whose numbers change as items go.
    for parent, item in sorted(broken, key=lambda part: (part[0], str(part[1]).zfill(9)), reverse=True):
        del data[parent][item]
    try:
        return Application.model_validate(data), problems
    except ValidationError:
        return None, problems
