"""From a clip to a page: how a speaker's sentiment runs over time, and why."""
