//! The two clocks, in microseconds: what timers and records are counted in.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// A moment, or a length, of the monotonic clock.
pub(crate) type Micros = u64;

/// One second.
pub(crate) const SECOND: Micros = 1_000_000;

/// One millisecond.
pub(crate) const MILLISECOND: Micros = 1_000;

/// The monotonic clock.
pub(crate) fn mono() -> Micros {
    micros(clock_gettime(ClockId::Monotonic))
}

/// Unix time.
pub(crate) fn wall() -> Micros {
    micros(clock_gettime(ClockId::Realtime))
}

/// Seconds as people write them; what is negative or not a number is nothing, and thirty years are for ever.
pub(crate) fn from_seconds(seconds: f64) -> Micros {
    ((seconds * SECOND as f64) as Micros).min(1_000_000_000 * SECOND)
}

/// So many microseconds, as a system call wants them.
pub(crate) fn timespec(length: Micros) -> Timespec {
    Timespec { tv_sec: (length / SECOND) as i64, tv_nsec: (length % SECOND) as i64 * 1000 }
}

fn micros(time: Timespec) -> Micros {
    time.tv_sec as Micros * SECOND + time.tv_nsec as Micros / 1000
}
