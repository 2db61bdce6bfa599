"""Renders templates/haproxy/ without a host: the inputs' defaults, overlaid with a case's own."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import jinja2
import yaml

ROOT = Path(__file__).resolve().parents[2]


def _plugin() -> Any:
    spec = importlib.util.spec_from_file_location("haproxy_filters", ROOT / "plugins/filter/haproxy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


filters = _plugin()


def render(template: str, inputs: dict[str, Any]) -> str:
    """Render one template of templates/haproxy/ as Ansible does: blocks take their newline with them."""
    environment = jinja2.Environment(  # noqa: S701 - these are configuration files, not pages from strangers
        loader=jinja2.FileSystemLoader(ROOT / "templates/haproxy"),
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters.update(filters.FilterModule().filters())
    defaults = yaml.safe_load((ROOT / "roles/haproxy/defaults/main.yml").read_text())
    return environment.get_template(template).render(
        {"ansible_managed": "rendered by a test", **defaults, **inputs}
    )
