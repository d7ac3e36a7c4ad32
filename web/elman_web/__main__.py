"""The command `elman-web`: where the server is, where to listen, then serve until a signal."""

import logging
import signal
import sys
from typing import Any

import click

try:
    import fastapi  # noqa: F401 - only whether it is there
    import uvicorn

    from elman_client import ElmanError
    from elman_web.app import build
    from elman_web.settings import Settings
except ModuleNotFoundError as error:  # the client alone was installed
    if (error.name or "").startswith("elman"):
        raise
    sys.exit(f"elman-web: {error.name} is not installed; run: pip install 'elman[web]'")


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "ELMAN_WEB", "show_default": True},
    epilog="""\b
Examples:
  elman-web
  elman-web --target elman.example.org:443 --tls --listen 0.0.0.0:8080 --allowed-host elman-web.example.org
  curl -N localhost:8080/v1/completions -H 'content-type: application/json' \\
    -d '{"model": "shakespeare", "prompt": "ROMEO:", "max_tokens": 200, "stream": true}'

Every option is a variable too: ELMAN_WEB_TARGET and so on. docs/web.md describes page and door.""",
)
@click.option("--target", default=Settings.target, metavar="HOST:PORT", help="The gRPC server.")
@click.option(
    "--listen", default=Settings.listen, metavar="HOST:PORT", help="Where to serve the page; port 0: a free one."
)
@click.option("--tls", is_flag=True, help="Encrypt the connection to the server, and check its certificate.")
@click.option("--root-certificates", type=click.Path(exists=True, dir_okay=False), help="PEM file to check it against.")
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    show_default=False,
    help="A name under which browsers may reach this, besides loopback and --listen's; * for any.",
)
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    show_default=False,
    help="A site such as https://example.org whose pages may call this door.",
)
@click.option(
    "--max-body-bytes", type=click.IntRange(1024), default=Settings.max_body_bytes, help="Largest request body."
)
@click.option(
    "--max-streams", type=click.IntRange(1), default=Settings.max_streams, help="Requests that may run at once."
)
@click.option(
    "--write-seconds",
    type=click.FloatRange(0.1),
    default=Settings.write_seconds,
    help="How long a stream waits for a reader that does not read.",
)
@click.version_option(package_name="elman")
def main(**options: Any) -> None:
    """Serve a page and an HTTP door in front of an Elman server."""
    try:
        settings = Settings(**options)
        app = build(settings)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                log_level="info",
                access_log=False,
                server_header=False,
                lifespan="on",
                limit_concurrency=settings.max_connections,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=5,
            )
        )
    except (ValueError, ElmanError) as error:
        click.echo(f"elman-web: {error}", err=True)
        sys.exit(1)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s:     %(message)s")
    for stop in (signal.SIGINT, signal.SIGTERM):  # uvicorn's own handlers raise the signal again when all is done
        signal.signal(stop, lambda *_: None)
    server.run()
    sys.exit(0 if server.started else 1)


if __name__ == "__main__":
    main()
