//! Memory that is free goes back to the system once the process rests.
//!
//! The allocator keeps what was freed, so that the next allocation is cheap, and gives it back when it is asked for
//! more some time later. After a burst, such as a graph of a million tasks, nobody asks: without this, a scheduler
//! would go on holding the memory of messages and lists that are long gone.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How often it is looked whether the process rests.
const LOOK: Duration = Duration::from_millis(250);

/// A process that uses less CPU time than this between two looks rests: a tenth of a processor. Heartbeats of a
/// thousand workers take a fiftieth.
const REST: Duration = Duration::from_millis(25);

/// CPU time after which enough memory may have become free to ask for it. Asking costs a millisecond or two.
const WORK: Duration = Duration::from_millis(10);

/// Looks between two times that memory is given back by a process that does as little all the time.
const SPACING: u32 = 8;

/// Gives free memory back whenever the process rests after work. Never ends. Only for processes whose allocator is
/// mimalloc, and to be run on the thread that allocates most.
pub async fn return_when_at_rest() {
    let mut rest = Rest::default();
    loop {
        tokio::time::sleep(LOOK).await;
        if rest.is_due(cpu_time()) {
            return_free();
            rest.returned(cpu_time());
        }
    }
}

/// When memory is to be given back. Times are CPU times of the process.
#[derive(Debug, Default)]
struct Rest {
    /// At the last look.
    last: Duration,
    /// When memory was last given back.
    returned: Duration,
}

impl Rest {
    /// Whether the process rests now and has worked since memory was last given back.
    fn is_due(&mut self, cpu: Duration) -> bool {
        let used = cpu.saturating_sub(self.last);
        self.last = cpu;
        used < REST && cpu.saturating_sub(self.returned) > WORK + used * SPACING
    }

    fn returned(&mut self, cpu: Duration) {
        self.last = cpu;
        self.returned = cpu;
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    // The clock of a process starts at 0 and never goes back.
    Duration::try_from(time).unwrap_or_default()
}

/// Gives back what this thread and those that ended have freed.
fn return_free() {
    // What the first call finds empty is given back by the second.
    for _ in 0..2 {
        // SAFETY: the call takes no pointer and may be made at any time on any thread; it frees nothing in use.
        unsafe { libmimalloc_sys::mi_collect(true) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn memory_is_given_back_once_after_work() {
        let mut rest = Rest::default();
        assert!(!rest.is_due(ms(200)), "it still works");
        assert!(rest.is_due(ms(201)));
        rest.returned(ms(203));
        assert!(!rest.is_due(ms(203)), "nothing has been done since");
    }

    #[test]
    fn little_work_is_not_worth_it() {
        let mut rest = Rest::default();
        assert!([4, 8, 11].iter().all(|cpu| !rest.is_due(ms(*cpu))));
        assert!(rest.is_due(ms(11)), "in the end it adds up");
    }

    #[test]
    fn who_does_a_little_all_the_time_gives_memory_back_now_and_then() {
        let mut rest = Rest::default();
        let mut times = 0;
        for look in 1..=100 {
            if rest.is_due(ms(5 * look)) {
                rest.returned(ms(5 * look));
                times += 1;
            }
        }
        assert_eq!(times, 9, "every eleventh look");
        assert!(
            (1..100).all(|look| !rest.is_due(ms(500 + 25 * look))),
            "it works"
        );
    }

    #[test]
    fn the_clock_of_the_process_runs() {
        assert!(cpu_time() > Duration::ZERO);
        return_free();
    }
}
