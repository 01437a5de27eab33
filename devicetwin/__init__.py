"""What each device should be and what it says it is, kept in step over MQTT."""
