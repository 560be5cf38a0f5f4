"""Loss terms as pure functions of the global batch, each with its source."""
