import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.common.utils.Exit;

/**
 * Kafka's command-line tools in one virtual machine, since starting one for each takes longer than what they do.
 * Standard input gives a tool per line: seconds, files for its input, output and errors, its class and its arguments,
 * with a unit separator between. Standard output gives the status of each.
 */
public final class Tools {
    /** Output that goes where the tool of the moment wants it; Scala keeps the stream that it sees first. */
    private static final class Switch extends OutputStream {
        private OutputStream to = OutputStream.nullOutputStream();

        @Override public synchronized void write(int b) throws java.io.IOException {
            to.write(b);
        }

        @Override public synchronized void write(byte[] b, int from, int length) throws java.io.IOException {
            to.write(b, from, length);
        }

        @Override public synchronized void flush() throws java.io.IOException {
            to.flush();
        }

        synchronized void set(OutputStream next) throws java.io.IOException {
            to.close();
            to = next;
        }
    }

    public static void main(String[] args) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream statuses = System.out;
        Switch out = new Switch();
        Switch err = new Switch();
        System.setOut(new PrintStream(out, true));
        System.setErr(new PrintStream(err, true));
        BlockingQueue<Integer> ended = new LinkedBlockingQueue<>();
        // A tool that wants to end never goes on: some would catch whatever is thrown here.
        Exit.Procedure end = (status, message) -> {
            if (message != null) System.err.println(message);
            ended.add(status);
            for (;;) LockSupport.park();
        };
        Exit.setExitProcedure(end);
        Exit.setHaltProcedure(end);
        for (String line; (line = lines.readLine()) != null;) {
            String[] parts = line.split("\u001f", -1);
            InputStream in = new FileInputStream(parts[1]);
            System.setIn(in);
            out.set(new FileOutputStream(parts[2]));
            err.set(new FileOutputStream(parts[3]));
            ended.clear();
            Thread tool = new Thread(() -> {
                try {
                    Class.forName(parts[4]).getMethod("main", String[].class)
                        .invoke(null, (Object) Arrays.copyOfRange(parts, 5, parts.length));
                    ended.add(0);
                } catch (Throwable e) {
                    e.printStackTrace();
                    ended.add(1);
                }
            });
            tool.setDaemon(true);
            tool.start();
            Integer status = ended.poll(Long.parseLong(parts[0]), TimeUnit.SECONDS);
            if (status == null) {
                for (StackTraceElement frame : tool.getStackTrace()) System.err.println("hangs at " + frame);
            }
            System.out.flush();
            System.err.flush();
            statuses.println(status == null ? 124 : status);
            statuses.flush();
            in.close();
            if (status == null) Runtime.getRuntime().halt(1);
        }
        Runtime.getRuntime().halt(0);
    }
}
