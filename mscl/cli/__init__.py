"""The command line: `python -m mscl`."""
