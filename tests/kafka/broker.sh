#!/usr/bin/env bash
# A real Kafka for tests: fetches Apache Kafka from Maven Central and runs one broker or three on loopback, in KRaft mode.
#
#   broker.sh start   [--dir DIR] [--brokers 1|3] [--port BASE] [--secure] [--set KEY=VALUE]...
#   broker.sh start   [--dir DIR] --broker N      starts one again
#   broker.sh stop    [--dir DIR] [--keep]        ends all in order, and removes their data unless told to keep it
#   broker.sh stop    [--dir DIR] --broker N      ends one in order; its data stay
#   broker.sh kill    [--dir DIR] --broker N      SIGKILL
#   broker.sh pause   [--dir DIR] --broker N      SIGSTOP: connections stay open, nothing answers
#   broker.sh resume  [--dir DIR] --broker N      SIGCONT
#   broker.sh status  [--dir DIR]                 exit 0 if all answer, else 1
#   broker.sh tool    [--dir DIR] NAME ARGS...    one of Kafka's tools; `tool` alone lists them
#   broker.sh classpath | fetch
#
# DIR (${TMPDIR:-/tmp}/lapwing-kafka unless given) holds what a cluster is made of: its settings, and for each broker its
# pid, log and data. Clusters with directories and ports of their own run side by side. Ports, for broker N of BASE (19092):
#
#   BASE+N-1   PLAINTEXT    the user is ANONYMOUS, who may do everything
#   BASE+N+4   the controllers
#   with --secure:
#   BASE+N+9   SASL         SASL_PLAINTEXT with PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER (unsecured tokens)
#   BASE+N+19  TLS          asks for a client certificate, takes clients without
#   BASE+N+29  MTLS         refuses clients without a certificate
#   BASE+N+39  SASL_TLS     as SASL, in TLS
#
# stdout gets `key=value` lines and nothing else; `bootstrap=` is the last. Needs Linux, Java 17, Maven for the first start,
# and openssl for --secure. Environment: LAPWING_KAFKA_CACHE is where Kafka is fetched to, LAPWING_KAFKA_WAIT how many seconds
# a start waits, LAPWING_KAFKA_JAVA_OPTS are options for every Java process.
set -euo pipefail

version=4.4.0 # kafka_2.13 and kafka-tools of this version need Java 17
logger=1.7.36 # slf4j-simple, of the slf4j that this Kafka is built against
copier=3.8.1  # maven-dependency-plugin

cache="${LAPWING_KAFKA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lapwing/kafka-$version}"
patience="${LAPWING_KAFKA_WAIT:-90}" # seconds in which brokers have to answer
grace=15                             # seconds in which brokers have to end after SIGTERM
farewell=1                           # the same, where the data go away
java="${JAVA_HOME:+$JAVA_HOME/bin/}java"

say() { printf 'kafka: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

# ---- fetching

need_java() {
  command -v "$java" >/dev/null || die "java is missing: install Java 17 or newer (Debian: openjdk-17-jre-headless)"
  local major
  major="$("$java" -XshowSettings:properties -version 2>&1 | sed -n 's/^ *java\.specification\.version = //p')" || major=
  case "$major" in
    '' | 1.* | [0-9] | 1[0-6]) die "Kafka $version needs Java 17 or newer, $java is ${major:-of no known version}" ;;
  esac
}

pom() {
  cat <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>lapwing.tests</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>$logger</version></dependency>
  </dependencies>
</project>
XML
}

