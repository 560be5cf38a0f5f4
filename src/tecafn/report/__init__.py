"""Reports from saved records alone; importable without torch."""
