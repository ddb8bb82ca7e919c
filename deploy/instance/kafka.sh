# shellcheck shell=bash
# Sourced by the scripts that speak Kafka's own protocol: where the cluster is, and how its tools are run.
#
#   KAFKA_BOOTSTRAP_SERVERS    host:port, comma separated; default: what the instance was made with
#   KAFKA_CLIENT_PROPERTIES    security settings; default: /etc/penstock/client.properties, if it is there
#   KAFKA_LIBS                 the folder of Kafka's jars; default: /opt/kafka/libs

if [ -z "${KAFKA_BOOTSTRAP_SERVERS:-}" ] && [ -r /etc/penstock/instance.env ]; then
  # shellcheck source=/dev/null
  . /etc/penstock/instance.env
fi
: "${KAFKA_BOOTSTRAP_SERVERS:?where is Kafka? host:port, comma separated}"

kafka_config=()
kafka_properties=${KAFKA_CLIENT_PROPERTIES:-/etc/penstock/client.properties}
[ ! -r "$kafka_properties" ] || kafka_config=("$kafka_properties")

# The class of a tool, what it calls its file of settings, and its arguments.
kafka_tool() {
  local class=$1 option=$2
  shift 2
  java -cp "${KAFKA_LIBS:-/opt/kafka/libs}/*" "org.apache.kafka.tools.$class" \
    --bootstrap-server "$KAFKA_BOOTSTRAP_SERVERS" ${kafka_config[0]:+"$option" "${kafka_config[0]}"} "$@"
}
