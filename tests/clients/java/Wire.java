import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.BinaryNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.DataInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.net.Socket;
import java.net.SocketTimeoutException;
import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.Iterator;
import java.util.Map;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.message.RequestHeaderData;
import org.apache.kafka.common.message.ResponseHeaderData;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.record.RecordBatch;
import org.apache.kafka.common.record.SimpleRecord;

/**
 * Single requests by Kafka's own codec. A line of standard input is
 * {"server", "connection", "api", "version", "body"}, the body as JSON without what is as by default; a line of standard output
 * is the response as JSON, or {"closed": true} where the server ended the connection.
 */
public class Wire {
    static final ObjectMapper JSON = new ObjectMapper();
    static final Map<String, Socket> CONNECTIONS = new HashMap<>();
    static int correlation = 0;

    public static void main(String[] args) throws Exception {
        if (args.length > 0) {
            schemas();
            return;
        }
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        for (String line; (line = in.readLine()) != null; ) {
            JsonNode answer;
            try {
                answer = ask(JSON.readTree(line));
            } catch (EOFException | java.net.SocketException e) {
                answer = JSON.createObjectNode().put("closed", true);
            } catch (SocketTimeoutException e) {
                answer = JSON.createObjectNode().put("silent", true);
            } catch (Exception e) {
                answer = JSON.createObjectNode().put("failed", String.valueOf(e));
            }
            System.out.println(JSON.writeValueAsString(answer));
            System.out.flush();
        }
    }

    /** The form of every response: API key, version, fields; for broker/tests/data/responses.txt. */
    static void schemas() {
        for (ApiMessageType api : ApiMessageType.values()) {
            Schema[] all = api.responseSchemas();
            for (int version = 0; version < all.length; version++) {
                if (all[version] == null) continue;
                String form = form(all[version]);
                // Kafka's schemas do not say which structs may be null: a heartbeat's assignment, a page's cursor.
                if (api == ApiMessageType.CONSUMER_GROUP_HEARTBEAT) form = form.replace("4({", "4?({");
                if (api == ApiMessageType.DESCRIBE_TOPIC_PARTITIONS) form = form.replace("(S4<>)", "?(S4<>)");
                System.out.println(api.apiKey() + " " + version + " " + form);
            }
        }
    }

    /** One letter for a plain type, () for a struct, [] for an array, ? where it may be null, <> for tagged fields. */
    static String form(org.apache.kafka.common.protocol.types.Type type) {
        if (type instanceof Schema schema) {
            StringBuilder out = new StringBuilder("(");
            for (BoundField field : schema.fields()) out.append(form(field.def.type));
            return out.append(")").toString();
        }
        if (type instanceof TaggedFields tagged) {
            StringBuilder out = new StringBuilder("<");
            tagged.fields().forEach((tag, field) -> out.append(tag).append(":").append(form(field.type)));
            return out.append(">").toString();
        }
        String name = ((org.apache.kafka.common.protocol.types.Type.DocumentedType) type).typeName();
        boolean compact = name.startsWith("COMPACT_");
        if (type.arrayElementType().isPresent()) {
            return (compact ? "{" : "[") + (type.isNullable() ? "?" : "") + form(type.arrayElementType().get()) + (compact ? "}" : "]");
        }
        return switch (name) {
            case "BOOLEAN" -> "b";
            case "INT8" -> "1";
            case "INT16", "UINT16" -> "2";
            case "INT32", "UNSIGNED_INT32" -> "4";
            case "INT64" -> "8";
            case "FLOAT64" -> "f";
            case "UUID" -> "u";
            case "STRING" -> "s";
            case "NULLABLE_STRING" -> "n";
            case "COMPACT_STRING" -> "S";
            case "COMPACT_NULLABLE_STRING" -> "N";
            case "BYTES" -> "y";
            case "NULLABLE_BYTES", "RECORDS" -> "z";
            case "COMPACT_BYTES" -> "Y";
            case "COMPACT_NULLABLE_BYTES", "COMPACT_RECORDS" -> "Z";
            default -> throw new IllegalArgumentException(name);
        };
    }

