"""Sharing of run folders and demonstrations: plain folders, repositories of the Hugging Face hub, Minari's datasets."""
