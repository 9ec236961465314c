"""Blocks that more than one method shares."""
