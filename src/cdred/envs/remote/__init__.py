"""Environments in other processes, and in other interpreters where a suite's packages clash with ours."""
