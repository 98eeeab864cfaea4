#!/usr/bin/env python3
"""A second opinion on the sinks: another Kafka client, another language, no line shared with the worker.

    oracle.py create  --brokers B --topic T [--partitions N] [--replicas N] [--config NAME=VALUE]…
    oracle.py produce --brokers B --topic T --events N --keys K [--seed S] [--first REV] [--rate R] [--while-open]
    oracle.py check   --brokers B --topic T --redis URL --view products --version 2 --fields title,price,brand
                      [--compacted] [--grown] [--http URL --search product-search --search-fields title,brand,price]

`create` makes the topic, one that keeps everything. `produce` writes a shop's log: products created, changed,
hidden, discontinued (tombstones), made again, and records of another kind; with `--while-open` it ends early, in
order, when its standard input is closed. `check` folds the topic from offset 0 with a dictionary and compares every key
and value of the Redis version, and of the live search view. It ends with one line of JSON; exit code 1 if
anything is lost, different or resurrected.

It knows one mapping: only `kind == "product"`, where `hidden` is not true, key `record.key`, fields `title`,
`price`, `brand` (`brand.name`) and, for later versions, `rev`.
"""

import argparse
import json
import random
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import redis
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

WORDS = "red blue green light heavy running walking summer winter leather canvas wool kids classic new old".split()
THINGS = "shoe boot shirt jacket hat sock belt bag coat scarf".split()
BRANDS = "acme globex initech umbra vandelay wayne".split()


def product(rng, rev):
    event = {
        "kind": "product",
        "title": f"{rng.choice(WORDS)} {rng.choice(WORDS)} {rng.choice(THINGS)}",
        "price": rng.randrange(100, 100_000) / 100,
        "brand": {"name": rng.choice(BRANDS)},
        "rev": rev,
    }
    if rng.random() < 0.05:
        event["hidden"] = True
    if rng.random() < 0.1:
        del event["brand"]
    return event


def create(args):
    admin = KafkaAdminClient(bootstrap_servers=args.brokers)
    settings = dict(setting.split("=", 1) for setting in args.config)
    admin.create_topics([NewTopic(args.topic, args.partitions, args.replicas, topic_configs=settings)])
    admin.close()


def closing_of_input():
    """Returns an event that is set once standard input is closed."""
    closed = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), closed.set()), daemon=True).start()
    return closed


def produce(args):
    rng = random.Random(args.seed)
    producer = KafkaProducer(
        bootstrap_servers=args.brokers,
        compression_type="lz4",
        linger_ms=20,
        batch_size=256 * 1024,
        acks="all",
        metadata_max_age_ms=1_000,  # partitions that are added are known within a second
    )
    began, produced = time.monotonic(), 0
    closed = closing_of_input() if args.while_open else threading.Event()
    for n in range(args.events):
        if closed.is_set():
            break
        produced += 1
        key = str(int(rng.paretovariate(0.7)) % args.keys if rng.random() < 0.3 else rng.randrange(args.keys))
        dice = rng.random()
        if dice < 0.08:
            value = None
        elif dice < 0.12:
            value = json.dumps({"kind": "stock", "left": rng.randrange(100)}).encode()
        else:
            value = json.dumps(product(rng, args.first + n)).encode()
        producer.send(args.topic, key=key.encode(), value=value)
        if args.rate:
            ahead = n / args.rate - (time.monotonic() - began)
            if ahead > 0.05:
                producer.flush()
                time.sleep(ahead)
    producer.flush()
    producer.close()
    print(json.dumps({"produced": produced, "seconds": round(time.monotonic() - began, 1)}))


def fold(args):
    """Returns the documents by key, every key ever seen, and how many records were read."""
    consumer = KafkaConsumer(
        bootstrap_servers=args.brokers,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        fetch_max_bytes=64 << 20,
        max_partition_fetch_bytes=8 << 20,
        max_poll_records=20_000,
        check_crcs=False,
    )
    partitions = [TopicPartition(args.topic, p) for p in sorted(consumer.partitions_for_topic(args.topic))]
    consumer.assign(partitions)
    for partition in partitions:
        consumer.seek(partition, 0)
    ends = consumer.end_offsets(partitions)
    documents, seen, records, unordered = {}, set(), 0, []
    while any(consumer.position(p) < ends[p] for p in partitions):
        for partition, batch in consumer.poll(timeout_ms=1000).items():
            for record in batch:
                if record.offset >= ends[partition]:
                    break
                records += 1
                if args.grown:
                    unordered.append(record)
                else:
                    apply(documents, seen, record, args.compacted)
    consumer.close()
    # Of a key that moved the partitions were read in any order: the times of their one producer tell it.
    for record in sorted(unordered, key=lambda record: record.timestamp):
        apply(documents, seen, record, args.compacted)
    return documents, seen, records


