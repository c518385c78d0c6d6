"""From an origin server, and the way to it, to one C{IStreamClientEndpoint}."""
