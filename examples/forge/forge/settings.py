"""All settings come from the environment; README.md has the table of variables."""

import os
import secrets
import socket
import sys
from pathlib import Path
from urllib.parse import quote

from forge.environment import Environment

BASE_DIR = Path(__file__).resolve().parent.parent
COMMAND = sys.argv[1] if len(sys.argv) > 1 else ""
# collectstatic runs where a release is built. It only gathers files, and the builder has neither
# database nor secrets, so for this one command they are not asked for.
BUILDING = COMMAND == "collectstatic"

environment = Environment(os.environ)

# --- Who answers ------------------------------------------------------------------------------------
NODE_NAME = environment.optional("NODE_NAME", default=socket.gethostname())
RELEASE_ID = environment.optional("RELEASE_ID", default="unreleased")
OPERATOR_TOKEN = environment.optional("FORGE_OPERATOR_TOKEN")  # empty: nobody sees details of /readyz
LAB = environment.optional("FORGE_LAB") == "1"
# systemd names the unit's own directory here; without one, uploads go to the directory for temporary files.
RUNTIME_DIRECTORY = environment.optional("RUNTIME_DIRECTORY").split(":")[0]

# --- Secrets, hosts, database -----------------------------------------------------------------------
if BUILDING:
    SECRET_KEY = secrets.token_urlsafe(64)
    ALLOWED_HOSTS: list[str] = []
    CSRF_TRUSTED_ORIGINS: list[str] = []
    DATABASES: dict[str, dict[str, object]] = {}
else:
    SECRET_KEY = environment.required(
        "DJANGO_SECRET_KEY",
        "50 random characters or more, the same on every node, for example from: "
        "python3 -c 'import secrets; print(secrets.token_urlsafe(64))'",
    )
    ALLOWED_HOSTS = environment.listed(
        "FORGE_ALLOWED_HOSTS", "the names and addresses that people type, separated by commas"
    )
    CSRF_TRUSTED_ORIGINS = environment.listed(
        "FORGE_TRUSTED_ORIGINS", "the https:// addresses that people type, separated by commas"
    )
    for origin in CSRF_TRUSTED_ORIGINS:
        if not origin.startswith("https://"):
            environment.refuse("FORGE_TRUSTED_ORIGINS", origin, "write each address as https://name")

    sslmode = environment.chosen("DATABASE_SSLMODE", ("disable", "require", "verify-ca", "verify-full"))
    # A stuck statement must give its thread back well before Gunicorn's timeout of 30 s. A migration
    # may take longer; it still waits for locks only as long as everybody else.
    statement_timeout_ms = 0 if COMMAND == "migrate" else 10_000
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": environment.required("DATABASE_HOST", "the address of PostgreSQL's primary"),
            "PORT": environment.number("DATABASE_PORT", "the port of PostgreSQL's primary, usually 5432"),
            "NAME": environment.required("DATABASE_NAME", "the name of the application's database"),
            "USER": environment.required("DATABASE_USER", "the application's database role"),
            "PASSWORD": environment.required("DATABASE_PASSWORD", "that role's password"),
            # TLS and SCRAM cost several round trips, so connections are kept; a kept one is tried before
            # a request uses it, because a failover ends them all.
            "CONN_MAX_AGE": 300,
            "CONN_HEALTH_CHECKS": True,
            "OPTIONS": {
                "application_name": f"forge {NODE_NAME}",
                "sslmode": sslmode,
                "connect_timeout": 2,  # seconds; libpq's smallest
                # A primary that loses power says nothing. What was sent to it counts as lost after 3 s
                # (tcp_user_timeout); a connection that only listens finds out after 3 + 3 * 1 s.
                "tcp_user_timeout": 3_000,
                "keepalives": 1,
                "keepalives_idle": 3,
                "keepalives_interval": 1,
                "keepalives_count": 3,
                "options": (
                    f"-c statement_timeout={statement_timeout_ms} -c lock_timeout=5000"
                    " -c idle_in_transaction_session_timeout=15000"
                ),
            },
        }
    }
    if sslmode != "disable":
        DATABASES["default"]["OPTIONS"]["sslrootcert"] = environment.required(
            "DATABASE_SSLROOTCERT", "the file of the CA that signed PostgreSQL's certificate"
        )