# Fills the cache once. All is fetched beside it and renamed, so that a half-fetched Kafka is never taken for a whole one,
# and of two that fetch at once the second finds the work done.
fetch() {
  [ ! -d "$cache" ] || return 0
  command -v mvn >/dev/null ||
    die "mvn is missing, which fetches Kafka $version on the first start: install Maven (Debian: maven)"
  say "fetching Kafka $version into $cache"
  mkdir -p "$(dirname "$cache")"
  local part
  part="$(mktemp -d "$cache.XXXXXX")"
  # shellcheck disable=SC2064 # the directory's name is wanted as it is now
  trap "rm -rf '$part'" EXIT
  pom >"$part/pom.xml"
  mvn -B -q -U -f "$part/pom.xml" "org.apache.maven.plugins:maven-dependency-plugin:$copier:copy-dependencies" \
    -DincludeScope=runtime -DoutputDirectory="$part/lib" >"$part/mvn.log" 2>&1 </dev/null || {
    grep -m 3 ERROR "$part/mvn.log" >&2 || tail -n 20 "$part/mvn.log" >&2
    die "Maven could not fetch Kafka $version; what it said is above"
  }
  [ -f "$part/lib/kafka_2.13-$version.jar" ] || die "Maven ended well, but brought no kafka_2.13-$version.jar"
  chmod 755 "$part"
  mv -T "$part" "$cache" 2>/dev/null || [ -d "$cache" ] || die "could not rename $part to $cache"
  rm -rf "$part"
  trap - EXIT
}

run_java() { # heap, log level, arguments...
  local heap=$1 level=$2
  shift 2
  # The quick compiler alone: brokers are up sooner and leave the processors to what is being tested.
  # shellcheck disable=SC2086 # several options may stand in the variable
  exec "$java" "-Xmx$heap" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData -XX:+ExitOnOutOfMemoryError \
    -Djava.awt.headless=true -Dorg.slf4j.simpleLogger.showDateTime=true -Dorg.slf4j.simpleLogger.showThreadName=false \
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS" \
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=$level" ${LAPWING_KAFKA_JAVA_OPTS:-} -cp "$cache/lib/*" "$@"
}

# ---- a cluster's settings, which stay in its directory

brokers='' port='' secure='' id='' sets=()

load() {
  [ -f "$dir/cluster" ] || return 1
  local key value
  while IFS='=' read -r key value; do
    case "$key" in
      brokers) brokers=$value ;;
      port) port=$value ;;
      secure) secure=$value ;;
      id) id=$value ;;
      set) sets+=("$value") ;;
    esac
  done <"$dir/cluster"
}

loaded() { load || die "no cluster in $dir: 'broker.sh start' makes one"; }

save() {
  {
    printf '%s\n' "brokers=$brokers" "port=$port" "secure=$secure" "id=$id"
    [ "${#sets[@]}" = 0 ] || printf 'set=%s\n' "${sets[@]}"
  } >"$dir/cluster.new"
  mv "$dir/cluster.new" "$dir/cluster"
}

# Takes what was asked for, where a cluster is kept what is known of it, and the defaults for the rest.
settle() {
  local asked_brokers=$brokers asked_port=$port asked_secure=$secure asked_sets=("${sets[@]}")
  sets=()
  if load; then
    local other="a cluster is kept in $dir with"
    local way="end it with 'stop', or give another --dir"
    [ "${asked_brokers:-$brokers}" = "$brokers" ] || die "$other brokers=$brokers, not $asked_brokers: $way"
    [ "${asked_port:-$port}" = "$port" ] || die "$other port=$port, not $asked_port: $way"
    [ "${asked_secure:-$secure}" = "$secure" ] || die "$other secure=$secure, not $asked_secure: $way"
    if [ "${#asked_sets[@]}" != 0 ] && [ "${asked_sets[*]}" != "${sets[*]}" ]; then
      [ "$(running)" = 0 ] || die "the cluster in $dir runs with other --set: $way"
      sets=("${asked_sets[@]}")
    fi
  else
    brokers="${brokers:-1}" port="${port:-19092}" secure="${secure:-no}" sets=("${asked_sets[@]}")
    # A UUID as Kafka writes it. One that begins with a dash would be taken for an option.
    id="$(head -c 15 /dev/urandom | base64 | tr '+/' '__')"
    id="A${id}A" # 22 characters, of which the last carries four spare bits that must be zero
  fi
  save
}

listed() { seq 1 "$brokers"; }

addresses() { # offset from the base port
  local n all=''
  for n in $(listed); do all+="${all:+,}127.0.0.1:$((port + $1 + n - 1))"; done
  printf '%s' "$all"
}

# ---- what a broker is told

plain_module=org.apache.kafka.common.security.plain.PlainLoginModule
scram_module=org.apache.kafka.common.security.scram.ScramLoginModule
oauth_module=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule
user=lapwing password=lapwing-secret

