"""Clips over HTTP: durable jobs, a page to drop a clip on, predictions of small requests."""
