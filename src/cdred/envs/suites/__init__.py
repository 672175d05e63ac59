"""Adapters of simulator suites, one module per suite; `registry` imports them on first use."""
