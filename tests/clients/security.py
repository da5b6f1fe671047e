"""Real clients against a server that asks who they are: security.py MILLPOND. Exits non-zero on any failure.

Starts a server of its own with four listeners, makes certificates with openssl, users with `millpond user`, tokens with a
key of its own, and lets kcat, confluent-kafka, kafka-python, kafkajs and the Java tools in by each way they have; and
sees that they are kept out with wrong credentials. Sessions are short, so that clients that stay renew theirs. Last, no
secret may be in the server's log. With CAPTURE=FOLDER what librdkafka, kafka-python, kafkajs and Java send to log in is
kept there, as clients.sh says.
"""

import base64
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import confluent_kafka
from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
import kafka as kafka_python
from kafka.net.sasl.oauth import AbstractTokenProvider

from ports import free_port

MILLPOND = sys.argv[1]
CACHE = os.environ.get("MILLPOND_CACHE", os.path.expanduser("~/.cache/millpond"))
HERE = os.path.dirname(os.path.abspath(__file__))
KAFKA_JAVA = os.environ.get("KAFKA_JAVA", "3.7.2 4.1.2").split()
USER, PASSWORD, WRONG = "alice", "Tr0ub4dor-and-3", "hunter2-is-not-it"
SESSION_MS = 6000

work = tempfile.mkdtemp()
environment = {k: v for k, v in os.environ.items() if not k.startswith("MILLPOND_P") and not k.startswith("MILLPOND_T")}
environment["MILLPOND_CACHE"] = CACHE


def say(text):
    print("security:", text, flush=True)


def path(name):
    return os.path.join(work, name)


def run(*command, given=None, seconds=180, fails=False, **more):
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=seconds, env=environment, **more)
    if (done.returncode != 0) != fails:
        raise SystemExit(f"security: FAILED: {' '.join(command)}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout + done.stderr


def openssl(*arguments):
    return run("openssl", *arguments)


def certificates():
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=authority",
            "-keyout", path("ca.key"), "-out", path("ca.pem"))
    for name, subject in [("server", "/CN=localhost"), ("client", "/C=CH/O=Millpond, Ltd/OU=tests/CN=client")]:
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", subject,
                "-keyout", path(f"{name}.key"), "-out", path(f"{name}.csr"))
        with open(path("ext"), "w") as out:
            out.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl("x509", "-req", "-in", path(f"{name}.csr"), "-CA", path("ca.pem"), "-CAkey", path("ca.key"),
                "-CAcreateserial", "-days", "2", "-extfile", path("ext"), "-out", path(f"{name}.pem"))
        os.chmod(path(f"{name}.key"), 0o600)
    with open(path("client-store.pem"), "w") as out:
        out.write(open(path("client.key")).read() + open(path("client.pem")).read())


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(seconds=600):
    """Signed as an issuer would, by openssl."""
    if not os.path.exists(path("jwt.key")):
        openssl("genrsa", "-out", path("jwt.key"), "2048")
        modulus = openssl("rsa", "-in", path("jwt.key"), "-noout", "-modulus").split("=", 1)[1].split()[0]
        key = {"kty": "RSA", "kid": "k1", "alg": "RS256", "use": "sig", "n": encoded(bytes.fromhex(modulus)), "e": "AQAB"}
        with open(path("jwks.json"), "w") as out:
            json.dump({"keys": [key]}, out)
    now = int(time.time())
    claims = {"iss": "https://issuer.example", "aud": "millpond", "sub": "carol", "iat": now, "exp": now + seconds}
    parts = [encoded(json.dumps(p).encode()) for p in ({"alg": "RS256", "typ": "JWT", "kid": "k1"}, claims)]
    signed = ".".join(parts)
    done = subprocess.run(["openssl", "dgst", "-sha256", "-sign", path("jwt.key")], input=signed.encode(),
                          capture_output=True, check=True)
    return signed + "." + encoded(done.stdout)


