"""pymapr-kafkarest (PyPI): a producer and a consumer of JSON, with seeking.

    pymapr_kafkarest_flow.py URL TOPIC

Its producer sends each list four times: its loop of retries goes on after a success.
"""

import sys

from pymapr_kafkarest.kafkarest import MaprKlient, MaprKProducer

url, topic = sys.argv[1:]

producer = MaprKProducer(f"{url}/", headers={})
producer.verify = True
producer.produce([{"value": {"n": 1}}], topic=topic, partition=0)

client = MaprKlient(f"{url}/", consumer=f"{topic}-group", headers={}, topics=[topic], instance="mapr", verify=True)
client.connect(clear=True)
client.subscribe()


def read(count, **how):
    values = []
    while len(values) < count:
        values += [record["value"] for record in client.consume(**how)]
        how = {}
    return values


assert read(4) == [{"n": 1}] * 4
assert client._subscription_topics() == {"topics": [topic]}
assert read(4, seek=True) == [{"n": 1}] * 4
assert read(2, position=2) == [{"n": 1}] * 2
client._instance_delete()
print("ok")
