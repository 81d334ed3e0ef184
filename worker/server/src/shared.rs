//! Values for workers on this host: the memory file itself instead of its bytes.
//!
//! A worker of ours proves that it can be reached this way by a nonce in a memory file of its own: whoever can open
//! that file through `/proc` and finds the nonce shares a kernel, a process table and a user with it. Equal
//! addresses would prove nothing. Stock peers do not know the question and answer with nothing.

use std::{fs::File, io, os::fd::AsRawFd, os::unix::fs::FileExt, path::Path, sync::Arc};

use bytes::Bytes;
use oxidask_protocol::{Key, Payload, Value, message::decode_one};

use crate::store::MemoryFile;

/// Asks whether memory can be shared.
pub(crate) const HELLO: &str = "oxidask_shared_hello";
/// As `get_data`, with values in memory files named and not sent.
pub(crate) const GET_DATA: &str = "oxidask_shared_get_data";

/// Transfers below this are as quick over TCP. Unit: bytes.
pub(crate) const SHARE_BYTES: u64 = 1 << 20;

/// A value as it is exchanged within this program: its frames may lie in a memory file.
pub(crate) type Shared = (Key, Payload, Option<Arc<MemoryFile>>);

/// Our own proof.
#[derive(Debug)]
pub(crate) struct Proof {
    file: MemoryFile,
    nonce: Bytes,
}

impl Proof {
    /// A fresh nonce.
    ///
    /// # Errors
    /// If the kernel gives no randomness or no memory file.
    pub(crate) fn new() -> io::Result<Self> {
        let nonce = Bytes::from(std::fs::read("/proc/sys/kernel/random/uuid")?);
        Ok(Self {
            file: MemoryFile::create(std::slice::from_ref(&nonce))?,
            nonce,
        })
    }

    /// The answer to [`HELLO`].
    pub(crate) fn answer(&self) -> Value {
        Value::map([
            ("pid", Value::Int(std::process::id().into())),
            ("fd", Value::Int(self.file.file().as_raw_fd().into())),
            ("nonce", Value::Bin(self.nonce.clone())),
        ])
    }
}

/// The process id of the peer that gave this answer to [`HELLO`], if its memory can be shared.
pub(crate) fn check(answer: &[Bytes]) -> Option<u32> {
    let answer: Value = decode_one(answer).ok()?;
    let pid = u32::try_from(answer.field("pid")?.as_u64()?).ok()?;
    let fd = answer.field("fd")?.as_u64()?;
    let Value::Bin(nonce) = answer.field("nonce")? else {
        return None;
    };
    let file = File::open(
        Path::new("/proc")
            .join(pid.to_string())
            .join("fd")
            .join(fd.to_string()),
    )
    .ok()?;
    let mut found = vec![0; nonce.len().min(256)];
    file.read_exact_at(&mut found, 0).ok()?;
    (found == nonce[..] && !nonce.is_empty()).then_some(pid)
}

/// How a value in a memory file is named: descriptor, header, places.
pub(crate) fn name(payload: &Payload, file: &MemoryFile) -> Value {
    let place = |(offset, length): &(u64, u64)| {
        Value::Array(vec![
            Value::Int((*offset).into()),
            Value::Int((*length).into()),
        ])
    };
    Value::Array(vec![
        Value::Int(file.file().as_raw_fd().into()),
        Value::Bin(payload.header.clone()),
        Value::Array(file.places().iter().map(place).collect()),
    ])
}

/// Open what the process `pid` has named.
pub(crate) fn open(pid: u32, name: &Value) -> Option<(Payload, Arc<MemoryFile>)> {
    let [fd, Value::Bin(header), places] = name.as_array()? else {
        return None;
    };
    let pair = |value: &Value| match value.as_array()? {
        [offset, length] => Some((offset.as_u64()?, length.as_u64()?)),
        _ => None,
    };
    let places = places
        .as_array()?
        .iter()
        .map(pair)
        .collect::<Option<Vec<_>>>()?;
    let file = MemoryFile::of_executor(pid, fd.as_u64()?, places).ok()?;
    Some((
        Payload::serialized(header.clone(), file.frames()),
        Arc::new(file),
    ))
}

#[cfg(test)]
mod tests {
    use oxidask_protocol::message::encode_one;

    use super::*;

    #[test]
    fn own_proof_is_accepted_and_a_wrong_nonce_is_not() {
        let proof = Proof::new().unwrap();
        assert_eq!(
            check(&encode_one(&proof.answer())),
            Some(std::process::id())
        );
        let forged = Proof {
            nonce: Bytes::from_static(b"something else"),
            ..proof
        };
        assert_eq!(check(&encode_one(&forged.answer())), None);
        assert_eq!(check(&encode_one(&Value::Nil)), None);
    }

    #[test]
    fn named_value_is_the_same_value() {
        let frames = [Bytes::from_static(b"abc"), Bytes::from(vec![1; 5000])];
        let file = MemoryFile::create(&frames).unwrap();
        let payload = Payload::serialized(Bytes::from_static(b"\x80"), file.frames());
        let (opened, _) = open(std::process::id(), &name(&payload, &file)).unwrap();
        assert_eq!(opened, payload);
    }
}
