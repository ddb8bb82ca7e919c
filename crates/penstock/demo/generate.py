#!/usr/bin/env python3
"""Writes service-log.ndjson: what a small shop's services might log in half an hour.

The same lines every time: python3 generate.py > service-log.ndjson
"""

import json
import random
import sys

LINES = 3000
START_MS = 1_767_261_600_000  # 2026-01-01T10:00:00Z

SERVICES = {
    # service: (share of the lines, median latency in ms, routes)
    "gateway": (30, 12, ["GET /", "GET /cart", "POST /checkout", "GET /search"]),
    "catalog": (22, 8, ["GET /products/{id}", "GET /categories", "GET /search"]),
    "cart": (14, 5, ["GET /carts/{id}", "PUT /carts/{id}/items", "DELETE /carts/{id}/items"]),
    "checkout": (10, 45, ["POST /orders", "GET /orders/{id}"]),
    "payment": (8, 180, ["POST /authorizations", "POST /captures", "POST /refunds"]),
    "inventory": (9, 7, ["POST /reservations", "GET /stock/{sku}"]),
    "mailer": (4, 90, ["POST /messages"]),
    "recommender": (3, 25, ["GET /recommendations/{user}"]),
}
REGIONS = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
PEOPLE = ["Søren", "Zoë", "Łukasz", "José", "Αθηνά", "Ольга", "美咲", "지훈", "Amélie", "Jürgen", "Siân", "Ngọc"]
PRODUCTS = ["crème brûlée torch", "Größentabelle", "抹茶 whisk", "piñata", "smørrebrød board", "☕ grinder", "naïve print"]
FAILURES = [
    (404, "WARN", "no such {thing}"),
    (409, "WARN", "stock of “{product}” changed while the cart was open"),
    (429, "WARN", "client over its rate"),
    (502, "ERROR", "upstream closed the connection"),
    (503, "ERROR", "no capacity left in the pool"),
    (504, "ERROR", "deadline passed after {ms} ms"),
]


def hexadecimal(rng, digits):
    return "".join(rng.choice("0123456789abcdef") for _ in range(digits))


def timestamp(ms):
    seconds, millis = divmod(ms, 1000)
    hours, rest = divmod(seconds % 86_400, 3600)
    return f"2026-01-01T{hours:02}:{rest // 60:02}:{rest % 60:02}.{millis:03}Z"


def main():
    rng = random.Random(20260101)
    names = [name for name, (share, _, _) in SERVICES.items() for _ in range(share)]
    now, trace = START_MS, hexadecimal(rng, 32)
    for _ in range(LINES):
        now += int(rng.random() * 1200)
        if rng.random() < 0.35:
            trace = hexadecimal(rng, 32)
        service = rng.choice(names)
        _, median, routes = SERVICES[service]
        latency = round(median * (0.4 + 1.2 * rng.random()) * (1 if rng.random() < 0.97 else 20), 2)
        line = {
            "time": timestamp(now),
            "level": "INFO",
            "service": service,
            "instance": f"{service}-{int(rng.random() * 4)}",
            "zone": rng.choice(REGIONS),
            "trace_id": trace,
            "span_id": hexadecimal(rng, 16),
            "route": rng.choice(routes),
            "status": 200,
            "duration_ms": latency,
        }
        if rng.random() < 0.06:
            status, level, message = rng.choice(FAILURES)
            line.update(level=level, status=status)
            line["message"] = message.format(thing="order", product=rng.choice(PRODUCTS), ms=int(latency))
        elif service in ("checkout", "mailer"):
            line["user"] = {"id": int(rng.random() * 90_000) + 10_000, "name": rng.choice(PEOPLE)}
        elif service in ("catalog", "recommender"):
            line["product"] = rng.choice(PRODUCTS)
        elif service == "payment":
            line["amount"] = {"cents": int(rng.random() * 20_000), "currency": rng.choice(["EUR", "CZK", "DKK"])}
        sys.stdout.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
