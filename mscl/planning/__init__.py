"""Plan before you pay: jobs, disk, CPU and GPU hours of a configuration, each figure with its origin."""