properties() { # broker
  local n=$1 voters='' v most=$brokers
  for v in $(listed); do voters+="${voters:+,}$v@127.0.0.1:$((port + 5 + v - 1))"; done
  [ "$most" -lt 3 ] || most=2
  cat <<CONF
process.roles=broker,controller
node.id=$n
controller.quorum.voters=$voters
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners=$(listeners "$n")
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL,MTLS:SSL,SASL_TLS:SASL_SSL
log.dirs=$dir/broker-$n/data
broker.rack=rack-$n
replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector

# A mistyped or matched-too-much topic name must fail rather than make a topic.
auto.create.topics.enable=false
num.partitions=3
default.replication.factor=$brokers
min.insync.replicas=$most
offsets.topic.num.partitions=5
offsets.topic.replication.factor=$brokers
transaction.state.log.num.partitions=3
transaction.state.log.replication.factor=$brokers
transaction.state.log.min.isr=$most
share.coordinator.state.topic.num.partitions=3
share.coordinator.state.topic.replication.factor=$brokers
share.coordinator.state.topic.min.isr=$most

# Groups: no wait for further members, and timeouts as short as a test wants them. Both protocols are on unless told otherwise.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=10000
group.consumer.min.heartbeat.interval.ms=200
group.consumer.heartbeat.interval.ms=1000

# What Kafka does in minutes happens in seconds: retention, compaction, the end of transactions, the loss of a broker.
log.initial.task.delay.ms=500
log.retention.check.interval.ms=1000
log.segment.delete.delay.ms=1000
log.cleaner.backoff.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=4000
replica.lag.time.max.ms=5000

# A small process.
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=4194304
log.cleaner.io.buffer.size=131072
log.index.size.max.bytes=1048576
num.network.threads=2
num.io.threads=4
background.threads=2
CONF
  [ "$secure" = no ] || secure_properties
  [ "${#sets[@]}" = 0 ] || printf '%s\n' "${sets[@]}"
}

listeners() { # broker
  local at=$((port + $1 - 1))
  printf '%s' "PLAINTEXT://127.0.0.1:$at,CONTROLLER://127.0.0.1:$((at + 5))"
  [ "$secure" = no ] || printf ',%s://127.0.0.1:%s' \
    SASL $((at + 10)) TLS $((at + 20)) MTLS $((at + 30)) SASL_TLS $((at + 40))
}

# Who comes by PLAINTEXT, as brokers do themselves, may do all; for the others the ACLs of what has any hold.
secure_properties() {
  cat <<CONF

authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
super.users=User:ANONYMOUS
ssl.keystore.type=PEM
ssl.keystore.location=$dir/secure/server.keystore.pem
ssl.truststore.type=PEM
ssl.truststore.location=$dir/secure/ca.pem
ssl.principal.mapping.rules=RULE:^CN=([^,]+).*\$/\$1/,DEFAULT
listener.name.tls.ssl.client.auth=requested
listener.name.mtls.ssl.client.auth=required
listener.name.sasl_tls.ssl.client.auth=none
CONF
  local listener
  for listener in sasl sasl_tls; do
    cat <<CONF
listener.name.$listener.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.$listener.plain.sasl.jaas.config=$plain_module required user_$user="$password";
listener.name.$listener.scram-sha-256.sasl.jaas.config=$scram_module required;
listener.name.$listener.scram-sha-512.sasl.jaas.config=$scram_module required;
listener.name.$listener.oauthbearer.sasl.jaas.config=$oauth_module required unsecuredLoginStringClaim_sub="$user";
CONF
  done
}

# ---- certificates, and settings for clients

authority() { # file stem
  openssl req -x509 -config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 -days 365 \
    -subj "/CN=Lapwing tests' $1" -keyout "$1.key" -out "$1.pem" 2>>openssl.log
}