def capture():
    """A proxy that keeps what clients send, its address, and the listener behind it for the server's settings."""
    if not os.environ.get("CAPTURE"):
        return None, None, ""
    behind = f"127.0.0.1:{free_port()}"
    proxy = subprocess.Popen([sys.executable, os.path.join(HERE, "capture.py"), behind, os.environ["CAPTURE"]],
                             stdout=subprocess.PIPE, text=True)
    address = proxy.stdout.readline().strip()
    return proxy, address, f"""
[[listener]]
name = "CAPTURED"
address = "{behind}"
advertised = "{address}"
protocol = "SASL_PLAINTEXT"
mechanisms = ["PLAIN", "SCRAM-SHA-256"]
"""


def start(captured):
    tls = f"certificate = '{path('server.pem')}'\nkey = '{path('server.key')}'\n"
    with open(path("config.toml"), "w") as out:
        out.write(f"""
[[listener]]
name = "LOGIN"
address = "127.0.0.1:0"
protocol = "SASL_SSL"
{tls}
[[listener]]
name = "OPEN_LOGIN"
address = "127.0.0.1:0"
protocol = "SASL_PLAINTEXT"
mechanisms = ["PLAIN", "SCRAM-SHA-256"]
[[listener]]
name = "MUTUAL"
address = "127.0.0.1:0"
protocol = "SSL"
client_ca = '{path('ca.pem')}'
client_auth = "required"
principal_mapping = "RULE:^CN=([^,]+),.*$/$1/L,DEFAULT"
{tls}{captured}
[security]
session_max_ms = {SESSION_MS}
failed_authentication_delay_ms = 100
[security.oauth]
jwks = '{path('jwks.json')}'
issuer = "https://issuer.example"
audience = ["millpond"]
[broker]
group_initial_rebalance_delay_ms = 0
""")
    token()
    run(MILLPOND, "user", "add", USER, "--data", path("data"), given=PASSWORD + "\n")
    lines, log = open(path("lines"), "w+"), open(path("log"), "w")
    process = subprocess.Popen(
        [MILLPOND, "serve", "--data", path("data"), "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0",
         "--config", path("config.toml")], stdout=lines, stderr=log, env={**environment, "RUST_LOG": "debug"})
    addresses = {}
    for _ in range(1200):
        for line in open(path("lines")).read().splitlines():
            words = line.split()
            addresses[words[1] if words[0] == "kafka" and words[1] != "listening" else words[0]] = words[-1]
        if "http" in addresses:
            return process, {k: v.replace("127.0.0.1", "localhost") for k, v in addresses.items()}
        assert process.poll() is None, open(path("log")).read()
        time.sleep(0.05)
    raise SystemExit("security: FAILED: the server did not start")


