"""Bulkhead's library: the application's schema, the checks before a run, and the operations on a cluster."""
