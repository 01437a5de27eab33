"""Serving a Kubernetes-style API: a library with two users, the edge's local API and the embedded apiserver."""
