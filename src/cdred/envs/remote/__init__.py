"""Environments in other processes, and in other interpreters for suites with conflicting packages."""
