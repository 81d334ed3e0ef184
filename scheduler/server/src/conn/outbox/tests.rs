use std::time::Duration;

use oxidask_protocol::Value;
use oxidask_protocol::address::Address;
use oxidask_protocol::comm::{Comm, accept, connect};
use oxidask_protocol::frame::Limits;
use oxidask_protocol::message::decode_one;
use oxidask_protocol::wire::Encode;
use tokio::net::TcpListener;

use super::*;

/// Longest time for anything on the loopback.
const DEADLINE: Duration = Duration::from_secs(20);

/// Both ends of a connection.
async fn pair() -> (Comm, Comm) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let address = Address::parse(&address, oxidask_protocol::address::Scheme::Tcp, None).unwrap();
    let limits = Limits::default();
    let accepted = async {
        let (stream, _) = listener.accept().await.unwrap();
        accept(stream, None, limits, DEADLINE).await.unwrap()
    };
    let opened = async { connect(&address, None, limits, DEADLINE).await.unwrap() };
    tokio::join!(accepted, opened)
}

fn number(n: u64) -> impl FnOnce(&mut Writer) {
    move |w: &mut Writer| w.uint(n)
}

fn start(limits: OutboxLimits, comm: Comm) -> Arc<Outbox> {
    let flusher: Arc<Flusher> = Arc::default();
    let outbox = Outbox::new(comm.writer, Arc::clone(&flusher), limits);
    tokio::spawn(async move { flusher.run().await });
    outbox
}

#[tokio::test]
async fn what_is_sent_in_one_go_leaves_as_one_array() {
    let (ours, mut theirs) = pair().await;
    let outbox = start(OutboxLimits::default(), ours);
    for n in 0..3 {
        outbox.send(number(n));
    }
    let frames = theirs.reader.read().await.unwrap().unwrap();
    let array: Vec<u64> = decode_one(&frames).unwrap();
    assert_eq!(array, [0, 1, 2]);
    outbox.send(number(3));
    let frames = theirs.reader.read().await.unwrap().unwrap();
    assert_eq!(decode_one::<Vec<u64>>(&frames).unwrap(), [3]);
}

#[tokio::test]
async fn a_slow_peer_gets_everything_in_order() {
    let (ours, mut theirs) = pair().await;
    let outbox = start(OutboxLimits::default(), ours);
    let pump = tokio::spawn({
        let outbox = Arc::clone(&outbox);
        async move { outbox.pump().await }
    });
    let filler = Value::Bin(vec![7; 100_000].into());
    for n in 0..200_u64 {
        outbox.send(|w| Value::Array(vec![n.into(), filler.clone()]).encode(w));
        tokio::task::yield_now().await;
    }
    outbox.close();
    let mut next = 0;
    while next < 200 {
        let frames = theirs.reader.read().await.unwrap().unwrap();
        for item in decode_one::<Vec<Value>>(&frames).unwrap() {
            assert_eq!(item.as_array().unwrap()[0].as_u64(), Some(next));
            next += 1;
        }
    }
    let ended = tokio::time::timeout(DEADLINE, pump).await;
    assert!(
        ended.unwrap().unwrap().is_ok(),
        "closed after all was written"
    );
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_given_up_before_memory_runs_out() {
    let (ours, _theirs) = pair().await;
    let limits = OutboxLimits {
        hard: 20 << 20,
        ..OutboxLimits::default()
    };
    let outbox = start(limits, ours);
    let sending = async {
        loop {
            outbox.send(|w| w.bin(&[0; 10_000]));
            tokio::task::yield_now().await;
        }
    };
    let ended = tokio::time::timeout(DEADLINE, async {
        tokio::select! {
            ended = outbox.pump() => ended,
            () = sending => unreachable!("sending does not end"),
        }
    });
    let error = ended.await.unwrap().unwrap_err();
    assert!(
        matches!(error, OutboxError::Stalled(n) if n < 64 << 20),
        "{error}"
    );
    // What comes later is dropped.
    outbox.send(number(1));
    assert_eq!(outbox.inner().count, 0);
}

#[tokio::test]
async fn a_peer_that_reads_nothing_is_given_up_although_nothing_more_comes() {
    let (ours, _theirs) = pair().await;
    let limits = OutboxLimits {
        soft: 1 << 20,
        patience: Duration::from_millis(10),
        ..OutboxLimits::default()
    };
    let outbox = start(limits, ours);
    outbox.send(|w| w.bin(&[0; 32 << 20]));
    let ended = tokio::time::timeout(DEADLINE, outbox.pump()).await;
    assert!(
        matches!(ended, Ok(Err(OutboxError::Stalled(_)))),
        "{ended:?}"
    );
    assert_eq!(outbox.inner().queued, 0, "its memory is free");
}
