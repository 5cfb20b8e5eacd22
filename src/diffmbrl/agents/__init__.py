"""Agents: what the papers share."""
