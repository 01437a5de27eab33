"""
What every process of this project needs before it does anything of its own: configuration, logs, a command line,
files that survive a crash, keys and certificates. Kubernetes calls its counterpart component-base.

Standard library only, but for PyYAML (config) and cryptography (pki), which are imported where they are used.
"""
