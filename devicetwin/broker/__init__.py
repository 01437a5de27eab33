"""
The embedded MQTT broker: 3.1.1 for a node's own mappers, on the standard library alone.

Nothing in devicetwin imports this package; edgecore does, when its configuration asks for it. The way a packet goes:
`server` (sockets) → `core` (who gets what) → `packets`, `topics`, `session`, and back as effects.
docs/why/broker.md says why it exists.
"""
