"""The cloud hub: watches an apiserver, places objects on nodes, pushes changes, writes reports back."""