    static JsonNode ask(JsonNode asked) throws Exception {
        ApiMessageType api = ApiMessageType.valueOf(asked.get("api").asText());
        short version = (short) asked.get("version").asInt();
        ApiMessage request = api.newRequest();
        JsonNode body = filled(request.getClass(), asked.get("body"), version);
        request = (ApiMessage) call(converter(request.getClass()), "read", body, version);
        RequestHeaderData head = new RequestHeaderData().setRequestApiKey(api.apiKey()).setRequestApiVersion(version)
            .setCorrelationId(++correlation).setClientId(asked.path("client").asText("wire"));
        ObjectSerializationCache cache = new ObjectSerializationCache();
        short headVersion = api.requestHeaderVersion(version);
        int size = head.size(cache, headVersion) + request.size(cache, version);
        ByteBuffer out = ByteBuffer.allocate(4 + size);
        out.putInt(size);
        head.write(new ByteBufferAccessor(out), cache, headVersion);
        request.write(new ByteBufferAccessor(out), cache, version);

        String server = asked.get("server").asText(), place = server + " " + asked.path("connection").asText();
        Socket socket = CONNECTIONS.get(place);
        if (socket == null || socket.isClosed()) {
            String[] parts = server.split(":");
            socket = new Socket(parts[0], Integer.parseInt(parts[1]));
            socket.setTcpNoDelay(true);
            socket.setSoTimeout(15_000);
            CONNECTIONS.put(place, socket);
        }
        try {
            socket.getOutputStream().write(out.array());
            DataInputStream in = new DataInputStream(socket.getInputStream());
            byte[] bytes = new byte[in.readInt()];
            in.readFully(bytes);
            ByteBufferAccessor answer = new ByteBufferAccessor(ByteBuffer.wrap(bytes));
            ResponseHeaderData answered = new ResponseHeaderData(answer, api.responseHeaderVersion(version));
            if (answered.correlationId() != correlation) throw new IllegalStateException("another request's answer");
            ApiMessage response = api.newResponse();
            response.read(answer, version);
            if (answer.remaining() > 0) throw new IllegalStateException(answer.remaining() + " bytes too many");
            // Written again it is what came, byte for byte.
            ObjectSerializationCache again = new ObjectSerializationCache();
            ByteBuffer written = ByteBuffer.allocate(answered.size(again, api.responseHeaderVersion(version)) + response.size(again, version));
            answered.write(new ByteBufferAccessor(written), again, api.responseHeaderVersion(version));
            response.write(new ByteBufferAccessor(written), again, version);
            if (!java.util.Arrays.equals(written.array(), bytes)) throw new IllegalStateException("another form than Kafka's");
            return (JsonNode) call(converter(response.getClass()), "write", response, version, false);
        } catch (IOException e) {
            socket.close();
            throw e;
        }
    }

    static Class<?> converter(Class<?> message) throws ClassNotFoundException {
        String name = message.getName();
        int nested = name.indexOf('$');
        if (nested < 0) return Class.forName(name + "JsonConverter");
        return Class.forName(name.substring(0, nested) + "JsonConverter$" + name.substring(nested + 1) + "JsonConverter");
    }

    static Object call(Class<?> on, String name, Object... args) throws Exception {
        for (Method method : on.getMethods()) {
            if (method.getName().equals(name) && method.getParameterCount() == args.length) {
                try {
                    return method.invoke(null, args);
                } catch (InvocationTargetException e) {
                    throw e.getCause() instanceof Exception ? (Exception) e.getCause() : e;
                }
            }
        }
        throw new IllegalArgumentException(on + " has no " + name);
    }

    /** What is given, and the defaults of what is not. */
    static JsonNode filled(Class<?> message, JsonNode given, short version) throws Exception {
        Object fresh = message.getDeclaredConstructor().newInstance();
        ObjectNode node = (ObjectNode) call(converter(message), "write", fresh, version, true);
        for (Iterator<Map.Entry<String, JsonNode>> fields = given.fields(); fields.hasNext(); ) {
            Map.Entry<String, JsonNode> field = fields.next();
            JsonNode value = field.getValue();
            Class<?> element;
            if (field.getKey().equals("records") && value.isObject()) {
                value = records(value);
            } else if (value.isTextual() && message.getMethod(field.getKey()).getReturnType() == byte[].class) {
                value = new BinaryNode(value.asText().getBytes("UTF-8"));
            } else if ((element = element(message.getMethod(field.getKey()).getGenericReturnType())) != null && value.isArray()) {
                ArrayNode all = JSON.createArrayNode();
                for (JsonNode one : value) all.add(filled(element, one, version));
                value = all;
            } else if (value.isObject()) {
                value = filled(message.getMethod(field.getKey()).getReturnType(), value, version);
            }
            node.set(field.getKey(), value);
        }
        return node;
    }

    /** The message that a list or a collection consists of. */
    static Class<?> element(Type type) {
        if (type instanceof Class<?> c) type = c.getGenericSuperclass();
        if (type instanceof ParameterizedType p && p.getActualTypeArguments()[0] instanceof Class<?> c && ApiMessageType.class.getPackage() == c.getPackage()) {
            return c;
        }
        return null;
    }

    /** {"values": ["k=v", ...], "producer", "epoch", "sequence", "transactional", "time", "codec"} as a batch. */
    static JsonNode records(JsonNode given) {
        long time = given.path("time").asLong(System.currentTimeMillis());
        Compression codec = Compression.of(given.path("codec").asText("none")).build();
        SimpleRecord[] all = new SimpleRecord[given.get("values").size()];
        for (int i = 0; i < all.length; i++) {
            String[] pair = given.get("values").get(i).asText().split("=", 2);
            all[i] = pair.length == 1 ? new SimpleRecord(time + i, pair[0].getBytes()) : new SimpleRecord(time + i, pair[0].getBytes(), pair[1].getBytes());
        }
        MemoryRecords records;
        if (!given.has("producer")) {
            records = MemoryRecords.withRecords(RecordBatch.MAGIC_VALUE_V2, 0, codec, all);
        } else {
            long producer = given.get("producer").asLong();
            short epoch = (short) given.path("epoch").asInt();
            int sequence = given.path("sequence").asInt();
            records = given.path("transactional").asBoolean()
                ? MemoryRecords.withTransactionalRecords(codec, producer, epoch, sequence, all)
                : MemoryRecords.withIdempotentRecords(codec, producer, epoch, sequence, all);
        }
        byte[] bytes = new byte[records.sizeInBytes()];
        records.buffer().get(bytes);
        return new BinaryNode(bytes);
    }
}
