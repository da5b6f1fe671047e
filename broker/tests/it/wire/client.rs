//! A server in this process and a client that speaks to it frame by frame.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use millpond_broker::groups::Coordinator;
use millpond_broker::metrics::Metrics;
use millpond_broker::security::{Authenticator, Authorizer};
use millpond_broker::server::{self, Hooks, Listener, ServerHandle, ServerSettings};
use millpond_broker::storage::Storage;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::fixture::Fixture;

pub struct Server {
    pub fixture: Fixture,
    pub address: SocketAddr,
    pub metrics: Arc<Metrics>,
    runtime: Runtime,
    running: Option<(ServerHandle, oneshot::Sender<()>)>,
}

impl Server {
    pub fn new() -> Self {
        Self::with(Fixture::new(), |_, _| {})
    }

    pub fn with(fixture: Fixture, change: impl FnOnce(&mut ServerSettings, &mut Hooks)) -> Self {
        Self::listening(fixture, change, |listener| vec![listener])
    }

    /// `listeners` makes them of one of plain text.
    pub fn listening(
        fixture: Fixture,
        change: impl FnOnce(&mut ServerSettings, &mut Hooks),
        listeners: impl FnOnce(Listener) -> Vec<Listener>,
    ) -> Self {
        let (mut settings, mut hooks) = (ServerSettings::default(), Hooks::default());
        change(&mut settings, &mut hooks);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (stop, stopped) = oneshot::channel();
        let storage = fixture.storage.clone();
        let handle = runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let shutdown = async move {
                let _dropped = stopped.await;
            };
            server::serve(listeners(listener.into()), storage, settings, hooks, shutdown).await.unwrap()
        });
        let (address, metrics) = (handle.local_addr(), handle.metrics());
        Self { fixture, address, metrics, runtime, running: Some((handle, stop)) }
    }

    pub fn storage(&self) -> &Storage {
        &self.fixture.storage
    }

    pub fn authorizer(&self) -> Option<Authorizer> {
        self.running.as_ref().and_then(|(handle, _)| handle.authorizer().cloned())
    }

    pub fn authenticator(&self) -> Arc<Authenticator> {
        let (handle, _) = self.running.as_ref().unwrap();
        Arc::clone(handle.authenticator())
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Waits until so many requests of an API have come.
    #[track_caller]
    pub fn has_got(&self, api: &str, count: u64) {
        crate::actor::wait_until(&format!("{count} requests of {api:?} do not come"), || {
            self.metrics.snapshot().requests_total.iter().any(|(name, n)| *name == api && *n >= count)
        });
    }

    /// A client at another address of this machine.
    pub fn client_from(&self, source: [u8; 4]) -> Client {
        let stream = self.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((source, 0).into()).unwrap();
            socket.connect(self.address).await.unwrap().into_std().unwrap()
        });
        stream.set_nonblocking(false).unwrap();
        Client::over(stream)
    }

    pub fn groups(&self) -> &Coordinator {
        self.running.as_ref().unwrap().0.groups()
    }

    /// Shuts down, which waits for no client, and gives back the storage.
    pub fn stop(mut self) -> Fixture {
        let (handle, stop) = self.running.take().unwrap();
        let _running = stop.send(());
        self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), handle.join()).await.unwrap() });
        self.fixture
    }
}

/// For what comes at once on a machine that has nothing else to do, and shorter than what tests have the server wait.
pub const READ_TIMEOUT: Duration = Duration::from_secs(40);

pub struct Client {
    pub stream: TcpStream,
    next: i32,
    /// The client id of its requests.
    name: &'static str,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, next: 0, name: "test" }
    }

    pub fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        self.next += 1;
        self.stream.write_all(&frame_of(self.name, self.next, version, request)).unwrap();
        self.next
    }

    /// The next response frame; `None` when the server has closed the connection.
    pub fn receive(&mut self) -> Option<Bytes> {
        match self.receive_in_time() {
            Ok(frame) => Some(frame),
            Err(e) if is_end(&e) => None,
            Err(e) => panic!("neither an answer nor the end: {e}"),
        }
    }

    /// The next response frame, as long as the stream waits for one.
    pub fn receive_in_time(&mut self) -> io::Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut body = vec![0; i32::from_be_bytes(length).try_into().unwrap()];
        self.stream.read_exact(&mut body)?;
        Ok(body.into())
    }

    pub fn response<R: Request>(&mut self, version: i16, correlation: i32) -> R::Response {
        let frame = self.receive().unwrap_or_else(|| panic!("api {} v{version}: closed", R::KEY));
        read::<R>(frame, version, correlation)
    }

    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let correlation = self.send(version, request);
        self.response::<R>(version, correlation)
    }

    /// Whether the server closes the connection without another word.
    pub fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0; 1]) {
            Ok(n) => n == 0,
            Err(e) => is_end(&e),
        }
    }
}

fn is_end(e: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(e.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// A request as it goes over the wire, its length first.
pub fn frame<R: Request>(correlation: i32, version: i16, request: &R) -> Vec<u8> {
    frame_of("test", correlation, version, request)
}

fn frame_of<R: Request>(client: &'static str, correlation: i32, version: i16, request: &R) -> Vec<u8> {
    let key = ApiKey::try_from(R::KEY).unwrap();
    let mut out = BytesMut::new();
    out.put_i32(0);
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_static_str(client)));
    header.encode(&mut out, key.request_header_version(version)).unwrap();
    request.encode(&mut out, version).unwrap();
    let length = (out.len() - 4) as i32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.to_vec()
}

/// Reads a response to its last byte.
pub fn read<R: Request>(mut frame: Bytes, version: i16, correlation: i32) -> R::Response {
    let header = ResponseHeader::decode(&mut frame, <R::Response as HeaderVersion>::header_version(version)).unwrap();
    assert_eq!(header.correlation_id, correlation);
    let response = R::Response::decode(&mut frame, version).unwrap();
    assert!(frame.is_empty(), "api {} v{version}: {} bytes too many", R::KEY, frame.len());
    response
}
