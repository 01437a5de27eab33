"""The edge's memory: what the cloud pushed and what is to go up, in SQLite, and a local API to read it."""
