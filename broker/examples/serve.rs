//! The log by itself: `serve DIRECTORY [ADDRESS]`. Stops on SIGINT and SIGTERM.

use std::env;
use std::error::Error;

use millpond_broker::server::{self, Hooks, ServerSettings};
use millpond_broker::storage::{Storage, StorageOptions};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let directory = args.next().ok_or("usage: serve DIRECTORY [ADDRESS]")?;
    let address = args.next().unwrap_or_else(|| "127.0.0.1:9092".to_owned());
    let storage = Storage::open(StorageOptions::new(directory))?;
    let listener = TcpListener::bind(&address).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    let handle =
        server::serve(vec![listener.into()], storage.clone(), ServerSettings::default(), Hooks::default(), shutdown)
            .await?;
    println!("kafka {}", handle.local_addr());
    handle.join().await;
    storage.close()?;
    Ok(())
}
