"""Engines execute attempts: in this process, in local worker processes, on a cluster."""
