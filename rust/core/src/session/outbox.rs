//! What is to be sent, in two stages: frames that are encoded but may still be overtaken by nothing (control), and bytes
//! that are on their way (staged). Control is always staged before any data.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::error::UsageError;
use crate::frame::Frame;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    control: Vec<u8>,
    staged: VecDeque<Bytes>,
    staged_bytes: usize,
}

impl Outbox {
    /// Queues bytes before all data.
    pub(super) fn push_control(&mut self, bytes: &[u8]) {
        self.control.extend_from_slice(bytes);
    }

    /// Queues a frame before all data. On an error nothing is queued.
    pub(super) fn push_frame(&mut self, frame: &Frame<'_>) -> Result<(), UsageError> {
        let before = self.control.len();
        let result = frame.encode(&mut self.control);
        if result.is_err() {
            self.control.truncate(before);
        }
        result
    }

    /// Moves the control frames on. False: there are none.
    pub(super) fn stage_control(&mut self) -> bool {
        let control = std::mem::take(&mut self.control);
        let some = !control.is_empty();
        self.stage(Bytes::from(control));
        some
    }

    pub(super) fn stage(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.staged_bytes += bytes.len();
            self.staged.push_back(bytes);
        }
    }

    pub(super) fn staged(&self) -> usize {
        self.staged_bytes
    }

    pub(super) fn queued(&self) -> usize {
        self.staged_bytes + self.control.len()
    }

    /// At most `max` of the staged bytes, in slices.
    pub(super) fn hand_out(&mut self, max: usize) -> Vec<Bytes> {
        let mut slices = Vec::with_capacity(self.staged.len());
        let mut left = max;
        while left > 0
            && let Some(mut slice) = self.staged.pop_front()
        {
            if slice.len() > left {
                self.staged.push_front(slice.split_off(left));
            }
            left -= slice.len();
            self.staged_bytes -= slice.len();
            slices.push(slice);
        }
        slices
    }

    /// Takes back the end of what was handed out last.
    pub(super) fn put_back(&mut self, slices: impl DoubleEndedIterator<Item = Bytes>) {
        for slice in slices.rev().filter(|slice| !slice.is_empty()) {
            self.staged_bytes += slice.len();
            self.staged.push_front(slice);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
