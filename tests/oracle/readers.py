#!/usr/bin/env python3
"""Readers as people have them, through a swap: redis-cli, redis-py by the gateway and directly, curl.

    readers.py --gateway HOST:PORT --redis URL --http URL --fields v1=title,price --fields v2=title,price,brand

Each reads without a pause until standard input is closed. A read *failed* if it was not answered, or by an error. It is
*mixed* if the rows of one answer have the fields of different versions, or others than those of the version that the
answer names. Ends with one line of JSON; exit code 1 if a read failed or was mixed, or a reader got no row at all.
"""

import argparse
import json
import random
import subprocess
import sys
import threading
import time

import redis

KEYS_A_READ = 10


class Mixed(Exception):
    """An answer that no single version gives."""


class Reader(threading.Thread):
    """Asks again and again, and counts what came back."""

    def __init__(self, name, ask, fields, keys, stopped):
        super().__init__(name=name, daemon=True)
        self.ask, self.fields, self.keys, self.stopped = ask, fields, keys, stopped
        self.reads = self.rows = self.failed = self.mixed = 0
        self.slowest, self.versions, self.examples = 0.0, [], []

    def run(self):
        rng = random.Random(self.name)
        while not self.stopped.is_set():
            keys = [str(rng.randrange(self.keys)) for _ in range(KEYS_A_READ)]
            began = time.monotonic()
            try:
                self.saw(*self.ask(keys))
            except Mixed as fault:
                self.mixed += 1
                self.examples.append(str(fault))
            except Exception as fault:  # whatever a client can raise is a read that failed
                self.failed += 1
                self.examples.append(repr(fault))
            self.reads += 1
            self.slowest = max(self.slowest, time.monotonic() - began)

    def saw(self, named, rows):
        """Takes the version that the answer names, if it does, and the rows."""
        versions = {self.version_of(row) for row in rows} | ({named} if named else set())
        if len(versions) > 1:
            raise Mixed(f"{named}: {rows}")
        self.rows += len(rows)
        for version in versions:
            if not self.versions or self.versions[-1] != version:
                self.versions.append(version)

    def version_of(self, row):
        for version, fields in self.fields.items():
            if fields == set(row):
                return version
        raise Mixed(f"no version has these fields: {row}")

    def result(self):
        return {
            "reads": self.reads,
            "rows": self.rows,
            "failed": self.failed,
            "mixed": self.mixed,
            "slowest_ms": round(self.slowest * 1000),
            "versions": self.versions,
            "examples": self.examples[:3],
        }


def parsed(values):
    return [json.loads(value) for value in values if value is not None]


def redis_cli(args):
    host, port = args.gateway.split(":")

    def ask(keys):
        command = ["redis-cli", "-e", "-h", host, "-p", port, "--json", "MGET", *(args.literal + key for key in keys)]
        done = subprocess.run(command, capture_output=True, check=True, timeout=10)
        return None, parsed(json.loads(done.stdout))

    return ask


def redis_py(args):
    host, port = args.gateway.split(":")
    client = redis.Redis(host=host, port=int(port), socket_timeout=10)
    return lambda keys: (None, parsed(client.mget([args.literal + key for key in keys])))


def redis_directly(args):
    """As docs/readers.md says."""
    client = redis.Redis.from_url(args.redis, socket_timeout=10)
    live = "v1"

    def ask(keys):
        nonlocal live
        while True:
            rows = [f"{args.installation}:{args.view}:{live}:{args.literal}{key}" for key in keys]
            alias, *values = client.mget(f"{args.installation}::{args.view}:alias", *rows)
            named = alias.decode().split(" ")[0]
            if named == live:
                return live, parsed(values)
            live = named

    return ask


def curl(url):
    """Returns the status, the version's name and the body."""
    done = subprocess.run(["curl", "-s", "-i", "-m", "10", url], capture_output=True, check=True)
    head, _, body = done.stdout.decode().partition("\r\n\r\n")
    status, *headers = head.split("\r\n")
    headers = dict(header.split(": ", 1) for header in headers)
    return status.split(" ")[1], headers.get("materializer-version", "@").split("@")[1], json.loads(body)


def curl_document(args):
    def ask(keys):
        status, version, body = curl(f"{args.http}/v1/views/{args.view}/documents/{keys[0]}")
        if status == "404" and body["kind"] == "no_document":
            return version, []
        if status != "200":
            raise RuntimeError(f"{status} {body}")
        return version, [body]

    return ask


def curl_search(args):
    words = ["shoe", "boot", "jacket", "leather"]

    def ask(keys):
        word = words[int(keys[0]) % len(words)]
        status, version, body = curl(f"{args.http}/v1/views/{args.search}/search?q=title:{word}&size=10")
        if status != "200":
            raise RuntimeError(f"{status} {body}")
        return version, [hit["source"] for hit in body["hits"]]

    return ask


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateway", required=True, help="the gateway's Redis protocol")
    parser.add_argument("--redis", required=True, help="the Redis behind it")
    parser.add_argument("--http", required=True)
    parser.add_argument("--installation", default="main")
    parser.add_argument("--view", default="products")
    parser.add_argument("--search", default="product-search")
    parser.add_argument("--literal", default="product:", help="what the key template puts before the key")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--fields", action="append", required=True, help="VERSION=FIELD,…, once for each version")
    args = parser.parse_args()
    fields = {version: set(names.split(",")) for version, names in (text.split("=") for text in args.fields)}

    stopped = threading.Event()
    asks = {
        "redis-cli": redis_cli,
        "redis-py": redis_py,
        "redis-py directly": redis_directly,
        "curl document": curl_document,
        "curl search": curl_search,
    }
    readers = [Reader(name, ask(args), fields, args.keys, stopped) for name, ask in asks.items()]
    for reader in readers:
        reader.start()
    sys.stdin.read()
    stopped.set()
    for reader in readers:
        reader.join()
    print(json.dumps({reader.name: reader.result() for reader in readers}))
    sys.exit(1 if any(reader.failed or reader.mixed or not reader.rows for reader in readers) else 0)


if __name__ == "__main__":
    main()