certificate() { # file stem, subject, authority, extensions...
  local stem=$1 subject=$2 authority=$3
  shift 3
  openssl req -new -config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 -subj "$subject" \
    -keyout "$stem.key" -out "$stem.csr" 2>>openssl.log
  openssl x509 -req -sha256 -days 365 -in "$stem.csr" -CA "$authority.pem" -CAkey "$authority.key" -CAcreateserial \
    -extfile <(printf '%s\n' basicConstraints=critical,CA:FALSE keyUsage=critical,digitalSignature "$@") \
    -out "$stem.pem" 2>>openssl.log
  rm "$stem.csr"
}

# A CA with a server's and a client's certificate, and another CA with a client's certificate, to be refused.
certificates() (
  command -v openssl >/dev/null || die "openssl is missing, which makes the certificates for --secure: install openssl"
  umask 077
  rm -rf "$dir/secure"
  mkdir "$dir/secure"
  cd "$dir/secure"
  trap '[ $? = 0 ] || { tail -n 20 openssl.log >&2; say "openssl made no certificates; its last lines are above"; }' EXIT
  printf '%s\n' '[req]' distinguished_name=dn x509_extensions=ca '[dn]' '[ca]' basicConstraints=critical,CA:TRUE \
    keyUsage=critical,keyCertSign subjectKeyIdentifier=hash >openssl.cnf
  authority ca
  authority other-ca
  certificate server /CN=localhost ca extendedKeyUsage=serverAuth subjectAltName=DNS:localhost,IP:127.0.0.1
  certificate client "/CN=$user" ca extendedKeyUsage=clientAuth
  certificate other-client "/CN=$user" other-ca extendedKeyUsage=clientAuth
  cat server.key server.pem ca.pem >server.keystore.pem
  cat client.key client.pem ca.pem >client.keystore.pem
  client_properties
)

# What Kafka's own tools take with --command-config, for each way in.
client_properties() {
  local trust="ssl.truststore.type=PEM
ssl.truststore.location=$dir/secure/ca.pem"
  local login="required username=\"$user\" password=\"$password\";" mechanism module
  printf '%s\n' security.protocol=SSL "$trust" >tls.properties
  printf '%s\n' security.protocol=SSL "$trust" ssl.keystore.type=PEM \
    "ssl.keystore.location=$dir/secure/client.keystore.pem" >mtls.properties
  for mechanism in PLAIN SCRAM-SHA-256 SCRAM-SHA-512 OAUTHBEARER; do
    case "$mechanism" in
      PLAIN) module="$plain_module $login" ;;
      OAUTHBEARER) module="$oauth_module required unsecuredLoginStringClaim_sub=\"$user\";" ;;
      *) module="$scram_module $login" ;;
    esac
    printf '%s\n' security.protocol=SASL_PLAINTEXT "sasl.mechanism=$mechanism" "sasl.jaas.config=$module" \
      >"sasl-$mechanism.properties"
    printf '%s\n' security.protocol=SASL_SSL "sasl.mechanism=$mechanism" "sasl.jaas.config=$module" "$trust" \
      >"sasl-tls-$mechanism.properties"
  done
}

# ---- processes

# The pid of broker N, if the process is still that broker: a pid that was left behind may be another's by now. A process
# that ended has no command line any more, even while nobody has waited for it.
pid_of() { # broker
  local pid
  pid="$(cat "$dir/broker-$1/pid" 2>/dev/null)" && [ -n "$pid" ] || return 1
  grep -zqxsF "$dir/broker-$1/server.properties" "/proc/$pid/cmdline" || return 1
  printf '%s' "$pid"
}

running() {
  local n count=0
  for n in $(listed); do
    if pid_of "$n" >/dev/null; then count=$((count + 1)); fi
  done
  printf '%s' "$count"
}

# Asks a broker, in Kafka's own protocol, how many brokers it knows to be alive: a Metadata request (key 3, version 1,
# correlation 1, no client id, no topics). The answer is its length, the correlation, and the number of brokers. That says
# more than an open port, and costs no further Java process.
known_to() { # broker
  local at=$((port + $1 - 1)) socket bytes
  trap '' PIPE # a broker that dies just now must not take this script along; callers run this in a subshell
  { exec {socket}<>"/dev/tcp/127.0.0.1/$at"; } 2>/dev/null || return 1
  printf '\0\0\0\016\0\003\0\001\0\0\0\001\377\377\0\0\0\0' >&"$socket"
  read -ra bytes < <(timeout 3 head -c 12 <&"$socket" | od -An -v -tu1)
  exec {socket}>&-
  [ "${#bytes[@]}" = 12 ] || return 1
  printf '%s' "${bytes[11]}"
}