# --- Broker ------------------------------------------------------------------------------------------
# All of them or none: without brokers, jobs are kept and wait until there are some.
BROKER_URLS: list[str] = []
BROKER_CA_FILE = ""
if not BUILDING and environment.optional("BROKER_ADDRESSES"):
    broker_user = environment.required("BROKER_USER", "the application's user at the brokers")
    broker_password = environment.required("BROKER_PASSWORD", "that user's password")
    broker_vhost = environment.required("BROKER_VHOST", "the application's virtual host at the brokers")
    BROKER_CA_FILE = environment.required(
        "BROKER_CA_FILE", "the file of the CA that signed the brokers' certificates"
    )
    broker_login, broker_path = (
        ":".join(quote(part, safe="") for part in (broker_user, broker_password)),
        quote(broker_vhost, safe=""),
    )
    BROKER_URLS = [
        f"amqps://{broker_login}@{address}/{broker_path}"
        for address in environment.listed(
            "BROKER_ADDRESSES", "address:port of each broker, separated by commas"
        )
    ]
# Queues that have workers. The first is the one for jobs that name none.
QUEUES = environment.optional("QUEUES", default="default").split(",")
# What the scheduler (`manage.py beat`) needs; asked for when it starts.
SCHEDULES_FILE = environment.optional("SCHEDULES_FILE")
ETCD_ADDRESSES = [item for item in environment.optional("ETCD_ADDRESSES").split(",") if item]
ETCD_USER = environment.optional("ETCD_USER")
ETCD_PASSWORD = environment.optional("ETCD_PASSWORD")
ETCD_PREFIX = environment.optional("ETCD_PREFIX")
ETCD_CA_FILE = environment.optional("ETCD_CA_FILE")
environment.raise_problems()

# --- The application --------------------------------------------------------------------------------
INSTALLED_APPS = [
    "forge.accounts",
    "forge.jobs",
    "forge.repositories",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    # First, so that every answer of the layers below carries the headers, errors too.
    "forge.middleware.response_headers",
    # Before everything that looks at host names, TLS or the database: load balancers ask for a node's
    # health by its own address.
    "forge.health.endpoints",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "forge.middleware.database_gate",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "forge.urls"
WSGI_APPLICATION = "forge.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "forge" / "templates"],
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "forge.middleware.node_and_release",
            ]
        },
    }
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-gb"
USE_I18N = False

# --- Accounts ---------------------------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.Account"
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "repositories"
LOGOUT_REDIRECT_URL = "repositories"
# scrypt costs an attacker memory as well, and a small node far less time than a million rounds of PBKDF2.
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.ScryptPasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

# --- Static files -----------------------------------------------------------------------------------
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STATICFILES_DIRS = [BASE_DIR / "forge" / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    # Names carry a digest: two releases that answer side by side never mix their files up.
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}

# --- Security ---------------------------------------------------------------------------------------
# HAProxy ends TLS and sets this header itself, whatever a client sent; nothing else reaches Gunicorn.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = True
SECURE_HSTS_SECONDS = 365 * 24 * 3600
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
CSRF_COOKIE_HTTPONLY = True
X_FRAME_OPTIONS = "DENY"
CSRF_FAILURE_VIEW = "forge.errors.csrf_failure"
SILENCED_SYSTEM_CHECKS = [
    # Whether all names below the site's domain are HTTPS-only is not for this application to promise.
    "security.W005",
    "security.W021",
]

# --- Log --------------------------------------------------------------------------------------------
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "forge.logs.JsonFormatter"}},
    "handlers": {
        "stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "json"}
    },
    "root": {"handlers": ["stdout"], "level": "INFO"},
    # Django's own handlers (mail, console) are replaced by the root's.
    "loggers": {"django": {"handlers": [], "level": "INFO", "propagate": True}},
}
