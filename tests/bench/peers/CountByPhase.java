import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.sun.management.OperatingSystemMXBean;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/** Kafka Streams: count by phase in a store of its own (RocksDB, cached, with a changelog topic), no repartitioning. */
public final class CountByPhase {
    public record Study(String type, String id, String phase, String title, String sponsor) {}

    private static final ObjectReader STUDY = new ObjectMapper().readerFor(Study.class);
    private static final OperatingSystemMXBean SYSTEM =
            (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
    private static final CountDownLatch DONE = new CountDownLatch(1);
    private static long end;
    private static String first;
    private static String last;

    private static String stamp(long handled) {
        return String.format("[%.6f, %.6f, %d]", System.nanoTime() / 1e9, SYSTEM.getProcessCpuTime() / 1e9, handled);
    }

    private static final class Count implements Processor<byte[], byte[], Void, Void> {
        private KeyValueStore<String, Long> counts;
        private long handled;

        @Override
        public void init(ProcessorContext<Void, Void> context) {
            counts = context.getStateStore("counts");
        }

        @Override
        public void process(Record<byte[], byte[]> event) {
            String phase;
            try {
                phase = STUDY.<Study>readValue(event.value()).phase();
            } catch (IOException error) {
                throw new IllegalStateException(error);
            }
            Long count = counts.get(phase);
            counts.put(phase, count == null ? 1L : count + 1L);
            handled++;
            if (handled == end / 4) {
                first = stamp(handled);
            }
            if (handled == end) {
                last = stamp(handled);
                DONE.countDown();
            }
        }
    }

    public static void main(String[] given) throws InterruptedException {
        end = Long.parseLong(given[4]);
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, given[0]);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, given[2]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, given[3]);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, given[5]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        settings.put(ConsumerConfig.MAX_POLL_RECORDS_CONFIG, 5000);
        StreamsBuilder builder = new StreamsBuilder();
        builder.addStateStore(Stores.keyValueStoreBuilder(
                        Stores.persistentKeyValueStore("counts"), Serdes.String(), Serdes.Long())
                .withCachingEnabled());
        builder.stream(given[1], Consumed.with(Serdes.ByteArray(), Serdes.ByteArray())).process(Count::new, "counts");
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        streams.start();
        DONE.await();
        streams.close();
        System.out.println("{\"stamps\": [" + first + ", " + last + "]}");
    }
}
