"""What the line costs: time, memory, bytes, size. Measured on real processes over loopback, see docs/performance.md."""
