"""What comes in and goes out as CloudEvents: bytes and headers to values and back. Pure."""
