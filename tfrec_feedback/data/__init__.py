"""From a raw feedback log to batches of requests."""
