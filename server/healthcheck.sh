#!/bin/bash
# Whether something answers 200: by default /readyz of the server, where ELMAN_METRICS_LISTEN says. For HEALTHCHECK and for
# probes that run a command. Not Python, whose start takes a hundred times as long; no proxy, no TLS, whatever the callers'
# port has.  Usage: elman-health [HOST:PORT [PATH]]
address=${1-$ELMAN_METRICS_LISTEN}
host=${address%:*}
case $host in
  0.0.0.0) host=127.0.0.1 ;;
  '[::]') host=::1 ;;
  '['*']') host=${host:1:-1} ;;
esac
exec 3<>"/dev/tcp/$host/${address##*:}" || exit 1
printf 'GET %s HTTP/1.0\r\nHost: %s\r\n\r\n' "${2-/readyz}" "$address" >&3
read -r -t 3 _ status _ <&3
[[ $status == 200 ]]
