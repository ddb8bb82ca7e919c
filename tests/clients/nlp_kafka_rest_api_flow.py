"""nlp-kafka-rest-api (PyPI): a producer of JSON and a consumer of binary, as Confluent's proxy has them.

    nlp_kafka_rest_api_flow.py URL TOPIC
"""

import sys

from kafka_rest.kafka_rest import Consumer, Producer

url, topic = sys.argv[1:]

producer = Producer(kafka_rest_api_url=url)
messages = [{"text": "Straße", "n": n} for n in range(3)]
keys = producer.produce(messages, topic)
files = producer.produce_files([{"name": "a.bin", "bytes": bytes(range(256)), "type": "application/octet-stream"}], topic)

with Consumer(kafka_rest_api_url=url, topics=[topic]) as consumer:
    read = consumer.consume_all(keys + files, interval_sec=0)

by_key = {record["key"]: record["value"] for record in read}
assert [by_key[key] for key in keys] == messages, read
assert by_key[files[0]]["name"] == "a.bin", read
print("ok")
