#!/bin/bash
# Whether the server is ready: asks /readyz where ELMAN_METRICS_LISTEN says. For the image's HEALTHCHECK and for probes that
# run a command. Not Python, whose start takes a hundred times as long; no proxy, no TLS, whatever the callers' port has.
host=${ELMAN_METRICS_LISTEN%:*}
case $host in
  0.0.0.0) host=127.0.0.1 ;;
  '[::]') host=::1 ;;
  '['*']') host=${host:1:-1} ;;
esac
exec 3<>"/dev/tcp/$host/${ELMAN_METRICS_LISTEN##*:}" || exit 1
printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3
read -r -t 3 _ status _ <&3
[[ $status == 200 ]]
