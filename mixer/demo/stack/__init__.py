"""What `make stack` shows: the demo's processes watched by a Collector, Jaeger and Prometheus, without containers."""
