// kafka-rest (npm): Confluent's own client for Node, of the API's first version.
//
//     node kafka_rest_flow.js URL TOPIC
"use strict";

const assert = require("node:assert");
const KafkaRest = require("kafka-rest");

const [url, topic] = process.argv.slice(2);
const kafka = new KafkaRest({ url });
const call = (object, method, ...args) =>
  new Promise((resolve, reject) => object[method](...args, (error, result) => (error ? reject(error) : resolve(result))));

async function main() {
  const topics = await call(kafka.topics, "list");
  assert(topics.some((known) => known.name === topic));
  assert((await call(kafka.brokers, "list")).length > 0);
  const partitions = await call(kafka.topic(topic).partitions, "list");
  assert.strictEqual(partitions.length, 1);

  const written = await call(kafka.topic(topic), "produce", [{ key: "k", value: "first" }, { value: "second" }]);
  assert.deepStrictEqual(written.offsets.map((place) => place.offset), [0, 1]);
  await call(kafka.topicPartition(topic, 0), "produce", "third");

  const instance = await call(kafka.consumer(`${topic}-group`), "join", { format: "binary", "auto.offset.reset": "smallest" });
  const values = await new Promise((resolve, reject) => {
    const seen = [];
    const stream = instance.subscribe(topic);
    stream.on("error", reject);
    stream.on("data", (messages) => {
      seen.push(...messages.map((message) => message.value.toString("utf8")));
      if (seen.length >= 3) resolve(seen);
    });
  });
  assert.deepStrictEqual(values, ["first", "second", "third"]);
  await call(instance, "commit");
  await call(instance, "shutdown");
  console.log("ok");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
