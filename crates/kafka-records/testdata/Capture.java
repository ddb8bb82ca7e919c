import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Produces the same records as one batch into one topic for each codec, one with LogAppendTime, one in a transaction. */
public class Capture {
    static final long T = 1_700_000_000_000L;

    public static void main(String[] args) throws Exception {
        String bootstrap = args[0];
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            List<NewTopic> topics = new ArrayList<>();
            for (String client : List.of("java", "librdkafka")) {
                for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
                    topics.add(topic(client + "-" + codec, "CreateTime"));
                }
                topics.add(topic(client + "-log-append-time", "LogAppendTime"));
            }
            topics.add(topic("java-transaction", "CreateTime"));
            admin.createTopics(topics).all().get();
        }
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            produce(bootstrap, codec, "java-" + codec, Map.of());
        }
        produce(bootstrap, "lz4", "java-log-append-time", Map.of());
        produce(bootstrap, "none", "java-transaction", Map.of("transactional.id", "capture"));
    }

    static NewTopic topic(String name, String timestampType) {
        return new NewTopic(name, Optional.of(1), Optional.empty()).configs(Map.of("message.timestamp.type", timestampType));
    }

    static void produce(String bootstrap, String codec, String topic, Map<String, Object> more) throws Exception {
        Map<String, Object> config = new java.util.HashMap<>(Map.of(
            "bootstrap.servers", bootstrap, "compression.type", codec, "acks", "all", "enable.idempotence", true,
            "linger.ms", 2000, "batch.size", 1 << 20));
        config.putAll(more);
        try (var producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
            boolean transactional = more.containsKey("transactional.id");
            if (transactional) {
                producer.initTransactions();
                producer.beginTransaction();
            }
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (var record : records(topic)) {
                sent.add(producer.send(record));
            }
            if (transactional) {
                producer.commitTransaction();
            }
            for (var one : sent) {
                one.get();
            }
        }
    }

    static List<ProducerRecord<byte[], byte[]>> records(String topic) {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        records.add(record(topic, T, "k1", "v1"));
        var headers = record(topic, T + 1, null, "no key, three headers");
        headers.headers().add("a", bytes("1")).add("a", bytes("2")).add("b", null).add("é", bytes(""));
        records.add(headers);
        records.add(record(topic, T - 1000, "", ""));
        records.add(record(topic, T, "tombstone", null));
        records.add(record(topic, T + 5_000_000_000L, "delta beyond 32 bits", "x".repeat(300)));
        for (int i = 0; i < 900; i++) {
            records.add(record(topic, T + i, null, "{\"level\":\"info\",\"message\":\"line " + i + "\"}"));
        }
        return records;
    }

    static ProducerRecord<byte[], byte[]> record(String topic, long timestamp, String key, String value) {
        return new ProducerRecord<>(topic, 0, timestamp, bytes(key), bytes(value));
    }

    static byte[] bytes(String text) {
        return text == null ? null : text.getBytes(StandardCharsets.UTF_8);
    }
}
