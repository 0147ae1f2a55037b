use std::{io, sync::Arc, time::Duration};

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use crate::{
    ChannelError, NoiseStream, StaticKey, accept,
    handshake::{answer, call},
    initiate,
    session::Rekey,
};

const SECOND: Duration = Duration::from_secs(1);
const HELLO: usize = 102;
const REPLY: usize = 48;

fn key() -> Arc<StaticKey> {
    Arc::new(StaticKey::generate().expect("a key"))
}

/// Both ends of a channel over pipes of so many bytes, which goes on under a fresh key that often.
async fn pair(pipe: usize, rekey: Rekey) -> (NoiseStream<DuplexStream>, NoiseStream<DuplexStream>) {
    let (caller, service) = (key(), key());
    let (a, b) = duplex(pipe);
    let pinned = service.public();
    let (a, b) = tokio::join!(
        call(a, &caller, &pinned, "kms", rekey),
        answer(b, &service, "kms", |peer| *peer == caller.public(), rekey),
    );
    let (a, b) = (a.expect("called"), b.expect("answered"));
    assert_eq!((a.peer(), b.peer()), (service.public(), caller.public()));
    (a, b)
}

/// A channel whose wire is in the hands of the test.
struct Wire {
    /// What the caller wrote after its handshake.
    frames: Vec<u8>,
    to_service: DuplexStream,
    service: NoiseStream<DuplexStream>,
}

impl Wire {
    /// A caller that says `writes`, one message each, and that this was all.
    async fn record(writes: &[&[u8]]) -> Self {
        let (caller, service) = (key(), key());
        let (a, mut from_caller) = duplex(1 << 20);
        let (mut to_service, b) = duplex(1 << 20);
        let pinned = service.public();
        let between = async {
            let mut hello = [0; HELLO];
            from_caller.read_exact(&mut hello).await.expect("a hello");
            to_service.write_all(&hello).await.expect("passed on");
            let mut reply = [0; REPLY];
            to_service.read_exact(&mut reply).await.expect("a reply");
            from_caller.write_all(&reply).await.expect("passed on");
        };
        let (a, b, ()) = tokio::join!(
            call(a, &caller, &pinned, "kms", Rekey::default()),
            answer(b, &service, "kms", |_| true, Rekey::default()),
            between
        );
        let mut a = a.expect("called");
        for bytes in writes {
            a.write_all(bytes).await.expect("written");
        }
        a.shutdown().await.expect("ended");
        drop(a);
        let mut frames = Vec::new();
        from_caller.read_to_end(&mut frames).await.expect("recorded");
        Self {
            frames,
            to_service,
            service: b.expect("answered"),
        }
    }

    /// What the service reads when these bytes come, and then no more.
    async fn play(mut self, bytes: &[u8]) -> (Vec<u8>, io::Result<()>) {
        self.to_service.write_all(bytes).await.expect("played");
        drop(self.to_service);
        let mut said = Vec::new();
        let read = self.service.read_to_end(&mut said).await;
        if read.is_err() {
            let mut more = [0];
            assert!(self.service.read(&mut more).await.is_err(), "it stays broken");
            assert!(self.service.write(b"answer").await.is_err(), "both ways");
        }
        (said, read.map(|_| ()))
    }
}

fn kind(read: io::Result<()>) -> io::ErrorKind {
    read.expect_err("an error").kind()
}

#[tokio::test]
async fn what_is_said_arrives_and_then_the_end() {
    let wire = Wire::record(&[b"one", b"two"]).await;
    let frames = wire.frames.clone();
    assert_eq!(frames.len(), 2 * (2 + 3 + 16) + 2 + 16);
    assert!(!frames.windows(3).any(|bytes| bytes == b"one"));
    let (said, read) = wire.play(&frames).await;
    read.expect("whole");
    assert_eq!(said, b"onetwo");
}

#[tokio::test]
async fn every_altered_byte_is_an_error() {
    let length = Wire::record(&[b"one", b"two"]).await.frames.len();
    for at in 0..length {
        let wire = Wire::record(&[b"one", b"two"]).await;
        let mut frames = wire.frames.clone();
        frames[at] ^= 1;
        let (said, read) = wire.play(&frames).await;
        assert!(read.is_err(), "byte {at}");
        assert!(b"onetwo".starts_with(&said), "byte {at}");
    }
}

#[tokio::test]
async fn messages_that_are_repeated_reordered_or_left_out_are_errors() {
    const FRAME: usize = 21;
    type Edit = fn(&[u8], &[u8], &[u8]) -> Vec<u8>;
    let edits: [Edit; 4] = [
        |one, _, end| [one, one, end].concat(),
        |one, two, end| [two, one, end].concat(),
        |one, _, end| [one, end].concat(),
        |_, two, end| [two, end].concat(),
    ];
    for edit in edits {
        let wire = Wire::record(&[b"one", b"two"]).await;
        let (one, rest) = wire.frames.split_at(FRAME);
        let (two, end) = rest.split_at(FRAME);
        let frames = edit(one, two, end);
        let (_, read) = wire.play(&frames).await;
        assert_eq!(kind(read), io::ErrorKind::InvalidData);
    }
}

