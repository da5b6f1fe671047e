//! One connection: requests in, responses out, in order.
//!
//! A request is handled when the one before it is answered; only produce requests may follow each other while their
//! batches are being committed, since their place in the log is fixed when they are queued. While requests are handled
//! at most one more is read ahead.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use tracing::{debug, info};

use crate::api::{self, Later, Request, Shared, Stage};
use crate::security::Caller;
use crate::security::sasl::Admission;
use crate::security::tls::{Tls, disagreement};
use crate::wire::{Error, Frames, Reply, Response};

use super::admission::{Share, Turn};
use super::listener::Listening;
use super::throttle::Used;

/// Memory given on the word of a frame's length alone, while more than half of all is free.
const BELIEVED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long the last words of a TLS connection may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// While memory for answers is short, so much must be taken in so long.
const SLOW_LOOK: Duration = Duration::from_secs(2);
const SLOW_BYTES: usize = 64 * 1024;
/// Pieces of a response that go to one system call.
const PIECES_PER_WRITE: usize = 64;

/// Why a connection ended.
enum End {
    /// The peer is done, or the server shuts down.
    Quiet,
    Io(io::Error),
    Malformed(Error),
    /// A request whose answer is the end of the connection.
    Refused(String),
    Timeout(&'static str),
    /// TLS was not agreed on, or with nobody whom we know.
    Handshake(String),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Malformed(error)
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Small frames need none.
type Permit = Option<Held>;

/// Permits for bytes of a request: of all that there are, and of its sender's share.
struct Held {
    all: OwnedSemaphorePermit,
    /// Of the address, or of strangers, whichever it was asked of.
    shares: Vec<OwnedSemaphorePermit>,
}

impl Held {
    /// Its own share first: whoever waits for that keeps nothing from others.
    async fn acquire(share: Arc<Semaphore>, all: Arc<Semaphore>, bytes: u32) -> Option<Self> {
        let share = share.acquire_many_owned(bytes).await.ok()?;
        let all = all.acquire_many_owned(bytes).await.ok()?;
        Some(Self { all, shares: vec![share] })
    }

    fn merge(&mut self, other: Self) {
        self.all.merge(other.all);
        self.shares.extend(other.shares);
    }

    fn bytes(&self) -> usize {
        self.all.num_permits()
    }
}
type Turning = Pin<Box<dyn Future<Output = Option<Turn>> + Send>>;
type Starting = Pin<Box<dyn Future<Output = Stage> + Send>>;

/// A request that is being handled.
struct Handled {
    key: i16,
    begun: Instant,
    stage: Starting,
    /// What it uses of quotas; nothing while nobody knows whose it is.
    used: Option<Used>,
    permit: Permit,
    /// Until its answer is counted.
    turn: Option<Turn>,
}

/// An answer that is on its way, with the permit for its request's bytes.
struct Awaited {
    answer: Answer,
    /// Of which API, and since when.
    begun: Option<(i16, Instant)>,
    used: Option<Used>,
    permit: Permit,
}

enum Answer {
    Ready(Option<Reply>),
    Later(Later),
}

impl Awaited {
    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Reply> {
        match &mut self.answer {
            Answer::Ready(reply) => match reply.take() {
                Some(reply) => std::task::Poll::Ready(reply),
                None => std::task::Poll::Pending,
            },
            Answer::Later(later) => later.as_mut().poll(cx),
        }
    }
}

/// What a connection is at when nothing happens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Busy,
    Idle,
    Receiving,
}

struct Connection {
    caller: Arc<Caller>,
    shared: Arc<Shared>,
    /// What it has together with the others of its address.
    share: Share,
    frames: Frames,
    /// Permit for memory of the frame that comes next.
    permit: Permit,
    /// Its place among those who wait for memory for the answer to the next request; and that it may begin.
    turning: Option<Turning>,
    turn: Option<Turn>,
    starting: Option<Handled>,
    awaited: VecDeque<Awaited>,
    /// Whose answers are being sent: of which API, and since when.
    sent: Vec<(i16, Instant)>,
    read_end: bool,
    /// Nothing is read before; the sender has used too much.
    muted_until: Option<Instant>,
    phase: Phase,
    since: Instant,
    /// Until when whoever has to authenticate must have done so; `None` once they have.
    authenticate_until: Option<Instant>,
}

pub(super) async fn run(
    mut socket: TcpStream,
    listener: Arc<Listening>,
    caller: Caller,
    shared: Arc<Shared>,
    share: Share,
    stopping: watch::Receiver<bool>,
) {
    let remote = caller.remote;
    // Only a hint to the system; the connection works without.
    let _hint = socket.set_nodelay(true);
    let end = match &listener.tls {
        None => {
            let (mut reader, mut writer) = socket.split();
            Connection::new(caller, &shared, share).serve(&mut reader, &mut writer, stopping).await
        }
        Some(tls) => serve_tls(socket, tls, caller, &shared, share, stopping).await,
    };
    match end {
        End::Quiet => {}
        End::Io(error) => debug!(%remote, %error, "connection lost"),
        End::Malformed(error) => {
            shared.metrics.malformed();
            match listener.failures.due() {
                Some(left_out) if error.is_tls() => {
                    let name = &listener.endpoint.name;
                    info!(%remote, listener = name, left_out, "connection closed: TLS on a listener of plain text");
                }
                _ => debug!(%remote, %error, "connection closed: malformed request"),
            }
        }
        End::Refused(reason) => debug!(%remote, reason, "connection closed"),
        End::Timeout(what) => debug!(%remote, what, "connection closed: too slow"),
        End::Handshake(reason) => {
            shared.metrics.handshake_failed();
            if let Some(left_out) = listener.failures.due() {
                let name = &listener.endpoint.name;
                info!(%remote, listener = name, reason, left_out, "connection closed: no TLS");
            }
        }
    }
}

async fn serve_tls(
    socket: TcpStream,
    tls: &Tls,
    mut caller: Caller,
    shared: &Arc<Shared>,
    share: Share,
    mut stopping: watch::Receiver<bool>,
) -> End {
    let agreed = tokio::select! {
        agreed = tokio::time::timeout(shared.settings.handshake_timeout, agree(socket, tls, caller.host(), shared)) => agreed,
        () = stopped(&mut stopping) => return End::Quiet,
    };
    let stream = match agreed {
        Err(_) => return End::Handshake("it took too long".into()),
        Ok(Err(error)) => return End::Handshake(disagreement(&error)),
        Ok(Ok(stream)) => stream,
    };
    match tls.principal(stream.get_ref().1) {
        Ok(principal) => caller.principal = principal,
        Err(error) => return End::Handshake(error.to_string()),
    }
    let (mut reader, mut writer) = tokio::io::split(stream);
    let end = Connection::new(caller, shared, share).serve(&mut reader, &mut writer, stopping).await;
    // The peer may be gone already.
    let _said = tokio::time::timeout(GOODBYE_TIMEOUT, writer.shutdown()).await;
    end
}

async fn agree(socket: TcpStream, tls: &Tls, from: IpAddr, shared: &Shared) -> io::Result<TlsStream<TcpStream>> {
    let _lane = shared.handshakes_by_address.enter(from).await;
    let _permit = shared.handshakes.acquire().await.map_err(io::Error::other)?;
    shared.settings.handshake_turns.accept(tls, socket, from).await
}

impl Connection {
    fn new(caller: Caller, shared: &Arc<Shared>, share: Share) -> Self {
        let settings = &shared.settings;
        let (request_bytes_max, authenticate_until) = match &caller.sasl {
            Some(_) => {
                let until = Instant::now() + settings.authentication_timeout;
                (settings.unauthenticated_request_bytes_max.min(settings.request_bytes_max), Some(until))
            }
            None => (settings.request_bytes_max, None),
        };
        Self {
            frames: Frames::new(request_bytes_max),
            caller: Arc::new(caller),
            shared: Arc::clone(shared),
            share,
            permit: None,
            turning: None,
            turn: None,
            starting: None,
            awaited: VecDeque::new(),
            sent: Vec::new(),
            read_end: false,
            muted_until: None,
            phase: Phase::Idle,
            since: Instant::now(),
            authenticate_until,
        }
    }

