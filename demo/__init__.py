"""
The whole system in one terminal: `python -m demo`, or `make demo`.

Everything runs as it would on real machines, as separate processes started by their public commands
and joined by the public path; the demo only starts them, watches them and draws what the API says.
"""
