#!/usr/bin/env bash
# Write the Python code of proto/elman/v1 beside the .proto files. Run by `make proto`.
set -euo pipefail
cd "$(dirname "$0")"
python -m grpc_tools.protoc -I. --python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. elman/v1/*.proto
