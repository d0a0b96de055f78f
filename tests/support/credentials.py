"""A token, and functions that bring it. Worker processes import them by name."""

import requests

TOKEN = "s3cret-token"


def add_token(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Add a token, as a caller's function does."""
    request.headers["Authorization"] = f"Bearer {TOKEN}"
    return request


def the_token() -> str:
    """Return a token, as an importable function does."""
    return TOKEN
