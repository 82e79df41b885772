"""One script for each queue engine, run in the engine's own virtual environment."""
