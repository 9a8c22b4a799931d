"""What a booking costs: GET /price?ship=NAME&tonnes=N, in cents."""

import json
import os
import urllib.error
import urllib.request

from service import Invalid, NotFound, serve

SHIPS = os.environ.get("SHIPS", "http://localhost:8000")
CENTS = {"merchant": 900, "clipper": 1500, "warship": 12000}


def price(query):
    try:
        tonnes = int(query["tonnes"])
    except (KeyError, ValueError):
        raise Invalid("tonnes must be a number")
    if tonnes < 1:
        raise Invalid("at least one tonne")
    ship = lookup(query.get("ship", ""))
    if tonnes > ship["tonnes"]:
        raise Invalid(f"{ship['name']} carries no more than {ship['tonnes']} tonnes")
    return {"cents": tonnes * CENTS[ship["class"]]}


def lookup(name):
    try:
        with urllib.request.urlopen(f"{SHIPS}/ships/{urllib.parse.quote(name)}", timeout=3) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as e:
        if e.code == 404:
            raise NotFound(f"no ship called {name}")
        raise


serve({"/price": price})
