"""HTTP between a client and an origin server, streaming both ways."""
