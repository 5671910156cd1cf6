"""A night of cells over several unlike machines, on Ray: each cell ends in exactly one row.

    plan      what is to be measured, written first       node      what runs on a node
    ledger    leases, results and rows, on disk           cluster   starting and joining Ray
    driver    gives tasks to Ray, and follows them        report    a night, computed from its plan

Ray is imported by `cluster` and `driver` alone, where it is used.
"""
