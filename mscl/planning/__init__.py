"""Estimate the cost of a configuration before it runs: jobs, disk space, CPU and GPU hours, each with its origin."""
