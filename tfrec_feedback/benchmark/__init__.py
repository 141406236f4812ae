"""Many models with equal tuning, several seeds and one prepared log, compared."""
