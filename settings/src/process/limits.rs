//! How many files and connections the process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the number of descriptors that may be open to half of what the system allows at most, as stock Dask does:
/// the usual 1024 are fewer than the connections of a large cluster. Gives the number that holds now, `None` for no
/// limit.
pub fn raise_descriptor_limit() -> Option<u64> {
    let now = getrlimit(Resource::Nofile);
    let wanted = match (now.current, now.maximum) {
        (Some(current), Some(maximum)) => current.max(maximum / 2),
        // Without a hard limit there is no half of it; this is what most systems take for one.
        (Some(current), None) => current.max(1 << 19),
        (None, _) => return None,
    };
    let raised = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(wanted),
            maximum: now.maximum,
        },
    );
    match raised {
        Ok(()) => Some(wanted),
        // The system may refuse; then what held before holds on.
        Err(_) => now.current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_never_sinks() {
        let before = getrlimit(Resource::Nofile).current;
        let after = raise_descriptor_limit();
        assert_eq!(getrlimit(Resource::Nofile).current, after);
        assert!(after.is_none() || after >= before);
    }
}
