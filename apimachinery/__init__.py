"""The words both halves speak: object keys, versions, watch events, selectors, API errors, the watch cache."""
