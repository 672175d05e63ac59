"""Demonstrations by scripted experts, planners and trained agents, and the reference scores of a task."""