def apply(documents, seen, record, compacted):
    key = record.key.decode()
    seen.add(key)
    if record.value is None:
        documents.pop(key, None)
        return
    event = json.loads(record.value)
    if event.get("kind") != "product":
        if compacted:  # the product's record may be gone, and the row goes with it
            documents.pop(key, None)
        return
    if event.get("hidden") is True:
        documents.pop(key, None)
        return
    documents[key] = {
        "title": event.get("title"),
        "price": event.get("price"),
        "brand": (event.get("brand") or {}).get("name"),
        "rev": event.get("rev"),
    }


def shaped(documents, fields):
    return {key: {field: document[field] for field in fields} for key, document in documents.items()}


class Comparison:
    """Counts what differs and keeps a few examples."""

    def __init__(self, expected):
        self.expected, self.found = expected, set()
        self.different, self.resurrected, self.examples = 0, 0, []

    def saw(self, key, value):
        self.found.add(key)
        if key not in self.expected:
            self.resurrected += 1
            self.example("resurrected", key, value, None)
        elif value != self.expected[key]:
            self.different += 1
            self.example("different", key, value, self.expected[key])

    def example(self, what, key, is_, should):
        if len(self.examples) < 5:
            self.examples.append({"what": what, "key": key, "is": is_, "should": should})

    def result(self):
        lost = [key for key in self.expected if key not in self.found]
        for key in lost[:5]:
            self.example("lost", key, None, self.expected[key])
        return {
            "expected": len(self.expected),
            "found": len(self.found),
            "lost": len(lost),
            "different": self.different,
            "resurrected": self.resurrected,
            "examples": self.examples,
        }


def check_redis(args, documents):
    comparison = Comparison(shaped(documents, args.fields.split(",")))
    client = redis.Redis.from_url(args.redis)
    prefix = f"{args.installation}:{args.view}:v{args.version}:".encode()
    literal = prefix + args.literal.encode()
    keys = [key for key in client.scan_iter(match=prefix + b"*", count=5000)]
    for at in range(0, len(keys), 5000):
        chunk = keys[at : at + 5000]
        for key, value in zip(chunk, client.mget(chunk)):
            if value is not None:
                comparison.saw(key[len(literal) :].decode(), json.loads(value))
    return comparison.result()


def check_search(args, documents, seen):
    """Asks for every key that the log ever had, so that what should be gone is asked for too."""
    fields = args.search_fields.split(",")
    expected = shaped(documents, fields)
    comparison = Comparison(expected)
    for key in sorted(seen):
        url = f"{args.http}/v1/views/{args.search}/documents/{urllib.parse.quote(key, safe='')}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                document = json.load(answer)
        except urllib.error.HTTPError as fault:
            if fault.code != 404:
                raise
            continue
        comparison.saw(key, {field: document.get(field) for field in fields})
    return comparison.result()


def check(args):
    documents, seen, records = fold(args)
    result = {"records": records, "redis": check_redis(args, documents)}
    if args.search:
        result["search"] = check_search(args, documents, seen)
    print(json.dumps(result))
    parts = [result[name] for name in ("redis", "search") if name in result]
    return 1 if any(part["lost"] or part["different"] or part["resurrected"] for part in parts) else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    creating, making, checking = (verbs.add_parser(name) for name in ("create", "produce", "check"))
    for verb in (creating, making, checking):
        verb.add_argument("--brokers", required=True)
        verb.add_argument("--topic", default="shop.products")
    creating.add_argument("--partitions", type=int, default=6)
    creating.add_argument("--replicas", type=int, default=1)
    creating.add_argument("--config", action="append", default=[], help="NAME=VALUE, as min.insync.replicas=2")
    making.add_argument("--events", type=int, required=True)
    making.add_argument("--keys", type=int, default=100_000)
    making.add_argument("--seed", type=int, default=1)
    making.add_argument("--first", type=int, default=0, help="the revision of the first event")
    making.add_argument("--rate", type=float, help="events a second; as fast as it goes by default")
    making.add_argument("--while-open", action="store_true", help="end when standard input is closed")
    checking.add_argument("--redis", required=True)
    checking.add_argument("--installation", default="main")
    checking.add_argument("--view", default="products")
    checking.add_argument("--version", type=int, required=True)
    checking.add_argument("--literal", default="product:")
    checking.add_argument("--fields", default="title,price,brand")
    checking.add_argument("--compacted", action="store_true", help="the topic's policy is compaction")
    checking.add_argument("--grown", action="store_true", help="the topic got more partitions while one producer wrote it")
    checking.add_argument("--http")
    checking.add_argument("--search")
    checking.add_argument("--search-fields", default="title,brand,price")
    args = parser.parse_args()
    sys.exit({"create": create, "produce": produce, "check": check}[args.verb](args))


if __name__ == "__main__":
    main()
