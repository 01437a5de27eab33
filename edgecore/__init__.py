"""The agent on an edge node. One of the two composition roots: configuration in, one TaskGroup out."""