def with_confluent(bootstrap):
    base = {"bootstrap.servers": bootstrap["LOGIN"], "security.protocol": "SASL_SSL", "ssl.ca.location": path("ca.pem")}
    login = {"sasl.username": USER, "sasl.password": PASSWORD}
    until = time.time() + 600
    ways = {
        "PLAIN": {**base, **login, "sasl.mechanism": "PLAIN"},
        "SCRAM-SHA-256": {**base, **login, "sasl.mechanism": "SCRAM-SHA-256"},
        "SCRAM-SHA-512": {**base, **login, "sasl.mechanism": "SCRAM-SHA-512"},
        "OAUTHBEARER": {**base, "sasl.mechanism": "OAUTHBEARER", "oauth_cb": lambda _: (token(), until)},
        "mutual TLS": {"bootstrap.servers": bootstrap["MUTUAL"], "security.protocol": "SSL",
                       "ssl.ca.location": path("ca.pem"), "ssl.certificate.location": path("client.pem"),
                       "ssl.key.location": path("client.key")},
    }
    for name, config in ways.items():
        topic = "confluent-" + name.lower().replace(" ", "-")
        producer = confluent_kafka.Producer({**config, "acks": "all"})
        for i in range(500):
            producer.produce(topic, f"{i}")
        assert producer.flush(30) == 0, name
        consumer = confluent_kafka.Consumer({**config, "group.id": topic, "auto.offset.reset": "earliest"})
        consumer.subscribe([topic])
        got, end = 0, time.time() + 60
        while got < 500 and time.time() < end:
            message = consumer.poll(1)
            if message is not None and not message.error():
                got += 1
        assert got == 500, f"{name}: {got} of 500"
        consumer.close()
        say(f"confluent-kafka by {name}")

    refused = []
    wrong = AdminClient({**ways["SCRAM-SHA-512"], "sasl.password": WRONG, "error_cb": refused.append})
    end = time.time() + 60
    while not any(e.code() == confluent_kafka.KafkaError._AUTHENTICATION for e in refused):
        assert time.time() < end, refused
        wrong.poll(0.2)
    del wrong  # it would go on trying

    admin = AdminClient(ways["SCRAM-SHA-256"])
    change = UserScramCredentialUpsertion("bob", ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), PASSWORD.encode())
    for future in admin.alter_user_scram_credentials([change]).values():
        future.result(20)
    described = admin.describe_user_scram_credentials(["bob"])["bob"].result(20)
    assert [i.iterations for i in described.scram_credential_infos] == [4096]
    bob = AdminClient({**ways["SCRAM-SHA-256"], "sasl.username": "bob"})
    assert bob.list_topics(timeout=20).topics
    say("confluent-kafka makes a user, who gets in; a wrong password does not")

    staying = confluent_kafka.Producer({**ways["SCRAM-SHA-256"], "acks": "all", "error_cb": refused.append})
    refused.clear()
    lost, end = [], time.time() + 2.5 * SESSION_MS / 1000
    while time.time() < end:
        staying.produce("staying", b"x", on_delivery=lambda error, _: lost.append(error) if error else None)
        staying.flush(10)
        time.sleep(0.1)
    assert not lost and not refused, (lost, refused)
    say("confluent-kafka renews its session")


def with_kafka_python(bootstrap):
    class Provider(AbstractTokenProvider):
        def token(self):
            return token()

    base = {"bootstrap_servers": bootstrap["LOGIN"], "security_protocol": "SASL_SSL", "ssl_cafile": path("ca.pem")}
    login = {"sasl_plain_username": USER, "sasl_plain_password": PASSWORD}
    ways = {
        "PLAIN": {**base, **login, "sasl_mechanism": "PLAIN"},
        "SCRAM-SHA-256": {**base, **login, "sasl_mechanism": "SCRAM-SHA-256"},
        "SCRAM-SHA-512": {**base, **login, "sasl_mechanism": "SCRAM-SHA-512"},
        "OAUTHBEARER": {**base, "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": Provider()},
        "mutual TLS": {"bootstrap_servers": bootstrap["MUTUAL"], "security_protocol": "SSL", "ssl_cafile": path("ca.pem"),
                       "ssl_certfile": path("client.pem"), "ssl_keyfile": path("client.key")},
    }
    for name, config in ways.items():
        topic = "kafka-python-" + name.lower().replace(" ", "-")
        producer = kafka_python.KafkaProducer(**config)
        for i in range(200):
            producer.send(topic, f"{i}".encode())
        producer.flush(30)
        producer.close()
        consumer = kafka_python.KafkaConsumer(topic, **config, auto_offset_reset="earliest", consumer_timeout_ms=60000)
        got = 0
        for _ in consumer:
            got += 1
            if got == 200:
                break
        consumer.close()
        assert got == 200, f"{name}: {got} of 200"
        say(f"kafka-python by {name}")


