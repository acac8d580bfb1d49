//! Stop means stop: the escalation from a polite signal to KILL, with a time for each step, and an end.
//!
//! A pure machine: it is told the time and says what to send. Who runs it ends it when no process is left.

use rustix::process::Signal;

use crate::clock::{MILLISECOND, Micros, SECOND};

/// How a child wants to be stopped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// Send TERM first, and wait so long.
    pub(crate) term: Option<Micros>,
    /// Then this.
    pub(crate) signal: Signal,
    /// And so long after it, if that was not KILL, KILL.
    pub(crate) grace: Micros,
}

/// KILL is repeated: a process may fork between being seen and being killed.
const KILL_AGAIN: Micros = 20 * MILLISECOND;

/// What KILL has not ended by then is stuck in the kernel, or another user's.
const GIVE_UP: Micros = 5 * SECOND;

/// A stop under way.
#[derive(Debug)]
pub(crate) struct Stop {
    manner: Manner,
    stage: Stage,
    /// When `poll` has something to say.
    due: Micros,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begin,
    Termed,
    Signalled,
    Killing { give_up: Micros },
    GaveUp,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// To every process of the child.
    Send(Signal),
    /// Some live on; end without them.
    GiveUp,
}

impl Stop {
    /// One whose first signal is due now.
    pub(crate) fn new(manner: Manner, now: Micros) -> Self {
        Self { manner, stage: Stage::Begin, due: now }
    }

    /// Goes to KILL now, whatever was promised.
    pub(crate) fn hurry(&mut self, now: Micros) {
        if !matches!(self.stage, Stage::Killing { .. } | Stage::GaveUp) {
            self.manner = Manner { term: None, signal: Signal::KILL, ..self.manner };
            (self.stage, self.due) = (Stage::Begin, now);
        }
    }

    /// When to call `poll`.
    pub(crate) fn due(&self) -> Option<Micros> {
        (self.stage != Stage::GaveUp).then_some(self.due)
    }

    /// Whether `GiveUp` was said.
    pub(crate) fn gave_up(&self) -> bool {
        self.stage == Stage::GaveUp
    }

    /// What is due.
    pub(crate) fn poll(&mut self, now: Micros) -> Option<Action> {
        if now < self.due {
            return None;
        }
        let Manner { term, signal, grace } = self.manner;
        let (stage, due, action) = match (self.stage, term) {
            (Stage::Begin, Some(term)) => (Stage::Termed, now + term, Action::Send(Signal::TERM)),
            (Stage::Begin | Stage::Termed, _) if signal != Signal::KILL => {
                (Stage::Signalled, now + grace, Action::Send(signal))
            }
            (Stage::Begin | Stage::Termed | Stage::Signalled, _) => {
                (Stage::Killing { give_up: now + GIVE_UP }, now + KILL_AGAIN, Action::Send(Signal::KILL))
            }
            (Stage::Killing { give_up }, _) if now >= give_up => (Stage::GaveUp, now, Action::GiveUp),
            (stage @ Stage::Killing { .. }, _) => (stage, now + KILL_AGAIN, Action::Send(Signal::KILL)),
            (Stage::GaveUp, _) => return None,
        };
        (self.stage, self.due) = (stage, due);
        Some(action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is sent when nothing helps: (milliseconds, signal), repeats left out.
    fn sent(manner: Manner) -> (Vec<(u64, Signal)>, u64) {
        let mut stop = Stop::new(manner, 0);
        let mut sent: Vec<(u64, Signal)> = Vec::new();
        loop {
            let now = stop.due().unwrap();
            match stop.poll(now) {
                Some(Action::Send(signal)) if sent.last().is_none_or(|(_, last)| *last != signal) => {
                    sent.push((now / MILLISECOND, signal));
                }
                Some(Action::Send(_)) => {}
                Some(Action::GiveUp) => return (sent, now / MILLISECOND),
                None => panic!("nothing was due"),
            }
        }
    }

    fn manner(term: Option<Micros>, signal: Signal) -> Manner {
        Manner { term, signal, grace: 2 * SECOND }
    }

    #[test]
    fn it_kills_at_once_when_nothing_else_is_asked() {
        assert_eq!(sent(manner(None, Signal::KILL)), (vec![(0, Signal::KILL)], 5000));
    }

    #[test]
    fn term_comes_first_and_kill_last() {
        let (sent, end) = sent(manner(Some(3 * SECOND), Signal::INT));
        assert_eq!(sent, [(0, Signal::TERM), (3000, Signal::INT), (5000, Signal::KILL)]);
        assert_eq!(end, 10_000);
    }

    #[test]
    fn a_signal_that_is_ignored_is_followed_by_kill() {
        assert_eq!(sent(manner(None, Signal::INT)).0, [(0, Signal::INT), (2000, Signal::KILL)]);
    }

    #[test]
    fn nothing_is_sent_before_its_time() {
        let mut stop = Stop::new(manner(Some(SECOND), Signal::KILL), 0);
        assert_eq!(stop.poll(0), Some(Action::Send(Signal::TERM)));
        assert_eq!(stop.poll(SECOND - 1), None);
        assert_eq!(stop.poll(SECOND), Some(Action::Send(Signal::KILL)));
    }

    #[test]
    fn a_stop_in_a_hurry_kills_now() {
        let mut stop = Stop::new(manner(Some(100 * SECOND), Signal::INT), 0);
        stop.poll(0);
        stop.hurry(5);
        assert_eq!(stop.poll(5), Some(Action::Send(Signal::KILL)));
    }
}
