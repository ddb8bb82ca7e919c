"""kafka-bridge-client (PyPI): written for Strimzi's bridge, with a mode for Confluent's proxy.

    kafka_bridge_client_flow.py strimzi|confluent URL TOPIC

Writes JSON and binary, reads both back with a consumer that is named by the client, commits, and reads on as another
consumer of the same group.
"""

import asyncio
import base64
import sys

from kafka_bridge_client import KafkaBridgeConsumer, KafkaBridgeProducer, Message

dialect, url, topic = sys.argv[1:]


def write():
    producer = KafkaBridgeProducer(url, timeout=30)
    assert producer.sends(topic, [Message(key="k", value="text"), Message(value={"price": 1.5})])
    assert producer.sends(topic, [Message(key="b", value=b"\x00\xff")], binary=True)


def consumer(name):
    return KafkaBridgeConsumer(
        topic,
        bootstrap_server=url,
        group_id=f"{topic}-group",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        consumer_name=name,
        sleep_interval_seconds=0,
        proxy=dialect,
    )


async def read(name, count):
    values = []
    reader = consumer(name)
    async with reader:
        async for record in reader.get_records(max_bytes=1_000_000, timeout=10_000):
            values.append(base64.b64decode(record["value"]))
            if len(values) == count:
                break
        await reader.commit()
    return values


RECORDS = [b'"text"', b'{"price": 1.5}', b"\x00\xff"]
write()
assert (values := asyncio.run(read("first", 3))) == RECORDS, values
write()
# It commits the last record's offset. Confluent's proxy takes that for what is done, Strimzi's bridge for what is next.
expected = RECORDS if dialect == "confluent" else RECORDS[2:] + RECORDS
assert (values := asyncio.run(read("second", len(expected)))) == expected, values
print("ok")