def without_tls(address):
    def kept_as(name):
        if os.environ.get("CAPTURE"):
            with open(os.path.join(os.environ["CAPTURE"], "client"), "w") as out:
                out.write(name)

    for mechanism in "PLAIN", "SCRAM-SHA-256":
        topic = "without-tls-" + mechanism.lower()
        kept_as("sasl-librdkafka")
        producer = confluent_kafka.Producer({
            "bootstrap.servers": address, "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": mechanism,
            "sasl.username": USER, "sasl.password": PASSWORD})
        producer.produce(topic, "one")
        assert producer.flush(30) == 0, mechanism
        del producer
        kept_as("sasl-kafka-python")
        producer = kafka_python.KafkaProducer(
            bootstrap_servers=address, security_protocol="SASL_PLAINTEXT", sasl_mechanism=mechanism,
            sasl_plain_username=USER, sasl_plain_password=PASSWORD)
        producer.send(topic, b"two").get(30)
        producer.close()
        version = KAFKA_JAVA[-1]
        kept_as("sasl-java-" + version.rsplit(".", 1)[0])
        module = "scram.ScramLoginModule" if mechanism.startswith("SCRAM") else "plain.PlainLoginModule"
        with open(path("without-tls.properties"), "w") as out:
            out.write(f"security.protocol=SASL_PLAINTEXT\nsasl.mechanism={mechanism}\nsasl.jaas.config=org.apache.kafka.common."
                      f'security.{module} required username="{USER}" password="{PASSWORD}";\n')
        said = java(version, "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", address, "--command-config",
                    path("without-tls.properties"), "--list")
        assert topic in said.split(), said
    kept_as("sasl-kafkajs")
    print(run("node", os.path.join(HERE, "security.js"), address, given=json.dumps({"user": USER, "password": PASSWORD})), end="")
    say("confluent-kafka, kafka-python, Java and kafkajs log in without TLS")


def with_kcat(bootstrap):
    base = ["-b", bootstrap["LOGIN"], "-X", "security.protocol=SASL_SSL", "-X", f"ssl.ca.location={path('ca.pem')}",
            "-X", f"sasl.username={USER}"]
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]:
        topic = f"kcat-{mechanism.lower()}"
        login = [*base, "-X", f"sasl.mechanism={mechanism}", "-X", f"sasl.password={PASSWORD}"]
        run("kcat", *login, "-P", "-t", topic, given="one\ntwo\n")
        assert run("kcat", *login, "-C", "-q", "-t", topic, "-o", "beginning", "-e").split() == ["one", "two"]
        wrong = [*base, "-X", f"sasl.mechanism={mechanism}", "-X", f"sasl.password={WRONG}"]
        run("kcat", *wrong, "-L", "-m", "3", fails=True)
    listed = run("kcat", "-b", bootstrap["OPEN_LOGIN"], "-X", "security.protocol=SASL_PLAINTEXT", "-X",
                 "sasl.mechanism=SCRAM-SHA-256", "-X", f"sasl.username={USER}", "-X", f"sasl.password={PASSWORD}", "-L")
    assert bootstrap["OPEN_LOGIN"].split(":")[1] in listed, listed
    mutual = ["-b", bootstrap["MUTUAL"], "-X", "security.protocol=SSL", "-X", f"ssl.ca.location={path('ca.pem')}"]
    run("kcat", *mutual, "-L", "-m", "3", fails=True)
    run("kcat", *mutual, "-X", f"ssl.certificate.location={path('client.pem')}",
        "-X", f"ssl.key.location={path('client.key')}", "-L")
    say("kcat by PLAIN, SCRAM, mutual TLS")


def java(version, name, *arguments, **more):
    lib = os.path.join(CACHE, "kafka", version, "lib")
    assert glob.glob(lib + "/kafka-clients*"), f"Kafka's tools {version} are not in {lib}: tests/clients/setup.sh"
    return run("java", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xmx256m",
               "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file://" + path("token"),
               "-cp", lib + "/*", name, *arguments, **more)


