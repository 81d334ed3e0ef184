//! Connections over the loopback: what arrives, what a silent or rude peer gets.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use oxidask_protocol::Value;
use oxidask_protocol::address::{Address, Scheme};
use oxidask_protocol::comm::{Comm, CommError, accept, connect};
use oxidask_protocol::frame::{Limits, encode};
use oxidask_protocol::handshake::Handshake;
use oxidask_protocol::message::{decode_one, encode_one};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SOON: Duration = Duration::from_secs(20);

async fn listener() -> (TcpListener, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address {
        scheme: Scheme::Tcp,
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
    };
    (listener, address)
}

async fn pair() -> (Comm, Comm) {
    let (listener, address) = listener().await;
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        accept(stream, None, Limits::default(), SOON).await.unwrap()
    };
    let client = async {
        connect(&address, None, Limits::default(), SOON)
            .await
            .unwrap()
    };
    tokio::join!(client, server)
}

/// A peer that writes what it likes after its handshake.
async fn raw_pair() -> (TcpStream, Comm) {
    let (listener, address) = listener().await;
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        accept(stream, None, Limits::default(), SOON).await.unwrap()
    };
    let client = async {
        let mut stream = TcpStream::connect((address.host.as_str(), address.port))
            .await
            .unwrap();
        let hello = encode(&encode_one(&Handshake::ours())).concat();
        stream.write_all(&hello).await.unwrap();
        let mut theirs = vec![0; hello.len()];
        stream.read_exact(&mut theirs).await.unwrap();
        stream
    };
    tokio::join!(client, server)
}

#[tokio::test]
async fn messages_of_any_size_arrive_in_order() {
    let (mut a, mut b) = pair().await;
    assert_eq!(a.handshake.pickle_protocol, 5);
    let messages: Vec<Vec<Bytes>> = [0, 1, 70_000, 300_000, 5_000_000]
        .into_iter()
        .map(|n| {
            vec![
                Bytes::from_static(b"\xc0"),
                Bytes::from(vec![7; n]),
                Bytes::new(),
            ]
        })
        .collect();
    let write = async {
        for message in &messages {
            a.writer.write(message).await.unwrap();
        }
        a.writer.shutdown().await.unwrap();
    };
    let read = async {
        for message in &messages {
            assert_eq!(b.reader.read().await.unwrap().as_ref(), Some(message));
        }
        assert_eq!(b.reader.read().await.unwrap(), None);
    };
    tokio::join!(write, read);
}

#[tokio::test]
async fn a_read_that_is_dropped_loses_nothing() {
    let (mut stream, mut comm) = raw_pair().await;
    let message = encode_one(&Value::from("x".repeat(300_000)));
    let bytes = encode(&message).concat();
    for piece in bytes.chunks(40_000) {
        stream.write_all(piece).await.unwrap();
        // Reads what has come so far, then drops the read.
        tokio::select! {
            biased;
            read = comm.reader.read() => {
                assert_eq!(read.unwrap().unwrap(), message);
                return;
            }
            () = tokio::task::yield_now() => {}
        }
    }
    let read = tokio::time::timeout(SOON, comm.reader.read())
        .await
        .unwrap();
    assert_eq!(read.unwrap().unwrap(), message);
}

#[tokio::test]
async fn a_peer_that_leaves_inside_a_message_is_an_error() {
    let (mut stream, mut comm) = raw_pair().await;
    let bytes = encode(&encode_one(&Value::from("hello"))).concat();
    stream.write_all(&bytes[..bytes.len() - 1]).await.unwrap();
    drop(stream);
    let error = comm.reader.read().await.unwrap_err();
    assert!(matches!(error, CommError::Closed(_)), "{error}");
}

#[tokio::test]
async fn garbage_and_giants_are_errors_that_say_where() {
    for (bytes, says) in [
        (
            vec![0xff; 32],
            "frames of one message: 18446744073709551615 exceed the limit of 1000000, \
             at byte 8 of the lengths",
        ),
        (
            [1 << 63, 1, 1 << 63]
                .into_iter()
                .flat_map(u64::to_le_bytes)
                .collect(),
            "bytes of one message: 9223372036854775808 exceed the limit of 68719476736, \
             at byte 0 of the lengths",
        ),
    ] {
        let (mut stream, mut comm) = raw_pair().await;
        stream.write_all(&bytes).await.unwrap();
        match comm.reader.read().await.unwrap_err() {
            CommError::Decode { source, .. } => assert_eq!(source.to_string(), says),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_silent_peer_does_not_keep_the_listener() {
    let (listener, address) = listener().await;
    let _silent = TcpStream::connect((address.host.as_str(), address.port))
        .await
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let error = accept(stream, None, Limits::default(), Duration::from_millis(20))
        .await
        .unwrap_err();
    assert!(matches!(error, CommError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn before_its_handshake_a_peer_may_announce_little() {
    let (listener, address) = listener().await;
    let mut stream = TcpStream::connect((address.host.as_str(), address.port))
        .await
        .unwrap();
    let giant: Vec<u8> = [16 + (1 << 30), 1, 1 << 30]
        .into_iter()
        .flat_map(u64::to_le_bytes)
        .collect();
    stream.write_all(&giant).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let error = accept(accepted, None, Limits::default(), SOON)
        .await
        .unwrap_err();
    assert!(matches!(error, CommError::Decode { .. }), "{error}");
}

#[tokio::test]
async fn an_answer_comes_back_to_a_request() {
    let (mut a, mut b) = pair().await;
    let serve = async {
        let request = b.reader.read().await.unwrap().unwrap();
        let request: Value = decode_one(&request).unwrap();
        b.writer.send(&request).await.unwrap();
    };
    let ask = Value::map([("op", Value::from("echo"))]);
    let (answer, ()) = tokio::join!(a.request(&ask), serve);
    assert_eq!(decode_one::<Value>(&answer.unwrap()).unwrap(), ask);
}

#[tokio::test(start_paused = true)]
async fn a_message_may_take_long_as_long_as_some_of_it_comes() {
    const PATIENCE: Duration = Duration::from_secs(30);
    let (mut slow, mut reading) = raw_pair().await;
    // Small enough for the system to take each piece at once: nothing but the clock is waited for.
    let frames = vec![Bytes::from_static(b"\xc0"), Bytes::from(vec![7; 40_000])];
    let message = encode(&frames).concat();
    let (most, rest) = message.split_at(message.len() - 1);
    let write = async {
        for piece in most.chunks(most.len() / 4) {
            slow.write_all(piece).await.unwrap();
            tokio::time::sleep(PATIENCE - Duration::from_secs(1)).await;
        }
        slow.write_all(rest).await.unwrap();
    };
    let start = tokio::time::Instant::now();
    let ((), read) = tokio::join!(write, reading.reader.read_steadily(PATIENCE));
    assert_eq!(read.unwrap().unwrap(), frames);
    assert!(start.elapsed() > 3 * PATIENCE);

    slow.write_all(most).await.unwrap();
    let stalled = reading.reader.read_steadily(PATIENCE).await;
    assert!(
        matches!(stalled, Err(CommError::Timeout { seconds: 30.0, .. })),
        "{stalled:?}"
    );
}
