"""paho's threaded client, ended without its two races."""

import contextlib

import paho.mqtt.client as paho


def hang_up(client: paho.Client) -> None:
    """Say goodbye, and wait for the thread and the sockets to be gone."""
    client.disconnect()
    vanish(client)


def vanish(client: paho.Client) -> None:
    """As if killed, without a goodbye: what was published is acknowledged first, and then thread and sockets go."""
    # The thread forgets itself when it ends, which may be between paho's look at it and its join.
    with contextlib.suppress(AttributeError):
        client.loop_stop()
    # paho closes the pair of sockets that wakes its thread when it is collected, and that may come too late.
    client._reset_sockets()
