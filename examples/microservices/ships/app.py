"""Which ships there are: GET /ships, GET /ships/NAME."""

import json
import pathlib

from service import NotFound, serve

SHIPS = json.loads(pathlib.Path(__file__).with_name("ships.json").read_text())


def ships(query):
    return SHIPS


def ship(query, name):
    if name not in SHIPS:
        raise NotFound(f"no ship called {name}")
    return {"name": name, **SHIPS[name]}


serve({"/ships": ships, "/ships/*": ship})
