"""Checks of an installation: packages, device, memory, suites, rendering, and a small training.

Simulators, graphics drivers and devices may hang or end the process that uses them: they are tried in other processes,
with a time limit. Nothing is downloaded, and no files are left.
"""
