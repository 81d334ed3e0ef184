//! Loops compiled for the widest vectors that this machine has.

/// Runs `work`, compiled for AVX-512 or AVX2 where the machine has them.
///
/// Only what is inlined into `work` gains: give closures and the functions that they call `#[inline(always)]`. It is
/// called through a reference, because a closure called by value goes through a function that is not inlined.
pub(crate) fn vectorised<R>(mut work: impl FnMut() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            // SAFETY: the machine has these features.
            return unsafe { avx512(&mut work) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
            // SAFETY: the machine has these features.
            return unsafe { avx2(&mut work) };
        }
    }
    work()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi2")]
fn avx512<R>(work: &mut impl FnMut() -> R) -> R {
    work()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi2")]
fn avx2<R>(work: &mut impl FnMut() -> R) -> R {
    work()
}