ports_are_free() { # broker
  local listener at owner
  for listener in $(listeners "$1" | tr ',' ' '); do
    at="${listener##*:}"
    if (: <>"/dev/tcp/127.0.0.1/$at") 2>/dev/null; then
      owner="$(ss -Hltnp "sport = :$at" 2>/dev/null | sed -n 's/.*users:((\(.*\)))/ by \1/p' | head -n 1)" ||
        owner=''
      die "port $at of 127.0.0.1 (${listener%%:*} of broker $1) is in use$owner: end that, or give another --port"
    fi
  done
}

format() { # broker
  local home="$dir/broker-$1" scram=()
  [ ! -f "$home/data/meta.properties" ] || return 0
  [ "$secure" = no ] || scram=(--add-scram "SCRAM-SHA-256=[name=$user,password=$password]"
    --add-scram "SCRAM-SHA-512=[name=$user,password=$password]")
  (run_java 128m warn kafka.tools.StorageTool format -t "$id" -c "$home/server.properties" "${scram[@]}") \
    >"$home/format.log" 2>&1 9>&- && return
  tail -n 20 "$home/format.log" >&2
  die "the storage of broker $1 could not be formatted; the last lines of $home/format.log are above"
}

launch() { # broker
  local home="$dir/broker-$1"
  [ ! -f "$home/log" ] || mv "$home/log" "$home/log.before"
  # Kafka tells of hundreds of settings when it starts, which nobody reads.
  (cd "$home" && LAPWING_KAFKA_JAVA_OPTS="-Xms96m -Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn \
    -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaConfig=warn ${LAPWING_KAFKA_JAVA_OPTS:-}" &&
    trap '' HUP INT && run_java 384m info kafka.Kafka "$home/server.properties") \
    </dev/null >"$home/log" 2>&1 9>&- &
  local pid=$!
  echo "$pid" >"$home/pid"
  # It is this script at first, and known as a broker when it has become Java. One that is gone by then, `await` tells of.
  until pid_of "$1" >/dev/null || ! kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
}

# Waits until each of the brokers answers and knows all the others and those that answered before. One that died meanwhile
# ends the wait.
await() { # brokers...
  local n known all=$# deadline=$((SECONDS + patience))
  for n in $(listed); do
    case " $* " in *" $n "*) continue ;; esac
    if known="$(known_to "$n")"; then all=$((all + 1)); fi
  done
  for n in "$@"; do
    until known="$(known_to "$n")" && [ "$known" -ge "$all" ]; do
      if ! pid_of "$n" >/dev/null; then
        tail -n 40 "$dir/broker-$n/log" >&2
        die "broker $n ended while it started; the last lines of $dir/broker-$n/log are above"
      fi
      [ "$SECONDS" -lt "$deadline" ] ||
        die "broker $n did not answer within $patience s (LAPWING_KAFKA_WAIT): see $dir/broker-$n/log"
      sleep 0.1
    done
  done
}

end() { # signal, seconds until SIGKILL, brokers...
  local signal=$1 seconds=$2 n pid deadline=$((SECONDS + $2))
  shift 2
  for n in "$@"; do
    if pid="$(pid_of "$n")"; then
      kill "-$signal" "$pid" 2>/dev/null || true
      kill -CONT "$pid" 2>/dev/null || true # one that is paused ends too
    fi
  done
  for n in "$@"; do
    while pid="$(pid_of "$n")"; do
      if [ "$SECONDS" -ge "$deadline" ]; then
        [ "$seconds" -lt "$grace" ] || say "broker $n did not end within $seconds s, and is killed"
        kill -KILL "$pid" 2>/dev/null || true
      fi
      sleep 0.05
    done
    rm -f "$dir/broker-$n/pid"
  done
}

# ---- commands

only='' keep=no

