"""The network layer below HTTP and FTP: dialling, TLS and its errors, and URLs."""
