"""A deterministic simulation: the shipped cores under a simulated network, disk, clock and apiserver."""