options() { # the command line after the command; what is left over stands in `rest`
  rest=()
  dir="${TMPDIR:-/tmp}/lapwing-kafka"
  while [ $# -gt 0 ]; do
    case "$1" in
      --dir | --brokers | --port | --broker | --set) [ $# -gt 1 ] || die "$1 needs a value" ;;
    esac
    case "$1" in
      --dir) dir=$2 && shift ;;
      --brokers) brokers=$2 && shift ;;
      --port) port=$2 && shift ;;
      --broker) only=$2 && shift ;;
      --set) sets+=("$2") && shift ;;
      --secure) secure=yes ;;
      --keep) keep=yes ;;
      -*) die "no option $1: 'broker.sh help' tells which there are" ;;
      *) rest=("$@") && break ;;
    esac
    shift
  done
  case "$brokers" in '' | 1 | 3) ;; *) die "--brokers is 1 or 3, not $brokers" ;; esac
  case "$port" in *[!0-9]*) die "--port is a number, not $port" ;; esac
  [ -z "$port" ] || { [ "$port" -ge 1 ] && [ "$port" -le 65490 ]; } || die "--port is from 1 to 65490, not $port"
  dir="$(realpath -m "$dir")"
}

# One command at a time changes a cluster, so that two tests may ask for the same one at once.
lock() {
  until [ "$dir/lock" -ef /proc/self/fd/9 ]; do # a stop that came before took the lock's file away
    mkdir -p "$dir"
    exec 9>"$dir/lock"
    flock -w 300 9 || die "another broker.sh has been at work on $dir for five minutes"
  done
}

one() { # a command that needs --broker
  loaded
  [ -n "$only" ] || die "$1 needs --broker N"
  known_broker
}

known_broker() {
  case "$only" in
    [1-"$brokers"]) ;;
    *) die "no broker $only: the cluster in $dir has 1 to $brokers" ;;
  esac
}

start() {
  need_java
  fetch
  if [ -n "$only" ]; then
    [ -z "$brokers$port$secure${sets[*]}" ] || die "start --broker takes the cluster's own settings: give --dir alone"
    one start
    lock
  else
    lock
    settle
  fi
  local n job jobs=() wanted started=()
  read -ra wanted <<<"${only:-$(listed | tr '\n' ' ')}"
  for n in "${wanted[@]}"; do pid_of "$n" >/dev/null || started+=("$n"); done
  for n in "${started[@]}"; do ports_are_free "$n"; done
  [ "$secure" = no ] || [ -f "$dir/secure/client.keystore.pem" ] || certificates
  for n in "${started[@]}"; do
    mkdir -p "$dir/broker-$n"
    properties "$n" >"$dir/broker-$n/server.properties"
    format "$n" &
    jobs+=("$!")
  done
  for job in "${jobs[@]}"; do wait "$job"; done
  # shellcheck disable=SC2064 # the brokers that were started here
  trap "end TERM $grace ${started[*]}" EXIT # a start that fails leaves nothing running
  for n in "${started[@]}"; do launch "$n"; done
  await "${wanted[@]}"
  trap - EXIT
  tell
}

tell() {
  if [ "$secure" = yes ]; then
    local s="$dir/secure"
    printf '%s\n' "sasl=$(addresses 10)" "tls=$(addresses 20)" "mtls=$(addresses 30)" "sasl_tls=$(addresses 40)" \
      "user=$user" "password=$password" "ca=$s/ca.pem" "client_certificate=$s/client.pem" "client_key=$s/client.key" \
      "other_ca=$s/other-ca.pem" "other_client_certificate=$s/other-client.pem" "other_client_key=$s/other-client.key" \
      "properties=$s"
  fi
  printf '%s\n' "dir=$dir" "bootstrap=$(addresses 0)"
}

stop() {
  [ -f "$dir/cluster" ] || { say "no cluster in $dir"; return; }
  lock
  loaded
  if [ -n "$only" ]; then
    known_broker
    end TERM "$grace" "$only"
    return
  fi
  # The last of three would wait five seconds for the others, to hand over what nobody will read.
  if [ "$keep" = yes ]; then
    # shellcheck disable=SC2046 # one word for each broker
    end TERM "$grace" $(listed)
  else
    # shellcheck disable=SC2046 # one word for each broker
    end TERM "$farewell" $(listed)
    forget
  fi
}

