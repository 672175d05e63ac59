"""Memory of this machine."""

import os
from pathlib import Path
from typing import NamedTuple


class HostMemory(NamedTuple):
    """Bytes of this machine's memory, and of those that processes can still allocate; None if that is unknown."""

    total: int
    available: int | None


def host_memory() -> HostMemory:
    """Return the memory of this machine."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # only Linux has it
        return HostMemory(total, None)
    kib = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return HostMemory(total, None if kib is None else int(kib) * 1024)
