//! The proxy with nothing but pass-through, for `run.sh` to measure:
//! `passthrough --listen ADDR --upstream BASE_URL [--workers N]`.

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use offpeak::edge::{
    passthrough::{self, Passthrough},
    server::{self, Desk, Routers, Server, Timeouts},
};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    listen: std::net::SocketAddr,
    #[arg(long)]
    upstream: url::Url,
    #[arg(long, default_value_t = 0)]
    workers: usize,
    /// `cargo bench` passes it.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match serve(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let passthrough = Passthrough::new(
        passthrough::Settings {
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(50),
            max_idle: 1024,
        },
        &arguments.upstream,
    )?;
    let settings = server::Settings {
        listen: arguments.listen,
        workers: arguments.workers,
        drain_grace: Duration::from_secs(5),
        admin_listen: None,
        max_connections: 10_000,
        // As config/default.toml has them.
        timeouts: Timeouts {
            head: Duration::from_secs(30),
            idle: Duration::from_secs(120),
            write: Duration::from_secs(120),
            body_idle: Duration::from_secs(60),
        },
    };
    let routers = Routers {
        callers: axum::Router::new(),
        operators: axum::Router::new(),
    };
    let desk = Arc::new(Desk::new(routers));
    let server = Server::new(settings, passthrough, desk).map_err(|(_, error)| error)?;
    server.run(CancellationToken::new()).await?;
    Ok(())
}