# Removes what this script made and nothing else.
forget() {
  local n
  for n in $(listed); do rm -rf "$dir/broker-$n"; done
  rm -rf "$dir/secure"
  rm -f "$dir/cluster" "$dir/lock"
  rmdir "$dir" 2>/dev/null || say "$dir holds other files, and stays"
}

signal() { # signal
  local pid
  pid="$(pid_of "$only")" || die "broker $only does not run"
  kill "-$1" "$pid"
}

status() {
  loaded
  local n pid known state code=0
  for n in $(listed); do
    state=stopped known=0 pid=-
    if pid="$(pid_of "$n")"; then
      state=silent
      if known="$(known_to "$n")"; then state=answers; fi
    fi
    [ "$state" = answers ] || code=1
    printf 'broker=%s state=%s pid=%s knows=%s memory_kib=%s address=%s\n' \
      "$n" "$state" "${pid:--}" "${known:-0}" "$(memory "$pid")" "127.0.0.1:$((port + n - 1))"
  done
  tell
  return "$code"
}

memory() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$1/status" 2>/dev/null || echo 0; }

tools='acls                 org.apache.kafka.tools.AclCommand
broker-api-versions  org.apache.kafka.tools.BrokerApiVersionsCommand
configs              org.apache.kafka.tools.ConfigCommand
console-consumer     org.apache.kafka.tools.consumer.ConsoleConsumer
console-producer     org.apache.kafka.tools.ConsoleProducer
consumer-groups      org.apache.kafka.tools.consumer.group.ConsumerGroupCommand
consumer-perf-test   org.apache.kafka.tools.ConsumerPerformance
delete-records       org.apache.kafka.tools.DeleteRecordsCommand
dump-log             org.apache.kafka.tools.DumpLogSegments
features             org.apache.kafka.tools.FeatureCommand
get-offsets          org.apache.kafka.tools.GetOffsetShell
groups               org.apache.kafka.tools.GroupsCommand
leader-election      org.apache.kafka.tools.LeaderElectionCommand
log-dirs             org.apache.kafka.tools.LogDirsCommand
metadata-quorum      org.apache.kafka.tools.MetadataQuorumCommand
producer-perf-test   org.apache.kafka.tools.ProducerPerformance
reassign-partitions  org.apache.kafka.tools.reassign.ReassignPartitionsCommand
topics               org.apache.kafka.tools.TopicCommand
transactions         org.apache.kafka.tools.TransactionsCommand'

tool() { # name, arguments...
  if [ $# = 0 ]; then
    printf '%s\n' "$tools"
    return
  fi
  local name=$1 class where=()
  shift
  class="$(awk -v name="$name" '$1 == name { print $2 }' <<<"$tools")"
  [ -n "$class" ] || die "no tool $name: 'broker.sh tool' lists them"
  # An address that is given wins: one of the secure listeners, or one broker.
  case " $name $* " in
    *' --bootstrap-server'* | *' --bootstrap-controller'* | ' dump-log '*) ;;
    *)
      loaded
      where=(--bootstrap-server "$(addresses 0)")
      ;;
  esac
  need_java
  fetch
  run_java 256m warn "$class" "${where[@]}" "$@"
}

main() {
  local command="${1:-help}"
  [ $# = 0 ] || shift
  options "$@"
  [ "$command" = tool ] || [ "${#rest[@]}" = 0 ] || die "what is ${rest[0]}? 'broker.sh help' tells how to call this"
  case "$command" in
    start) start ;;
    stop) stop ;;
    kill) one kill; lock; end KILL "$grace" "$only" ;;
    pause) one pause; signal STOP ;;
    resume) one resume; signal CONT ;;
    status) status ;;
    tool) tool "${rest[@]}" ;;
    fetch) need_java; fetch ;;
    classpath) need_java; fetch; printf '%s\n' "$cache/lib/*" ;;
    help | --help | -h) sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" ;;
    *) die "no command $command: 'broker.sh help' tells which there are" ;;
  esac
}

main "$@"
