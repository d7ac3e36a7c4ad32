#!/bin/sh
# Make what a server with TLS and tokens needs: scripts/certificates.sh FOLDER [HOST ...]
#
#   FOLDER/ca.pem, ca.key            the authority; kept if it is there
#   FOLDER/server/                   for the server alone: its certificate and key, the authority, access.toml
#   FOLDER/client.pem, client.key    a certificate of the principal `operator`, for mutual TLS
#   FOLDER/operator.token            a token of the same principal; kept if it is there
#
# The server is known by localhost, 127.0.0.1, ::1 and each HOST, a name or an address. Run it again to renew the
# certificates: a running server uses the new ones at once. Others on this machine cannot enter FOLDER; a container
# that mounts FOLDER/server can read what is there, as any user.
set -eu
umask 077
[ $# -ge 1 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2; }
folder=$1
shift
mkdir -p "$folder/server"
cd "$folder"
days=${DAYS:-90}

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

[ -e ca.pem ] || {
  key ca.key
  openssl req -x509 -key ca.key -days 3650 -subj "/CN=Elman authority" -out ca.pem \
    -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign
}

names=DNS:localhost,IP:127.0.0.1,IP:::1
for host in "$@"; do
  case $host in
    *[!0-9.]*) case $host in *:*) names=$names,IP:$host ;; *) names=$names,DNS:$host ;; esac ;;
    *) names=$names,IP:$host ;;
  esac
done

# Write NAME.key and NAME.pem: name, subject, extensions, mode. Both appear whole, the certificate last.
certify() {
  key "$1.key.new"
  openssl req -new -key "$1.key.new" -subj "$2" -out "$1.request"
  printf '%s\n' "$3" 'keyUsage=critical,digitalSignature' 'basicConstraints=critical,CA:FALSE' >"$1.extensions"
  openssl x509 -req -in "$1.request" -CA ca.pem -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" -days "$days" \
    -extfile "$1.extensions" -out "$1.pem.new" 2>/dev/null
  rm "$1.request" "$1.extensions"
  chmod "$4" "$1.key.new" "$1.pem.new"
  mv "$1.key.new" "$1.key"
  mv "$1.pem.new" "$1.pem"
}

certify client "/CN=operator" extendedKeyUsage=clientAuth 600
certify server/server "/CN=elman" "extendedKeyUsage=serverAuth
subjectAltName=$names" 644
cp ca.pem server/ca.pem

[ -e operator.token ] || openssl rand -hex 32 >operator.token
[ -e server/access.toml ] || cat >server/access.toml <<END
# Who may call, and how much: docs/security.md.
[principals.operator]
tokens = ["$(tr -d '\n' <operator.token | openssl dgst -sha256 -r | cut -d ' ' -f 1)"]
also = ["cert:CN=operator"]
scopes = ["read", "generate", "admin"]
END
chmod 755 server
chmod 644 server/ca.pem server/access.toml
