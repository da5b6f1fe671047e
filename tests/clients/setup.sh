#!/usr/bin/env bash
# Installs the Kafka clients that the tests of the protocol use, in fixed versions, below ~/.cache/millpond.
# Run as often as you like: what is there is left alone. Needs root only where Debian packages are missing.
set -euo pipefail

CACHE="${MILLPOND_CACHE:-$HOME/.cache/millpond}"
CONFLUENT_KAFKA=2.16.1
KAFKA_PYTHON=3.0.12
KAFKA_JAVA="${KAFKA_JAVA:-3.9.1}"
KAFKAJS=2.2.4
KAFKAJS_SNAPPY=1.1.0
mkdir -p "$CACHE"

say() { echo "clients: $*"; }

packages=()
command -v kcat >/dev/null || packages+=(kcat)
command -v java >/dev/null || packages+=(default-jre-headless)
command -v mvn >/dev/null || packages+=(maven)
command -v node >/dev/null || packages+=(nodejs)
command -v npm >/dev/null || packages+=(npm)
python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3-venv)
if [ ${#packages[@]} -gt 0 ]; then
    say "installing Debian packages: ${packages[*]}"
    as_root=(); [ "$(id -u)" = 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi

venv="$CACHE/venv"
python="confluent-kafka==$CONFLUENT_KAFKA kafka-python==$KAFKA_PYTHON python-snappy==0.7.3 lz4==4.4.5 zstandard==0.25.0"
if [ "$(cat "$venv/clients" 2>/dev/null)" != "$python" ]; then
    say "installing into $venv: $python"
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    # shellcheck disable=SC2086
    "$venv/bin/pip" install --quiet --disable-pip-version-check $python
    echo "$python" >"$venv/clients"
fi

node="$CACHE/node"
js="kafkajs@$KAFKAJS kafkajs-snappy@$KAFKAJS_SNAPPY"
if [ "$(cat "$node/clients" 2>/dev/null)" != "$js" ]; then
    say "installing into $node: $js"
    mkdir -p "$node"
    # shellcheck disable=SC2086
    (cd "$node" && { [ -f package.json ] || npm init -y >/dev/null 2>&1; } && npm install --silent --no-audit --no-fund $js)
    echo "$js" >"$node/clients"
fi

java="$CACHE/kafka/$KAFKA_JAVA"
if [ ! -f "$java/complete" ]; then
    say "installing the Java tools of Kafka $KAFKA_JAVA into $java"
    rm -rf "$java" && mkdir -p "$java"
    cat >"$java/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>millpond</groupId><artifactId>clients</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$KAFKA_JAVA</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$KAFKA_JAVA</version></dependency>
  </dependencies>
</project>
POM
    (cd "$java" && mvn --batch-mode --quiet org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
        -DoutputDirectory="$java/lib" -DincludeScope=runtime)
    touch "$java/complete"
fi
say "ready: kcat, confluent-kafka $CONFLUENT_KAFKA, kafka-python $KAFKA_PYTHON, Java $KAFKA_JAVA, kafkajs $KAFKAJS"
