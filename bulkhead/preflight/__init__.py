"""Everything that can be known to be wrong before a host is touched. `check.py` runs it all.

Each module is a group of rules: functions from a Cluster (plain data) to a list of problems.
"""