    async fn serve<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        reader: &mut R,
        writer: &mut W,
        mut stopping: watch::Receiver<bool>,
    ) -> End {
        loop {
            if let Err(end) = self.step(reader, writer, &mut stopping).await {
                return end;
            }
        }
    }

    /// Waits for one thing to happen and does what follows from it.
    async fn step<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        reader: &mut R,
        writer: &mut W,
        stopping: &mut watch::Receiver<bool>,
    ) -> Result<(), End> {
        let muted = self.muted_until.filter(|until| *until > Instant::now());
        self.know_caller();
        // Whoever goes on asking what may be asked before is not authenticated by that.
        if self.starting.is_none() && self.authenticate_until.is_some_and(|end| Instant::now() >= end) {
            return Err(End::Timeout("not authenticated"));
        }
        let mut crowded = false;
        while muted.is_none() && !crowded {
            crowded = self.waits_for_turn()?;
            if crowded || !self.start_next()? {
                break;
            }
        }
        let settings = &self.shared.settings;
        let ready = self.frames.ready()?;
        let allowance = self.allowance()?;
        let held = self.held();
        let busy = self.starting.is_some() || !self.awaited.is_empty() || muted.is_some() || crowded;
        if self.read_end {
            let waits = self.starting.as_ref().is_some_and(|handled| api::waits(handled.key));
            let more = busy || (ready && held < allowance);
            if waits || !more {
                return Err(End::Quiet);
            }
        }
        let phase = match (busy, self.frames.is_empty()) {
            (true, _) => Phase::Busy,
            (false, true) => Phase::Idle,
            (false, false) => Phase::Receiving,
        };
        if phase != self.phase || phase == Phase::Busy {
            (self.phase, self.since) = (phase, Instant::now());
        }
        let (patience, what) = match phase {
            Phase::Busy => (None, ""),
            Phase::Idle => (Some(settings.idle_timeout), "idle"),
            Phase::Receiving => (Some(settings.receive_timeout), "request not received"),
        };
        let mut until = self.since + patience.unwrap_or_default();
        let what = match self.authenticate_until {
            Some(end) if end < until => {
                until = end;
                "not authenticated"
            }
            _ => what,
        };
        let missing = u32::try_from(allowance.saturating_sub(held)).unwrap_or(u32::MAX);
        // What is being handled makes room first, where this connection's requests take too much together.
        let others = self.held_by_requests();
        let full = others > 0 && others + allowance > settings.connection_bytes_max;
        let timed = self.shared.quotas.timed();
        let share = Arc::clone(if self.authenticate_until.is_some() {
            &self.shared.strangers_bytes
        } else {
            &self.share.bytes
        });
        tokio::select! {
            biased;
            // Before answers are waited for: what follows each other is written together.
            stage = started(&mut self.starting, timed), if self.starting.is_some() => {
                if let Some(Handled { key, begun, used, permit, turn, .. }) = self.starting.take() {
                    let answer = match stage {
                        Stage::Done(reply) => Answer::Ready(Some(reply.counted(&self.share.answers))),
                        Stage::Later(later) => Answer::Later(later),
                    };
                    drop(turn);
                    self.awaited.push_back(Awaited { answer, begun: Some((key, begun)), used, permit });
                }
            }
            reply = front(&mut self.awaited), if !self.awaited.is_empty() => {
                let mut reply = self.answered(reply);
                let rest = self.join_answers(&mut reply);
                send(&self.shared, writer, reply).await?;
                if let Some(rest) = rest {
                    send(&self.shared, writer, rest).await?;
                }
                for (key, begun) in self.sent.drain(..) {
                    self.shared.metrics.answered(key, begun.elapsed());
                }
            }
            permit = Held::acquire(share, Arc::clone(&self.shared.requests_bytes), missing), if missing > 0 && !full => {
                let permit = permit.ok_or(End::Quiet)?;
                match &mut self.permit {
                    Some(held) => held.merge(permit),
                    None => self.permit = Some(permit),
                }
            }
            // Without a permit for what comes no more of it is read.
            read = reader.read_buf(self.frames.room(held)), if !self.read_end && !ready && missing == 0 && !full && muted.is_none() => {
                self.read_end = read? == 0;
            }
            () = tokio::time::sleep_until(muted.unwrap_or(until)), if muted.is_some() => {}
            turn = turned(&mut self.turning), if crowded => {
                self.turning = None;
                self.turn = Some(turn.ok_or(End::Quiet)?);
            }
            () = tokio::time::sleep_until(until), if patience.is_some() => {
                return Err(End::Timeout(what));
            }
            () = stopped(stopping) => return self.finish(writer).await,
        }
        Ok(())
    }

    fn held(&self) -> usize {
        self.permit.as_ref().map_or(0, Held::bytes)
    }

    /// Memory of requests that are being handled or answered.
    fn held_by_requests(&self) -> usize {
        let permits = self.awaited.iter().map(|awaited| &awaited.permit).chain(self.starting.iter().map(|s| &s.permit));
        permits.flatten().map(Held::bytes).sum()
    }

    /// The first answer is there.
    fn answered(&mut self, reply: Reply) -> Reply {
        let Some(awaited) = self.awaited.pop_front() else { return reply };
        self.sent.extend(awaited.begun);
        self.settle(awaited.used.as_ref(), reply)
    }

    /// Lets answers that are there too, as those to batches of one commit are, go with the same call. Returns one that came
    /// but has to go by itself.
    fn join_answers(&mut self, reply: &mut Reply) -> Option<Reply> {
        // Who is not ready is asked again, with who is to be woken.
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        while let Reply::Response(response) = reply
            && let Some(next) = self.awaited.front_mut()
            && let std::task::Poll::Ready(next) = next.poll(&mut cx)
        {
            match self.answered(next) {
                Reply::Silent => {}
                Reply::Response(next) => {
                    if let Err(next) = response.join(next) {
                        return Some(Reply::Response(next));
                    }
                }
                last => return Some(last),
            }
        }
        None
    }

    /// Counts an answered request, and stops reading for a while where too much was used.
    fn settle(&mut self, used: Option<&Used>, mut reply: Reply) -> Reply {
        let wait = used.map_or(Duration::ZERO, |used| used.settle(&self.shared, &self.caller, &mut reply));
        if !wait.is_zero() {
            self.shared.metrics.throttled(wait);
            self.muted_until = self.muted_until.max(Some(Instant::now() + wait));
        }
        reply
    }

    fn allowance(&self) -> Result<usize, End> {
        let total = self.shared.requests_bytes_total;
        let plenty = self.shared.requests_bytes.available_permits() > total / 2;
        let believed = if plenty { BELIEVED_BYTES_MAX.min(total / 64) } else { 0 };
        Ok(self.frames.allowance(believed)?)
    }

    /// Whether the next request is there, but has to wait until there is memory for its answer. What has been answered makes
    /// room first.
    fn waits_for_turn(&mut self) -> Result<bool, End> {
        let much = self.frames.peek_key().is_some_and(api::answers_much);
        if !much || self.starting.is_some() || !self.awaited.is_empty() || self.turn.is_some() {
            return Ok(false);
        }
        // Who is still sending keeps nobody waiting.
        if !self.frames.ready()? || self.held() < self.allowance()? {
            return Ok(false);
        }
        if self.turning.is_none() && self.share.is_crowded() {
            self.turning = Some(Box::pin(self.share.clone().wait_for_turn()));
        }
        Ok(self.turning.is_some())
    }

    /// Begins the next request if it is there and may begin. False: it is not, or may not.
    fn start_next(&mut self) -> Result<bool, End> {
        let follows = self.awaited.is_empty()
            || (self.frames.peek_key() == Some(api::PRODUCE)
                && self.awaited.len() < self.shared.settings.pipelined_requests_max);
        if self.starting.is_some() || !follows || !self.frames.ready()? || self.held() < self.allowance()? {
            return Ok(false);
        }
        let admission = match &self.caller.sasl {
            Some(sasl) => sasl.admit(self.frames.peek_key().unwrap_or(-1)),
            None => Admission::Request,
        };
        let Some(frame) = self.frames.take()? else { return Ok(false) };
        let (permit, turn) = (self.permit.take(), self.turn.take());
        let size = frame.len();
        match admission {
            Admission::Request => {}
            Admission::Message => {
                let stage = Box::pin(api::handle_bare(Arc::clone(&self.caller), frame));
                let (key, begun) = (api::SASL_AUTHENTICATE, Instant::now());
                self.starting = Some(Handled { key, begun, stage, used: None, permit, turn: None });
                return Ok(true);
            }
            Admission::Refused(reason) => return Err(End::Refused(reason.into())),
        }
        match Request::read(frame, &self.caller, &self.shared.settings)? {
            Ok(request) => {
                let key = request.head.key;
                self.shared.metrics.request(key, size);
                let used = self.authenticate_until.is_none().then(|| Used::of(&request, size));
                let stage = Box::pin(api::handle(Arc::clone(&self.shared), request));
                self.starting = Some(Handled { key, begun: Instant::now(), stage, used, permit, turn });
            }
            Err(reply) => {
                let answer = Answer::Ready(Some(reply));
                self.awaited.push_back(Awaited { answer, begun: None, used: None, permit });
            }
        }
        Ok(true)
    }

    /// Once the caller has authenticated, requests are theirs and may be as large as any.
    fn know_caller(&mut self) {
        if self.authenticate_until.is_some()
            && let Some(principal) = self.caller.sasl.as_ref().and_then(|sasl| sasl.principal())
        {
            self.caller = Arc::new(Caller { principal, decisions: Arc::default(), ..Caller::clone(&self.caller) });
            self.frames.limit(self.shared.settings.request_bytes_max);
            self.authenticate_until = None;
        }
    }

    /// Answers what is being handled, unless it waits for others, and ends.
    async fn finish<W: AsyncWrite + Unpin>(&mut self, writer: &mut W) -> Result<(), End> {
        while !self.awaited.is_empty() {
            let reply = front(&mut self.awaited).await;
            self.awaited.pop_front();
            send(&self.shared, writer, reply).await?;
        }
        if self.starting.as_ref().is_some_and(|handled| !api::waits(handled.key)) {
            let reply = match started(&mut self.starting, false).await {
                Stage::Done(reply) => reply,
                Stage::Later(later) => later.await,
            };
            send(&self.shared, writer, reply).await?;
        }
        Err(End::Quiet)
    }
}

