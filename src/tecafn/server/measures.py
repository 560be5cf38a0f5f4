"""What Prometheus reads of a server."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Measures:
    """Counters and clocks of one server, apart from those of others in the process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "tecafn_requests_total",
            "Requests that were answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "tecafn_request_seconds",
            "Seconds to the answer's end.",
            ("route",),
            registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
        )
        self.jobs = Gauge(
            "tecafn_jobs", "Jobs that wait or are worked on.", ("state",), registry=self.registry
        )
        self.accepted = Counter(
            "tecafn_jobs_accepted_total", "Jobs that were accepted.", registry=self.registry
        )
        self.refused = Counter(
            "tecafn_refused_total",
            "Requests that were refused because something was full.",
            ("what",),
            registry=self.registry,
        )
        self.uploaded = Counter(
            "tecafn_uploaded_bytes_total", "Bytes of accepted clips.", registry=self.registry
        )
        self.batches = Histogram(
            "tecafn_batch_samples",
            "Samples that were predicted together.",
            registry=self.registry,
            buckets=(1, 2, 4, 8, 16, 32, 64, 256),
        )
        self.workers = Gauge(
            "tecafn_workers", "Workers that were heard of lately.", registry=self.registry
        )
        self.free = Gauge(
            "tecafn_free_bytes", "Bytes that are free in the folder.", registry=self.registry
        )

    def render(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self.registry)