#[tokio::test]
async fn a_stream_that_is_cut_off_anywhere_is_an_error() {
    let length = Wire::record(&[b"one", b"two"]).await.frames.len();
    for to in 0..length {
        let wire = Wire::record(&[b"one", b"two"]).await;
        let frames = wire.frames[..to].to_vec();
        let (_, read) = wire.play(&frames).await;
        assert_eq!(kind(read), io::ErrorKind::UnexpectedEof, "after {to}");
    }
}

#[tokio::test]
async fn another_channels_messages_are_errors() {
    let foreign = Wire::record(&[b"one"]).await.frames;
    let (said, read) = Wire::record(&[b"one"]).await.play(&foreign).await;
    assert_eq!(
        (said.as_slice(), kind(read)),
        (&b""[..], io::ErrorKind::InvalidData)
    );
}

/// How a handshake ends on both sides.
async fn handshake(
    pinned: &StaticKey,
    service: &StaticKey,
    names: (&str, &str),
    admit: bool,
) -> (Option<ChannelError>, Option<ChannelError>) {
    let caller = key();
    let (a, b) = duplex(1024);
    let public = pinned.public();
    let (called, answered) = tokio::join!(
        initiate(a, &caller, &public, names.0, SECOND),
        accept(b, service, names.1, SECOND, |_| admit),
    );
    (called.err(), answered.err())
}

#[tokio::test]
async fn another_key_another_service_and_a_foreign_caller_fail() {
    use ChannelError::{Handshake, HungUp, Refused};
    let (mine, other) = (key(), key());
    assert!(matches!(
        handshake(&mine, &mine, ("kms", "kms"), true).await,
        (None, None)
    ));
    assert!(matches!(
        handshake(&other, &mine, ("kms", "kms"), true).await,
        (Some(HungUp), Some(Handshake))
    ));
    assert!(matches!(
        handshake(&mine, &mine, ("audit", "kms"), true).await,
        (Some(HungUp), Some(Handshake))
    ));
    assert!(matches!(
        handshake(&mine, &mine, ("kms", "kms"), false).await,
        (Some(HungUp), Some(Refused(_)))
    ));
}

#[tokio::test]
async fn every_altered_byte_of_a_handshake_fails_it() {
    for at in 0..HELLO + REPLY {
        let (caller, service) = (key(), key());
        let (a, mut wire_a) = duplex(1024);
        let (mut wire_b, b) = duplex(1024);
        let pinned = service.public();
        let between = async move {
            let mut hello = [0; HELLO];
            wire_a.read_exact(&mut hello).await?;
            if let Some(byte) = hello.get_mut(at) {
                *byte ^= 1;
            }
            wire_b.write_all(&hello).await?;
            let mut reply = [0; REPLY];
            wire_b.read_exact(&mut reply).await?;
            if let Some(byte) = at.checked_sub(HELLO).and_then(|at| reply.get_mut(at)) {
                *byte ^= 1;
            }
            wire_a.write_all(&reply).await
        };
        let (called, answered, _) = tokio::join!(
            initiate(a, &caller, &pinned, "kms", SECOND),
            accept(b, &service, "kms", SECOND, |_| true),
            between
        );
        assert!(called.is_err(), "byte {at}");
        assert_eq!(answered.is_err(), at < HELLO, "byte {at}");
    }
}

#[tokio::test]
async fn another_version_or_suite_is_named_as_such() {
    for at in 0..6 {
        let mut hello = [0; HELLO];
        hello[..6].copy_from_slice(b"ASNC\x01\x01");
        hello[at] += 1;
        let (mut a, b) = duplex(1024);
        a.write_all(&hello).await.expect("sent");
        let answered = accept(b, &key(), "kms", SECOND, |_| true).await;
        assert!(matches!(answered.err(), Some(ChannelError::Protocol)));
    }
}

#[tokio::test]
async fn a_slow_handshake_ends_in_time_on_either_side() {
    let (own, pinned) = (key(), key());
    let (mut a, b) = duplex(1024);
    let slow = async {
        for byte in *b"ASNC\x01\x01" {
            let _ = a.write_all(&[byte]).await;
            tokio::time::sleep(SECOND / 20).await;
        }
    };
    let (answered, ()) = tokio::join!(accept(b, &own, "kms", SECOND / 5, |_| true), slow);
    assert!(matches!(answered.err(), Some(ChannelError::TimedOut)));
    let (silent, b) = duplex(1024);
    let called = initiate(b, &own, &pinned.public(), "kms", SECOND / 5).await;
    assert!(matches!(called.err(), Some(ChannelError::TimedOut)));
    drop(silent);
}

