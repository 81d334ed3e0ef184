//! Memory for results.

/// From this size on pages are asked to be huge. Unit: bytes. NumPy's threshold too: below, it costs more than it saves.
const HUGE_FROM: usize = 4 << 20;

/// What the kernel of the system may do about huge pages. Unit: bytes.
const PAGE: usize = 4096;

/// An empty vector with room for `n` elements.
///
/// Large ones are advised to lie in huge pages, without which touching fresh memory for the first time takes longer
/// than most element-wise work on it.
pub(crate) fn vector<T>(n: usize) -> Vec<T> {
    let vector = Vec::with_capacity(n);
    let bytes = n * size_of::<T>();
    if bytes >= HUGE_FROM {
        let start = (vector.as_ptr() as usize).next_multiple_of(PAGE);
        let end = (vector.as_ptr() as usize + bytes) / PAGE * PAGE;
        // SAFETY: the range lies within the vector's own allocation, whose content the advice does not change.
        // A system that does not know the advice works without.
        let _ = unsafe {
            rustix::mm::madvise(
                start as *mut std::ffi::c_void,
                end - start,
                rustix::mm::Advice::LinuxHugepage,
            )
        };
    }
    vector
}

/// A vector of `n` elements that `fill` has written, all of them.
///
/// `fill` is compiled for the widest vectors that this machine has.
pub(crate) fn filled<T: Copy>(n: usize, fill: impl Fn(&mut [std::mem::MaybeUninit<T>])) -> Vec<T> {
    let mut vector = vector::<T>(n);
    let spare = &mut vector.spare_capacity_mut()[..n];
    crate::simd::vectorised(
        #[inline(always)]
        || fill(&mut *spare),
    );
    // SAFETY: `fill` has written all `n` elements, which is what callers promise.
    unsafe { vector.set_len(n) };
    vector
}
