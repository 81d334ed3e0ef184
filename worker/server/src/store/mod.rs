//! The values of this worker: where each is, and what the scheduler is told about it.

mod holders;
mod mapping;
mod segments;
mod spill;

use std::{os::fd::AsRawFd, sync::Arc};

use bytes::Bytes;
use hashbrown::HashMap;
use oxidask_protocol::{Key, Payload, message::worker::StartStop};

use crate::executor::wire::Input;
pub(crate) use holders::{Holders, MOST_EXECUTORS};
pub(crate) use mapping::MemoryFile;
pub(crate) use segments::{Segment, Segments};
pub(crate) use spill::SpillFile;

/// Frames from this size on go to an executor as a memory file. Unit: bytes.
const MEMORY_FILE_BYTES: u64 = 1 << 20;

/// What `task-finished` says about a value.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    pub(crate) typename: String,
    /// The pickled class.
    pub(crate) type_: Bytes,
    pub(crate) thread: u64,
    pub(crate) startstops: Vec<StartStop>,
}

/// `pickle.dumps(object)`: the class told for values that came from elsewhere and were not opened.
const PICKLED_OBJECT: &[u8] =
    b"\x80\x04\x95\x17\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94\x8c\x06object\x94\x93\x94.";

impl About {
    /// About a value that was received and not opened.
    pub(crate) fn unknown() -> Self {
        Self {
            typename: "object".to_owned(),
            type_: Bytes::from_static(PICKLED_OBJECT),
            ..Self::default()
        }
    }
}

/// A value.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its number, by which executors know it. Never used twice.
    pub(crate) id: u64,
    /// `sizeof` the value, as the executor or the sender says.
    pub(crate) nbytes: u64,
    pub(crate) about: About,
    /// Executors that have it too, or alone.
    pub(crate) holders: Holders,
    /// It cannot be serialised, so it never leaves the one executor that has it.
    pub(crate) pinned: bool,
    /// It is an actor: peers get a proxy.
    pub(crate) actor: bool,
    /// Header and frames, in this process's hands.
    pub(crate) payload: Option<Payload>,
    /// The memory file that the frames lie in, if they do.
    pub(crate) file: Option<Arc<MemoryFile>>,
    /// The segments that frames lie in; none for frames on the heap or in `file`.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// The value on disk; then nothing of it is in memory here.
    pub(crate) spilled: Option<Arc<SpillFile>>,
    /// When it was last used, as a count of uses.
    pub(crate) last_used: u64,
    /// How it came from a peer, until the first task that uses it has told the scheduler.
    pub(crate) came: Option<Box<StartStop>>,
}

impl Entry {
    /// A value that only `executor` has.
    pub(crate) fn resident(id: u64, nbytes: u64, about: About, executor: usize) -> Self {
        Self {
            id,
            nbytes,
            about,
            holders: Holders::one(executor),
            pinned: false,
            actor: false,
            payload: None,
            file: None,
            segments: Vec::new(),
            spilled: None,
            last_used: id,
            came: None,
        }
    }

    /// A value that came from elsewhere.
    pub(crate) fn received(id: u64, nbytes: u64, payload: Payload) -> Self {
        Self {
            id,
            nbytes,
            about: About::unknown(),
            holders: Holders::NONE,
            pinned: false,
            actor: false,
            payload: Some(payload),
            file: None,
            segments: Vec::new(),
            spilled: None,
            last_used: id,
            came: None,
        }
    }

    /// Nothing of it is in this process's hands or on disk: it ends with the last of its holders.
    pub(crate) fn only_in_executors(&self) -> bool {
        self.payload.is_none() && self.spilled.is_none()
    }

    /// How `executor` gets the value with a task; none if only another one has it.
    pub(crate) fn input(&mut self, executor: usize) -> Option<Input> {
        if self.holders.contains(executor) {
            return Some(Input::Resident);
        }
        if let Some(spilled) = &self.spilled {
            return Some(Input::File {
                header: spilled.header().clone(),
                path: spilled.path().to_string_lossy().into_owned(),
                places: spilled.places().to_vec(),
            });
        }
        let payload = self.payload.as_ref()?;
        if !self.segments.is_empty() {
            return Some(Input::Segments {
                payload: payload.clone(),
                segments: self.segments.clone(),
            });
        }
        if self.file.is_none() && payload.nbytes() >= MEMORY_FILE_BYTES {
            match MemoryFile::create(payload.frames.as_slice()) {
                Ok(file) => {
                    let frames = file.frames();
                    self.payload = Some(Payload::serialized(payload.header.clone(), frames));
                    self.file = Some(Arc::new(file));
                }
                Err(error) => {
                    tracing::warn!(%error, "no memory file for a value; it goes through the socket")
                }
            }
        }
        let payload = self.payload.clone()?;
        Some(match &self.file {
            Some(file) => Input::MemoryFile {
                header: payload.header,
                fd: file.file().as_raw_fd(),
                places: file.places().to_vec(),
            },
            None => Input::Inline(payload),
        })
    }
}

/// All values by key, and their keys by number.
#[derive(Debug, Default)]
pub(crate) struct Store {
    entries: HashMap<Key, Entry>,
    keys: HashMap<u64, Key>,
    last_id: u64,
}

impl Store {
    /// A number for a run or a value.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Keep a value; what was under its key before is given back.
    pub(crate) fn insert(&mut self, key: Key, entry: Entry) -> Option<Entry> {
        self.keys.insert(entry.id, key.clone());
        let old = self.entries.insert(key, entry);
        if let Some(old) = &old {
            self.keys.remove(&old.id);
        }
        old
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.keys.remove(&entry.id);
        Some(entry)
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &Key) -> Option<&mut Entry> {
        self.entries.get_mut(key)
    }

    pub(crate) fn by_id(&mut self, id: u64) -> Option<(Key, &mut Entry)> {
        let key = self.keys.get(&id)?.clone();
        let entry = self.entries.get_mut(&key)?;
        Some((key, entry))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&Key, &mut Entry)> {
        self.entries.iter_mut()
    }
}
