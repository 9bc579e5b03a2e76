# SPDX-License-Identifier: Apache-2.0
"""Whether an address is this machine's own: what is served elsewhere is served on purpose."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
