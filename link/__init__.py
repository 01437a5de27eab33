"""The cloud-edge link: frames, their codec, the state machine of a peer, and the transports under it."""
