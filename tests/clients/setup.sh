#!/usr/bin/env bash
# Installs the Kafka clients that the tests of the protocol use, in fixed versions, below ~/.cache/millpond, and compiles
# the test programs. Run as often as you like: what is there is left alone, what earlier versions of this script left is
# removed, so that no test can lean on it. Needs root only where Debian packages are missing. What cannot be had ends it
# with the reason: no client is left out in silence.
set -euo pipefail

CACHE="${MILLPOND_CACHE:-$HOME/.cache/millpond}"
KAFKA_ALL="3.7.2 4.1.2"
CONFLUENT_KAFKA=2.16.1
KAFKA_PYTHON=3.0.12
AIOKAFKA=0.14.0
KAFKA="${KAFKA_JAVA:-$KAFKA_ALL}"
FLINK=2.2.1
FLINK_KAFKA=5.0.0-2.2
KAFKAJS=2.2.4
KAFKAJS_SNAPPY=1.1.0
PLATFORMATIC=2.12.1
NODE=22.22.0 # for that; Debian's is older
GO=1.26.0
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
mkdir -p "$CACHE"

say() { echo "clients: $*"; }
trap 'say "FAILED at line $LINENO: a client could not be had (see above); nothing is tested without it"' ERR

packages=()
command -v kcat >/dev/null || packages+=(kcat)
command -v javac >/dev/null || packages+=(default-jdk-headless)
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
python="confluent-kafka==$CONFLUENT_KAFKA kafka-python==$KAFKA_PYTHON aiokafka==$AIOKAFKA cramjam==2.14.0 python-snappy==0.7.3 lz4==4.4.5 zstandard==0.25.0"
# What its serializers need, by name: its extras ask for versions that are not always there.
python+=" fastavro==1.13.1 httpx==0.28.1 Authlib==1.9.8 cachetools==8.0.0 attrs==26.1.0 certifi==2026.10.18 jsonschema==4.26.0 protobuf==7.36.2 googleapis-common-protos==1.76.0 orjson==3.13.0 requests==2.34.2"
if [ "$(cat "$venv/clients" 2>/dev/null)" != "$python" ]; then
    say "installing into $venv: $python"
    rm -rf "$venv" && python3 -m venv "$venv"
    # shellcheck disable=SC2086
    "$venv/bin/pip" install --quiet --disable-pip-version-check $python
    echo "$python" >"$venv/clients"
fi

node="$CACHE/node"
case $(uname -m) in aarch64) architecture=arm64 ;; *) architecture=x64 ;; esac
js="kafkajs@$KAFKAJS kafkajs-snappy@$KAFKAJS_SNAPPY @platformatic/kafka@$PLATFORMATIC node-linux-$architecture@$NODE"
if [ "$(cat "$node/clients" 2>/dev/null)" != "$js" ]; then
    say "installing into $node: $js"
    rm -rf "$node" && mkdir -p "$node"
    # shellcheck disable=SC2086
    (cd "$node" && npm init -y >/dev/null 2>&1 && npm install --silent --no-audit --no-fund $js)
    echo "$js" >"$node/clients"
fi

