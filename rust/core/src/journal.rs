//! A journal: the append-only sequence of a command's records, addressed by absolute offset (PROTOCOL.md section 6).

/// Where the bytes of a journal can be read: in memory, or in a supervisor's ring.
pub trait Source: Send + Sync {
    /// Bytes before this offset were released.
    fn begin(&self) -> u64;
    /// The offset behind the last whole record.
    fn end(&self) -> u64;
    /// Whether the receipt stands: nothing follows.
    fn ended(&self) -> bool;
    /// Hands the bytes from `offset` on to `sink`, in one or two pieces, at most `max` of them, and says how many they were.
    fn read(&self, offset: u64, max: usize, sink: &mut dyn FnMut(&[u8])) -> usize;
    /// Forgets what stands before `offset`. True: the writer waits for room and wants to be told.
    fn release(&self, offset: u64) -> bool;
}
