#!/usr/bin/env bash
# Real Kafka and Redis for the tests: `services.sh up | down | status`, called by `./dev services`.
#
# Everything lives under target/services; only loopback is listened on, on free ports, which tests
# read from target/services/env. `up` may be called by many at once and any number of times; `down`
# ends what `up` started and nothing else: a process is ours if its command line names our folder.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
here="$root/tests/services"
home="$root/target/services"
data="$home/data"
mkdir -p "$home"

install() { # install PACKAGE…: by Debian's package client
  local sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

need() { # need PROGRAM PACKAGE…: installs packages where a program is missing
  command -v "$1" >/dev/null || install "${@:2}"
}

need_python() { # with what the oracle's own environment is made of
  python3 -c 'import ensurepip, venv' 2>/dev/null || install python3 python3-venv
}

ours() { # ours NAME: prints the pid of our running service
  local pid; pid=$(cat "$home/$1.pid" 2>/dev/null) || return 1
  grep -qazF "$home" "/proc/$pid/cmdline" 2>/dev/null && echo "$pid"
}

free_port() { # below the ephemeral range, so that no client takes it in the meantime
  local port
  while port=$((20000 + RANDOM % 12000)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}

wait_for() { # wait_for NAME SECONDS COMMAND…: until the command holds, while our process lives
  local name=$1 deadline=$((SECONDS + $2))
  until "${@:3}" >/dev/null 2>&1; do
    if ! ours "$name" >/dev/null || [ $SECONDS -ge $deadline ]; then
      echo "error: $name did not start; the end of $home/$name.log:" >&2
      tail -n 20 "$home/$name.log" >&2
      exit 1
    fi
    sleep 0.05
  done
}

make_keys() { # a CA, and one server key for localhost that Kafka and Redis share
  local tls="$data/tls"; mkdir -p "$tls"
  openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=test-ca \
    -keyout "$tls/ca.key" -out "$tls/ca.crt" -addext basicConstraints=critical,CA:TRUE
  openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout "$tls/server.key" -out "$tls/server.csr"
  printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' >"$tls/names"
  openssl x509 -req -in "$tls/server.csr" -CA "$tls/ca.crt" -CAkey "$tls/ca.key" -CAcreateserial \
    -days 30 -extfile "$tls/names" -out "$tls/server.crt"
  cat "$tls/server.key" "$tls/server.crt" "$tls/ca.crt" >"$tls/server.pem"
}

start_kafka() {
  need java openjdk-17-jre-headless
  need mvn maven
  if [ ! -e "$home/libs/.complete" ]; then
    mvn -q -B -f "$here/pom.xml" -Dstyle.color=never dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$home/libs" >&2
    touch "$home/libs/.complete"
  fi
  local plain controller sasl
  plain=$(free_port) controller=$(free_port) sasl=$(free_port)
  sed "s|@PLAIN@|$plain|g; s|@CONTROLLER@|$controller|g; s|@SASL@|$sasl|g; s|@DATA@|$data|g" \
    "$here/kafka.properties" >"$data/kafka.properties"
  local java=(java -Xms128m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData
    "-Dlog4j2.configurationFile=$here/log4j2.properties" -cp "$home/libs/*")
  # The classes of the first run, archived when it ends, halve every later start.
  local archive=(-XX:ArchiveClassesAtExit="$home/kafka.jsa")
  if [ -e "$home/kafka.jsa" ]; then archive=(-XX:SharedArchiveFile="$home/kafka.jsa" -Xshare:auto -Xlog:disable); fi
  "${java[@]}" kafka.tools.StorageTool format -t MkU3OEVBNTcwNTJENDM2Qg -c "$data/kafka.properties" \
    --add-scram 'SCRAM-SHA-256=[name=scram,password=scram-secret]' \
    --add-scram 'SCRAM-SHA-512=[name=scram,password=scram-secret]' >"$home/kafka.log" 2>&1
  "${java[@]}" "${archive[@]}" kafka.Kafka "$data/kafka.properties" >>"$home/kafka.log" 2>&1 9>&- &
  echo $! >"$home/kafka.pid"
  wait_for kafka 90 grep -q 'Kafka Server started' "$home/kafka.log"
  printf '%s\n' "KAFKA_BROKERS=127.0.0.1:$plain" "KAFKA_SASL_BROKERS=localhost:$sasl" "KAFKA_CA=$data/tls/ca.crt" >>"$data/env"
}

start_redis() {
  need redis-server redis-server
  local port tls
  port=$(free_port) tls=$(free_port)
  cat >"$data/redis.conf" <<CONF
bind 127.0.0.1
port $port
tls-port $tls
tls-cert-file $data/tls/server.crt
tls-key-file $data/tls/server.key
tls-ca-cert-file $data/tls/ca.crt
tls-auth-clients no
dir $data
proc-title-template "redis-server $home"
save ""
appendonly no
maxmemory-policy noeviction
user materializer on >redis-secret ~* &* +@all -@admin -@dangerous +info
CONF
  redis-server "$data/redis.conf" >"$home/redis.log" 2>&1 9>&- &
  echo $! >"$home/redis.pid"
  wait_for redis 20 redis-cli -p "$port" ping
  printf '%s\n' "REDIS_URL=redis://127.0.0.1:$port" "REDIS_ACL_URL=redis://materializer:redis-secret@127.0.0.1:$port" \
    "REDIS_TLS_URL=rediss://localhost:$tls" "REDIS_CA=$data/tls/ca.crt" >>"$data/env"
}

stop() { # stop NAME
  local pid; pid=$(ours "$1") || { rm -f "$home/$1.pid"; return 0; }
  kill "$pid"
  while ours "$1" >/dev/null; do sleep 0.05; done
  rm -f "$home/$1.pid"
}

down() {
  rm -f "$home/env"
  stop kafka
  stop redis
}

up() {
  if [ -e "$home/env" ] && ours kafka >/dev/null && ours redis >/dev/null; then return; fi
  down
  rm -rf "$data" && mkdir -p "$data"
  need openssl openssl
  need_python
  make_keys 2>"$home/openssl.log"
  start_redis
  start_kafka
  mv "$data/env" "$home/env"
}

exec 9>"$home/lock"
flock 9
case "${1:-}" in
  up) up; cat "$home/env" ;;
  down) down ;;
  status) for name in kafka redis; do echo "$name: $(ours $name || echo stopped)"; done ;;
  *) echo "usage: ./dev services up | down | status" >&2; exit 2 ;;
esac
