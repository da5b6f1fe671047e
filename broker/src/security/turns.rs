//! Turns at the processor for TLS handshakes, which cost whoever begins them nothing and the server a signature each.
//!
//! A handshake that is to compute waits for a turn, first among those of its address, then among all; between turns it
//! waits for the network and holds none. So a flood of handshakes takes no more than the given part of the processors,
//! whoever is connected is answered meanwhile, and a new client waits for one turn of each other address.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::tls::Tls;
use crate::lanes::Lanes;

#[derive(Debug)]
pub struct Turns {
    of_address: Arc<Lanes>,
    all: Semaphore,
}

impl Turns {
    /// So many at a time, one address at most half of them.
    pub fn new(at_once: usize) -> Arc<Self> {
        let at_once = at_once.clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Self { of_address: Lanes::new(at_once.div_ceil(2)), all: Semaphore::new(at_once) })
    }

    /// Half of the processors.
    pub fn of_processors() -> Arc<Self> {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from) / 2)
    }

    /// Agrees on TLS with a client that has connected from there.
    pub async fn accept(&self, tls: &Tls, socket: TcpStream, from: IpAddr) -> io::Result<TlsStream<TcpStream>> {
        self.run(from, TlsAcceptor::from(tls.config()).accept(socket)).await
    }

    async fn run<T>(&self, from: IpAddr, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        loop {
            let turn = (self.of_address.enter(from).await, self.all.acquire().await);
            let polled = work.as_mut().poll(&mut Context::from_waker(&waker));
            // Kept until whatever else is ready had its turn: the next one could begin at once.
            again().await;
            drop(turn);
            if let Poll::Ready(done) = polled {
                return done;
            }
            poll_fn(|cx| woken.poll(cx)).await;
        }
    }
}

/// Whether the work can go on; that may be said while its turn has not ended yet.
#[derive(Default)]
struct Woken(Mutex<(bool, Option<Waker>)>);

impl Woken {
    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if std::mem::take(&mut state.0) {
            return Poll::Ready(());
        }
        state.1 = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        let waker = {
            let mut state = self.0.lock();
            state.0 = true;
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Goes to the end of the queue of what is ready.
async fn again() {
    let mut been = false;
    let turn = |cx: &mut Context<'_>| match std::mem::replace(&mut been, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    };
    poll_fn(turn).await;
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use tokio::task::{JoinSet, LocalSet};

    use super::*;

    /// Three times at the processor, as a handshake is.
    async fn handshake(polls: Rc<Cell<usize>>) {
        for _ in 0..3 {
            polls.set(polls.get() + 1);
            again().await;
        }
    }

    #[tokio::test]
    async fn a_flood_keeps_nobody_waiting_for_long() {
        let turns = Turns::new(1);
        let (flood, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let polls = Rc::new(Cell::new(0));
        let check = async {
            let mut all = JoinSet::new();
            for _ in 0..200 {
                let (turns, polls) = (Arc::clone(&turns), Rc::clone(&polls));
                all.spawn_local(async move { turns.run(flood, handshake(polls)).await });
            }
            let (told, turns) = (Rc::clone(&polls), Arc::clone(&turns));
            all.spawn_local(async move {
                // All have come by then.
                again().await;
                // Whoever is connected comes in between.
                for _ in 0..50 {
                    let before = told.get();
                    again().await;
                    assert!(told.get() - before <= 2, "{} turns at once", told.get() - before);
                }
                let before = told.get();
                turns.run(other, handshake(Rc::default())).await;
                assert!(told.get() - before <= 10, "{} turns before another address", told.get() - before);
                assert!(told.get() < 300, "the flood is over");
            });
            while let Some(done) = all.join_next().await {
                done.unwrap();
            }
            assert_eq!(polls.get(), 600);
        };
        LocalSet::new().run_until(check).await;
        assert_eq!(turns.all.available_permits(), 1);
    }
}