def with_java(bootstrap, version):
    def properties(name, lines):
        name = path(f"{version}-{name}")
        with open(name, "w") as out:
            out.write("\n".join(lines) + "\n")
        return name

    trust = ["ssl.truststore.type=PEM", f"ssl.truststore.location={path('ca.pem')}"]
    modules = "org.apache.kafka.common.security"

    def scram(password, mechanism="SCRAM-SHA-512"):
        kind = "scram.ScramLoginModule" if mechanism.startswith("SCRAM") else "plain.PlainLoginModule"
        return [*trust, "security.protocol=SASL_SSL", f"sasl.mechanism={mechanism}",
                f'sasl.jaas.config={modules}.{kind} required username="{USER}" password="{password}";']

    ways = {
        "SCRAM-SHA-512": (bootstrap["LOGIN"], scram(PASSWORD)),
        "PLAIN": (bootstrap["LOGIN"], scram(PASSWORD, "PLAIN")),
        "OAUTHBEARER": (bootstrap["LOGIN"], [
            *trust, "security.protocol=SASL_SSL", "sasl.mechanism=OAUTHBEARER",
            f"sasl.login.callback.handler.class={modules}.oauthbearer.OAuthBearerLoginCallbackHandler",
            f"sasl.oauthbearer.token.endpoint.url=file://{path('token')}",
            f"sasl.jaas.config={modules}.oauthbearer.OAuthBearerLoginModule required;"]),
        "mutual TLS": (bootstrap["MUTUAL"], [*trust, "security.protocol=SSL", "ssl.keystore.type=PEM",
                                             f"ssl.keystore.location={path('client-store.pem')}"]),
    }

    for name, (address, lines) in ways.items():
        file = properties("java.properties", lines)
        topic = f"java-{version}-" + name.lower().replace(" ", "-")
        java(version, "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", address, "--command-config", file,
             "--create", "--topic", topic)
        said = java(version, "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", address, "--command-config", file, "--list")
        assert topic in said.split(), said
        say(f"Java {version} by {name}")
    address = bootstrap["LOGIN"]
    said = java(version, "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", address, "--command-config",
                properties("wrong.properties", scram(WRONG)), "--list", fails=True)
    assert "authentication failed" in said, said

    good = properties("good.properties", scram(PASSWORD))
    # Longer than two sessions.
    said = java(version, "org.apache.kafka.tools.ProducerPerformance", "--topic", f"java-{version}-plain", "--num-records",
                str(50 * 2 * SESSION_MS // 1000 + 100), "--record-size", "100", "--throughput", "50", "--producer-props",
                f"bootstrap.servers={address}", "--producer.config", good)
    assert "records sent" in said and "Exception" not in said, said
    configs = ["kafka.admin.ConfigCommand", "--bootstrap-server", address, "--command-config", good,
               "--entity-type", "users", "--entity-name", f"dave-{version}"]
    java(version, *configs, "--alter", "--add-config", f"SCRAM-SHA-256=[iterations=4096,password={PASSWORD}]")
    said = java(version, *configs, "--describe")
    assert "SCRAM-SHA-256=iterations=4096" in said, said
    java(version, *configs, "--alter", "--delete-config", "SCRAM-SHA-256")
    say(f"Java {version} renews its session; kafka-configs makes and removes a user")


def with_kafkajs(bootstrap):
    said = run("node", os.path.join(HERE, "security.js"), bootstrap["LOGIN"], bootstrap["MUTUAL"], work,
               given=json.dumps({"user": USER, "password": PASSWORD, "wrong": WRONG, "token": token()}))
    print(said, end="")


def main():
    certificates()
    proxy, proxied, captured = capture()
    process, bootstrap = start(captured)
    try:
        without_tls(proxied or bootstrap["OPEN_LOGIN"])
        with_kcat(bootstrap)
        with_confluent(bootstrap)
        with_kafka_python(bootstrap)
        with_kafkajs(bootstrap)
        with open(path("token"), "w") as out:
            out.write(token())
        # Side by side: most of the time goes with starting and with waiting.
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda version: with_java(bootstrap, version), KAFKA_JAVA))
    finally:
        if proxy:
            proxy.terminate()
            proxy.wait(60)
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
    assert status == 0, f"the server ended with {status}"
    log = open(path("log")).read()
    for secret in [PASSWORD, WRONG, "eyJ", "BEGIN PRIVATE", base64.b64encode(PASSWORD.encode()).decode()]:
        assert secret not in log, f"a secret is in the log: {secret}"
    alarming = [line for line in log.splitlines() if " WARN " in line or " ERROR " in line or "panicked" in line]
    assert not alarming, alarming[:10]
    say("no secret in the log")
    say("ok")


try:
    main()
finally:
    shutil.rmtree(work, ignore_errors=True)
