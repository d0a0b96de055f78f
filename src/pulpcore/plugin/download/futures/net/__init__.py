"""The network below HTTP and FTP: TLS and its errors."""