# jars FOLDER GROUP:ARTIFACT:VERSION...: these and what they need, from Maven Central.
jars() {
    local folder="$1" one group artifact version; shift
    [ "$(cat "$folder/complete" 2>/dev/null)" != "$*" ] || return 0
    say "installing into $folder: $*"
    rm -rf "$folder" && mkdir -p "$folder"
    {
        echo '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        echo '<groupId>millpond</groupId><artifactId>clients</artifactId><version>1</version><packaging>pom</packaging><dependencies>'
        for one in "$@"; do
            IFS=: read -r group artifact version <<<"$one"
            echo "<dependency><groupId>$group</groupId><artifactId>$artifact</artifactId><version>$version</version></dependency>"
        done
        echo '</dependencies></project>'
    } >"$folder/pom.xml"
    (cd "$folder" && mvn --batch-mode --quiet org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
        -DoutputDirectory="$folder/lib" -DincludeScope=runtime)
    echo "$*" >"$folder/complete"
}
# compile NAME LIB SOURCE...
compile() {
    local name="$1" lib="$2" sum; shift 2
    sum="$(cat "$@" | sha256sum) $lib"
    [ "$(cat "$CACHE/java/$name/complete" 2>/dev/null)" != "$sum" ] || return 0
    rm -rf "${CACHE:?}/java/$name" && mkdir -p "$CACHE/java/$name"
    javac -Xlint:-options -d "$CACHE/java/$name" -cp "$lib/*" "$@"
    echo "$sum" >"$CACHE/java/$name/complete"
}
for version in $KAFKA; do
    k=org.apache.kafka wanted="$k:kafka_2.13:$version $k:kafka-tools:$version" sources=("$HERE"/java/{Tools,Clients}.java)
    # Releases before 4.0 bring a logger of their own.
    case $version in
    3.*) ;;
    *)
        for name in kafka-streams connect-runtime connect-file connect-mirror; do wanted+=" $k:$name:$version"; done
        wanted+=" org.slf4j:slf4j-simple:1.7.36" sources+=("$HERE"/java/{Streams,Wire}.java)
        ;;
    esac
    # shellcheck disable=SC2086
    jars "$CACHE/kafka/$version" $wanted
    compile "$version" "$CACHE/kafka/$version/lib" "${sources[@]}"
done
f=org.apache.flink
jars "$CACHE/flink/$FLINK" $f:flink-connector-kafka:$FLINK_KAFKA $f:flink-connector-base:$FLINK $f:flink-streaming-java:$FLINK \
    $f:flink-clients:$FLINK $f:flink-runtime:$FLINK org.slf4j:slf4j-simple:1.7.36
compile "flink-$FLINK" "$CACHE/flink/$FLINK/lib" "$HERE/java/Flink.java"

# only FOLDER NAME...: removes whatever else is in it.
only() {
    local folder="$1" one; shift
    for one in "$folder"/*; do
        [ ! -e "$one" ] || [[ " $* " == *" ${one##*/} "* ]] || { say "removing $one, which nothing asks for" && rm -rf "$one"; }
    done
}
# shellcheck disable=SC2086
only "$CACHE/kafka" $KAFKA_ALL $KAFKA
# shellcheck disable=SC2086
only "$CACHE/java" $KAFKA_ALL $KAFKA "flink-$FLINK"
only "$CACHE/flink" "$FLINK"

# A Go that can read go.mod of today fetches the rest itself; Debian's may be too old for that.
go="$(command -v go || true)"
if ! { [ -n "$go" ] && "$go" version | grep -qE 'go1\.(2[1-9]|[3-9][0-9])'; }; then
    go="$CACHE/goroot/go/bin/go"
    if [ ! -x "$go" ]; then
        say "installing Go $GO into $CACHE/goroot"
        mkdir -p "$CACHE/goroot"
        curl -sSf --max-time 300 "https://go.dev/dl/go$GO.linux-$(dpkg --print-architecture).tar.gz" | tar -xz -C "$CACHE/goroot"
    fi
fi
go_clients="franz sarama segmentio"
# shellcheck disable=SC2086
only "$CACHE/go" $go_clients
# shellcheck disable=SC2086
(cd "$HERE/go" && GOFLAGS=-mod=readonly "$go" build -o "$CACHE/go/" $(printf "./%s " $go_clients))

say "ready: kcat, confluent-kafka $CONFLUENT_KAFKA, kafka-python $KAFKA_PYTHON, aiokafka $AIOKAFKA, kafkajs $KAFKAJS, @platformatic/kafka $PLATFORMATIC, Java $KAFKA, Flink $FLINK," \
    "$(cd "$HERE/go" && sed -nE 's/^\t[^ ]*\/(franz-go|sarama|kafka-go) (v[^ ]+)$/\1 \2/p' go.mod | paste -sd, | sed 's/,/, /')"
