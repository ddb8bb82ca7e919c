import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Scanner;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Transactions of Java's producer, step by step: reads commands, and says "done" when one is.
 *
 *   write NAME VALUE...   begins the transaction NAME if there is none, writes records, waits for their acknowledgement
 *   commit NAME
 *   abort NAME
 *
 * Arguments: bootstrap servers, topic, partition.
 */
public class Transactions {
    public static void main(String[] arguments) throws Exception {
        String topic = arguments[1];
        int partition = Integer.parseInt(arguments[2]);
        Map<String, KafkaProducer<String, String>> open = new HashMap<>();
        Scanner commands = new Scanner(System.in);
        while (commands.hasNextLine()) {
            String[] words = commands.nextLine().split(" ");
            String name = words[1];
            switch (words[0]) {
                case "write" -> {
                    if (!open.containsKey(name)) {
                        open.put(name, begin(arguments[0], topic + "-" + name));
                    }
                    List<Future<?>> sent = new ArrayList<>();
                    for (int i = 2; i < words.length; i++) {
                        sent.add(open.get(name).send(new ProducerRecord<>(topic, partition, null, words[i])));
                    }
                    for (Future<?> one : sent) {
                        one.get();
                    }
                }
                case "commit" -> open.get(name).commitTransaction();
                case "abort" -> open.get(name).abortTransaction();
                default -> throw new IllegalArgumentException(words[0]);
            }
            if (!words[0].equals("write")) {
                open.remove(name).close();
            }
            System.out.println("done");
        }
    }

    private static KafkaProducer<String, String> begin(String bootstrap, String id) {
        Map<String, Object> settings = Map.of(
                "bootstrap.servers", bootstrap,
                "transactional.id", id,
                // Nobody but a command ends it, however slow the machine.
                "transaction.timeout.ms", "900000",
                "max.block.ms", "120000");
        KafkaProducer<String, String> producer =
                new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer());
        producer.initTransactions();
        producer.beginTransaction();
        return producer;
    }
}
