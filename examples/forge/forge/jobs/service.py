"""What a service tells systemd about itself (sd_notify)."""

import os
import socket


def notify(**fields: object) -> None:
    """READY=1, STATUS="...": does nothing where no systemd listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    text = "\n".join(f"{name}={value}" for name, value in fields.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as target:
        target.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        target.send(text.encode())
