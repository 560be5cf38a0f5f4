"""The types and rules every other folder stands on; imports torch and the standard library only."""