async fn send<W: AsyncWrite + Unpin>(shared: &Shared, writer: &mut W, reply: Reply) -> Result<(), End> {
    match reply {
        Reply::Silent => Ok(()),
        Reply::Close(reason) => Err(End::Refused(reason)),
        Reply::Response(response) => send_response(shared, writer, &response).await,
        Reply::Last(response) => {
            send_response(shared, writer, &response).await?;
            Err(End::Refused("the last answer is given".into()))
        }
    }
}

async fn send_response<W: AsyncWrite + Unpin>(shared: &Shared, writer: &mut W, response: &Response) -> Result<(), End> {
    let written = AtomicUsize::new(0);
    let mut writing = std::pin::pin!(write_all(writer, response.pieces(), &written));
    let until = Instant::now() + shared.settings.write_timeout;
    let mut before = 0;
    loop {
        let look = until.min(Instant::now() + SLOW_LOOK);
        if let Ok(result) = tokio::time::timeout_at(look, &mut writing).await {
            result?;
            shared.metrics.response(response.size());
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(End::Timeout("response not taken"));
        }
        // While memory is short, whoever hardly takes what is for him does not keep it from others.
        let now = written.load(Ordering::Relaxed);
        if response.is_crowding(&shared.settings.answers) && now - before < SLOW_BYTES {
            return Err(End::Timeout("response not taken, and memory for answers is short"));
        }
        before = now;
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error says that the server is gone, which is the same.
    let _gone = stopping.wait_for(|stop| *stop).await.is_err();
}

async fn turned(turning: &mut Option<Turning>) -> Option<Turn> {
    poll_fn(|cx| match turning {
        Some(turning) => turning.as_mut().poll(cx),
        None => std::task::Poll::Pending,
    })
    .await
}

async fn front(awaited: &mut VecDeque<Awaited>) -> Reply {
    poll_fn(|cx| match awaited.front_mut() {
        Some(first) => first.poll(cx),
        None => std::task::Poll::Pending,
    })
    .await
}

/// `timed`: how long the request keeps a thread is added up.
async fn started(starting: &mut Option<Handled>, timed: bool) -> Stage {
    poll_fn(|cx| {
        let Some(handled) = starting else { return std::task::Poll::Pending };
        let begin = timed.then(Instant::now);
        let stage = handled.stage.as_mut().poll(cx);
        if let (Some(begin), Some(used)) = (begin, &mut handled.used) {
            used.spent += begin.elapsed();
        }
        stage
    })
    .await
}

/// Writes all pieces, several with one call, and adds up what has gone.
async fn write_all<W: AsyncWrite + Unpin>(writer: &mut W, pieces: &[Bytes], all: &AtomicUsize) -> io::Result<()> {
    let (mut piece, mut offset) = (0, 0);
    while piece < pieces.len() {
        let rest = pieces.iter().skip(piece).take(PIECES_PER_WRITE).enumerate();
        let slices: Vec<IoSlice<'_>> =
            rest.map(|(i, p)| IoSlice::new(if i == 0 { p.get(offset..).unwrap_or_default() } else { p })).collect();
        let mut written = writer.write_vectored(&slices).await?;
        all.fetch_add(written, Ordering::Relaxed);
        if written == 0 && slices.iter().any(|s| !s.is_empty()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(current) = pieces.get(piece) {
            let left = current.len() - offset;
            if written < left {
                offset += written;
                break;
            }
            written -= left;
            offset = 0;
            piece += 1;
        }
    }
    // TLS may hold some of it back.
    writer.flush().await
}