#[tokio::test]
async fn a_writer_waits_for_a_reader_that_does_not_read() {
    let (mut a, mut b) = pair(4096, Rekey::default()).await;
    let bytes = vec![7; 1 << 20];
    let mut write = Box::pin(a.write_all(&bytes));
    assert!(tokio::time::timeout(SECOND / 20, &mut write).await.is_err());
    let mut said = vec![0; bytes.len()];
    let (read, written) = tokio::join!(b.read_exact(&mut said), write);
    read.expect("read");
    written.expect("written");
    assert_eq!(said, bytes);
}

#[tokio::test]
async fn the_key_changes_on_the_wire_and_both_sides_follow() {
    // The same plaintext under keys that changed at different times: a side that did not follow would fail to read.
    let often = Rekey {
        messages: 2,
        bytes: 1 << 30,
    };
    let by_volume = Rekey {
        messages: 1 << 30,
        bytes: 10,
    };
    for rekey in [often, by_volume] {
        let (mut a, mut b) = pair(1 << 16, rekey).await;
        for round in 0..20_u8 {
            a.write_all(&[round; 7]).await.expect("written");
            let mut said = [0; 7];
            b.read_exact(&mut said).await.expect("read");
            assert_eq!(said, [round; 7]);
            b.write_all(&said).await.expect("written");
            a.read_exact(&mut said).await.expect("read");
        }
    }
    // Sides that disagree about it part at the first message after the change.
    let (caller, service) = (key(), key());
    let (a, b) = duplex(1 << 16);
    let pinned = service.public();
    let (a, b) = tokio::join!(
        call(a, &caller, &pinned, "kms", often),
        answer(b, &service, "kms", |_| true, by_volume)
    );
    let (mut a, mut b) = (a.expect("called"), b.expect("answered"));
    for _ in 0..3 {
        a.write_all(b"x").await.expect("written");
    }
    let mut said = [0; 3];
    let refused = b.read_exact(&mut said).await;
    assert_eq!(refused.expect_err("an error").kind(), io::ErrorKind::InvalidData);
    assert_eq!(said, *b"xx\0");
}

/// Pieces of a text, with the sizes of the pieces in which it is written and read.
fn chunkings() -> impl Strategy<Value = (Vec<usize>, Vec<usize>, usize, u64)> {
    let sizes = || prop::collection::vec(prop_oneof![1..40_usize, 1..200_000_usize], 1..12);
    (
        sizes(),
        sizes(),
        prop_oneof![1..64_usize, Just(1 << 18)],
        1..5_u64,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn bytes_arrive_however_they_are_cut((writes, reads, pipe, messages) in chunkings()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        // A pipe of a few bytes makes large texts slow without saying more.
        let scale = if pipe < 64 { 50 } else { 1 };
        let total: usize = writes.iter().map(|size| size / scale + 1).sum();
        let text: Vec<u8> = (0..total).map(|at| (at % 251) as u8).collect();
        runtime.block_on(async {
            let (mut a, mut b) = pair(pipe.max(1), Rekey { messages, bytes: 100_000 }).await;
            let writing = async {
                let mut rest = &text[..];
                for size in &writes {
                    let (now, later) = rest.split_at(size / scale + 1);
                    a.write_all(now).await.expect("written");
                    rest = later;
                }
                a.shutdown().await.expect("ended");
            };
            let reading = async {
                let mut said = Vec::new();
                let mut sizes = reads.iter().cycle();
                loop {
                    let mut buffer = vec![0; *sizes.next().expect("endless")];
                    match b.read(&mut buffer).await.expect("read") {
                        0 => return said,
                        length => said.extend_from_slice(&buffer[..length]),
                    }
                }
            };
            let ((), said) = tokio::join!(writing, reading);
            assert!(said == text);
        });
    }

    #[test]
    fn vectored_writes_arrive_in_order(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50_000), 1..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let text = pieces.concat();
        runtime.block_on(async {
            let (mut a, mut b) = pair(1 << 20, Rekey::default()).await;
            let slices: Vec<io::IoSlice<'_>> = pieces.iter().map(|piece| io::IoSlice::new(piece)).collect();
            let written = a.write_vectored(&slices).await.expect("written");
            assert_eq!(written, text.len().min(65_519));
            a.shutdown().await.expect("ended");
            let mut said = Vec::new();
            b.read_to_end(&mut said).await.expect("read");
            assert!(said == text[..written]);
        });
    }

    #[test]
    fn no_bytes_make_a_handshake_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), valid_preamble: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let mut hello = if valid_preamble { b"ASNC\x01\x01".to_vec() } else { vec![] };
        hello.extend(bytes);
        runtime.block_on(async {
            let service = key();
            let io = tokio::io::join(&hello[..], tokio::io::sink());
            assert!(accept(io, &service, "kms", SECOND, |_| true).await.is_err());
            let io = tokio::io::join(&hello[..], tokio::io::sink());
            assert!(initiate(io, &service, &service.public(), "kms", SECOND).await.is_err());
        });
    }
}
