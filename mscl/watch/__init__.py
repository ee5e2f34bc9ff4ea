"""What shows how a run goes; nothing of it is a result."""
