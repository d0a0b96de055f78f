"""HTTP/1.1 on a socket: framing, connections, requests and responses."""
