import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.wsgi import get_wsgi_application

# Gunicorn's own code for "a worker cannot start": with it the service stops at once and says so,
# instead of starting workers over and over.
GUNICORN_WORKER_BOOT_ERROR = 3

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "forge.settings")
try:
    application = get_wsgi_application()
except ImproperlyConfigured as error:
    print(f"forge: {error}", file=sys.stderr, flush=True)
    sys.exit(GUNICORN_WORKER_BOOT_ERROR)
